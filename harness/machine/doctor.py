"""`quasibench doctor`: what this machine offers a measurement, and what is missing."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version

from rich.console import Console

import impls
from harness import paths
from harness.machine import identity

PACKAGES = ("numpy", "torch", "jax", "jaxlib", "cupy-cuda13x", "pandas", "seaborn", "papermill",
            "nbconvert", "pytest", "pytest-benchmark")  # fmt: skip


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def compiler() -> str | None:
    """First line of the C++ compiler's version ($CXX, else c++), or None where there is none."""
    found = shutil.which(os.environ.get("CXX", "c++"))
    if found is None:
        return None
    answer = subprocess.run([found, "--version"], capture_output=True, text=True, check=False)
    return answer.stdout.splitlines()[0] if answer.stdout else None


def gpu() -> str | None:
    """What `nvidia-smi -L` says, or None."""
    smi = shutil.which("nvidia-smi")
    if smi is None:
        return None
    answer = subprocess.run([smi, "-L"], capture_output=True, text=True, check=False)
    return answer.stdout.strip() or None


def lines() -> list[tuple[str, str]]:
    """Rows of the report: (what, what was found)."""
    cores = identity.thread_count("all")
    load = identity.load_average()
    ready = [n for n in impls.names() if _ready(n)]
    out = [
        ("Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
        ("cores for this process", str(cores)),
        ("load average", "unknown" if load is None else f"{load:.2f}"),
        ("C++ compiler", compiler() or "none: install g++ or clang++ for the native kernels"),
        ("CUDA device", gpu() or "none: the CUDA implementations are not run"),
        ("runs are kept in", "reports/runs" if paths.checkout() else "quasibench-runs"),
        ("implementations ready", ", ".join(ready) or "none"),
    ]
    if load is not None and load > cores / 2:
        out.append(("warning", "the machine is busy: timings will be marked noisy"))
    return out + [(package, _version(package)) for package in PACKAGES]


def _ready(name: str) -> bool:
    try:
        return impls.missing(impls.get(name)) is None
    except impls.BrokenImplementation:
        return False


def show(console: Console | None = None) -> None:
    """Print the report."""
    console = console or Console()
    rows = lines()
    width = max(len(what) for what, _ in rows)
    for what, found in rows:
        console.print(f"{what:<{width}}  {found}", markup=False, highlight=False, soft_wrap=True)
