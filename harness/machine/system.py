"""What the operating system says about the machine and its processes; None where it does not say.

Linux first; elsewhere less is known and nothing fails.
"""

from __future__ import annotations

import functools
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any


def text(path: str) -> str | None:
    """What a small file holds."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def run(*words: str) -> str:
    """What a command prints, "" where it is absent or fails."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def cores() -> int:
    """Cores that this process may use: its affinity, and its group's quota rounded down."""
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:
        count = os.cpu_count() or 1
    quota = (text("/sys/fs/cgroup/cpu.max") or "max").split()
    if len(quota) == 2 and quota[0] != "max":
        count = min(count, max(1, int(quota[0]) // int(quota[1])))
    return count


def cpu() -> dict[str, Any]:
    """Name and features of the first core."""
    info: dict[str, str] = {}
    for line in (text("/proc/cpuinfo") or "").splitlines():
        key, _, value = line.partition(":")
        info.setdefault(key.strip(), value.strip())
    part = " ".join(info[k] for k in ("CPU implementer", "CPU part") if k in info)
    model = info.get("model name") or part or run("sysctl", "-n", "machdep.cpu.brand_string")
    return {
        "model": model or platform.processor() or "unknown",
        "flags": set((info.get("flags") or info.get("Features") or "").split()),
    }


def memory() -> int | None:
    """Bytes of main memory."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError, AttributeError):
        return None


def boot_id() -> str | None:
    """An id that changes at every start of the operating system, None where there is none."""
    found = text("/proc/sys/kernel/random/boot_id")
    return found or run("sysctl", "-n", "kern.bootsessionuuid") or None


def process_started(pid: int) -> str | None:
    """When the process was started, in the system's own words; None where it does not run."""
    stat = text(f"/proc/{pid}/stat")
    if stat:
        words = stat.rpartition(")")[2].split()
        return None if words[0] in "ZX" else words[19]
    if sys.platform.startswith("linux"):
        return None
    return run("ps", "-o", "lstart=", "-p", str(pid)) or None


@functools.cache
def gpus() -> tuple[dict[str, dict[str, str]], ...]:
    """CUDA devices by `nvidia-smi`: what they are (`device`) and how they are set (`settings`)."""
    about = ("name", "memory.total", "driver_version", "compute_cap")
    settings = ("mig.mode.current", "ecc.mode.current", "persistence_mode", "power.limit",
                "clocks.max.sm")  # fmt: skip
    table = run("nvidia-smi", f"--query-gpu={','.join(about + settings)}", "--format=csv,noheader")
    found = []
    for line in table.splitlines():
        values = [value.strip() for value in line.split(",")]
        if len(values) == len(about) + len(settings):
            found.append(
                {
                    "device": dict(zip(about, values, strict=False)),
                    "settings": dict(zip(settings, values[len(about) :], strict=True)),
                }
            )
    return tuple(found)
