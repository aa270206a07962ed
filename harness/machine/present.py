"""What a worker process says of itself: versions of the frameworks in it, its CPUs and threads."""

from __future__ import annotations

import os
import sys
from importlib import metadata
from pathlib import Path
from typing import Any


def version(module: str) -> str | None:
    """The version of an imported or installed package; None where neither tells."""
    found = getattr(sys.modules.get(module), "__version__", None)
    if found is not None:
        return str(found)
    try:
        return metadata.version(module)
    except metadata.PackageNotFoundError:
        return None


def threads() -> dict[str, Any]:
    """The CPUs this process may use and the threads it has, torch's own pool named."""
    affine = hasattr(os, "sched_getaffinity")
    tasks = Path("/proc/self/task")
    pool = getattr(sys.modules.get("torch"), "get_num_threads", None)
    return {
        "cpus": len(os.sched_getaffinity(0)) if affine else os.cpu_count(),
        "tasks": len(list(tasks.iterdir())) if tasks.exists() else None,
        "torch_threads": None if pool is None else pool(),
    }
