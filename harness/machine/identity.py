"""The machine's fingerprint, the versions and sources behind a row, and the thread budget.

What is written down holds no user name, no path and no address; the host's name only as a hash.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
import os
import platform
import re
import sys
import time
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import impls
from harness.errors import UsageError
from harness.machine import system
from impls.contract import Implementation

FRAMEWORKS = ("torch", "jax", "jaxlib", "cupy", "triton", "numba")
COMPANIONS = {"torch": ("triton",), "jax": ("jaxlib",), "cupy": ()}
"""Packages that compile or run a framework's code, so their version belongs to its rows."""
FLAGS = (
    "fma, f16c, avx, avx2, avx_vnni, avx512f, avx512bw, avx512_vnni, avx512_bf16, avx512_fp16, "
    "amx_tile, amx_bf16, amx_int8, asimd, asimdhp, bf16, sve, sve2, sme"
)
"""CPU features that matrix and vector code chooses by."""
VARIABLES = (
    "OMP_PROC_BIND, OMP_PLACES, OMP_WAIT_POLICY, OMP_DYNAMIC, GOMP_SPINCOUNT, GOMP_CPU_AFFINITY, "
    "KMP_BLOCKTIME, KMP_AFFINITY, MKL_DYNAMIC, MKL_CBWR, MKL_ENABLE_INSTRUCTIONS, "
    "ONEDNN_MAX_CPU_ISA, ONEDNN_DEFAULT_FPMATH_MODE, LD_PRELOAD, XLA_FLAGS, JAX_ENABLE_X64, "
    "JAX_DEFAULT_MATMUL_PRECISION, NVIDIA_TF32_OVERRIDE, CUBLAS_WORKSPACE_CONFIG"
)
"""Settings that workers inherit and that change speed; thread counts are set by the harness."""
SKIPPED = {".pyc", ".pyo", ".so"}


def thread_count(threads: int | str) -> int:
    """The thread budget as a number; "all" is every core that this process may use.

    Raises:
        UsageError: more threads than cores.
    """
    cores = system.cores()
    if threads == "all":
        return cores
    if int(threads) > cores:
        raise UsageError(
            f"threads = {threads}: this process may use {cores} core{'s'[: cores > 1]}; give at "
            f'most {cores}, or "all"'
        )
    return int(threads)


def load_average() -> float | None:
    """Mean number of waiting or running processes over the last minute, None where unknown."""
    try:
        return os.getloadavg()[0]
    except (OSError, AttributeError):
        return None


def fingerprint(threads: int) -> dict[str, Any]:
    """What the machine is: `comparable` goes into the hash, `recorded` is kept beside it.

    Framework versions are recorded here and enter each implementation's `stale_key`, so that a
    new JAX does not make the rows of a torch implementation stale.
    """
    cpu = system.cpu()
    comparable = {
        "cpu": cpu["model"],
        "cpu_flags": [flag for flag in FLAGS.split(", ") if flag in cpu["flags"]],
        "cores": system.cores(),
        "architecture": platform.machine(),
        "system": platform.system(),
        "gpus": [gpu["device"] for gpu in system.gpus()],
        "cuda_libraries": _versions(n for n in _installed() if n.startswith("nvidia-")),
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
        "numpy": framework_version("numpy"),
        "threads": threads,
        "environment": {
            n: _masked(os.environ[n]) for n in VARIABLES.split(", ") if n in os.environ
        },
    }
    return {"comparable": comparable, "recorded": _recorded()}


def fingerprint_hash(fp: dict[str, Any]) -> str:
    """12 hexadecimal digits; equal where rows may be compared."""
    return _digest(fp["comparable"], 12)


def host_id() -> str:
    """The host's name as a hash of 12 digits."""
    return hashlib.sha256(f"quasibench host {platform.node()}".encode()).hexdigest()[:12]


def framework_version(module: str) -> str | None:
    """Installed version of the package that brings `module`, which is not imported."""
    try:
        return metadata.version(module)
    except metadata.PackageNotFoundError:
        names = sorted(set(_modules().get(module, ())))
        return metadata.version(names[0]) if names else None


def source_files(name: str) -> list[Path]:
    """Everything of ours that an implementation runs.

    That is its own folder (a foreign one's top package), the shared package of its framework,
    the folders that its card shares, the contract and the parameters, and what the parts of a
    layer compute where it offers them.
    """
    top = Path(impls.__file__).parent
    paths = [*_files(_home(name)), top / "contract.py", top / "params.py"]
    for framework in ("torch", "jax"):
        if framework in _requires(name):
            paths += _files(top / f"_{framework}")
    for folder in _shares(name):
        paths += _files(top / folder)
    card = _card(name)
    return paths + [top / "parts.py"] * bool(card and card.parts)


def source_hash(name: str) -> str:
    """64 hexadecimal digits over the names and contents of `source_files`."""
    total = hashlib.sha256()
    for path in source_files(name):
        content = path.read_bytes()
        total.update(f"{path.parent.name}/{path.name} {len(content)}\n".encode() + content)
    return total.hexdigest()


def stale_key(name: str, fp_hash: str, threads: int) -> str:
    """16 hexadecimal digits that change when rows of this implementation no longer hold.

    They cover the machine, the implementation's source, its frameworks' versions, what of them
    or of its tools is absent, and the thread budget.
    """
    modules = [m for r in _requires(name) for m in (r, *COMPANIONS.get(r, ()))]
    modules += [impls.origin(name).partition(".")[0]] * (not _own(name))
    what = {
        "machine": fp_hash,
        "source": source_hash(name),
        "versions": {module: framework_version(module) for module in modules},
        "absent": _absent(name),
        "threads": threads,
    }
    return _digest(what, 16)


def _recorded() -> dict[str, Any]:
    load = load_average()
    return {
        "host_id": host_id(),
        "boot_id": _digest(system.boot_id(), 12),
        "kernel": platform.release(),
        "python_full": platform.python_version(),
        "versions": _versions(FRAMEWORKS),
        "packages": len(_installed()),
        "packages_sha256": _digest(_installed(), 16),
        "harness": framework_version("quasibench"),
        "git": _git(),
        "memory_bytes": system.memory(),
        "gpu_settings": [gpu["settings"] for gpu in system.gpus()],
        "governor": system.text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "no_turbo": system.text("/sys/devices/system/cpu/intel_pstate/no_turbo"),
        "aslr": system.text("/proc/sys/kernel/randomize_va_space"),
        "numa_nodes": len(list(Path("/sys/devices/system/node").glob("node[0-9]*"))) or None,
        "container": Path("/.dockerenv").exists() or "container" in os.environ,
        "load": None if load is None else round(load, 2),
        "clock_resolution_ns": time.get_clock_info("perf_counter").resolution * 1e9,
    }


def _digest(value: object, digits: int) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:digits]


def _masked(value: str) -> str:
    """The setting without anything that looks like a path."""
    return re.sub(r"[^\s=:,;]*[/\\][^\s=:,;]*", "<path>", value)


@functools.cache
def _installed() -> dict[str, str]:
    found = {d.metadata["Name"]: d.version for d in metadata.distributions() if d.metadata}
    return {str(name).lower(): found[name] for name in sorted(found, key=str)}


@functools.cache
def _modules() -> dict[str, list[str]]:
    return dict(metadata.packages_distributions())


def _versions(names: Iterable[str]) -> dict[str, str | None]:
    return {name: framework_version(name) for name in names}


def _git() -> dict[str, Any] | None:
    """Commit of the checkout that runs, and a hash of its changes; None when installed."""
    top = Path(__file__).resolve().parents[2]
    commit = (
        system.run("git", "-C", str(top), "rev-parse", "HEAD") if (top / ".git").exists() else ""
    )
    if not commit:
        return None
    diff = system.run("git", "-C", str(top), "diff", "HEAD")
    return {"commit": commit, "dirty": bool(diff), "diff_sha256": _digest(diff, 16)}


def _card(name: str) -> Implementation | None:
    try:
        return impls.get(name)
    except impls.BrokenImplementation:
        return None


def _requires(name: str) -> tuple[str, ...]:
    card = _card(name)
    return card.requires if card else ()


def _shares(name: str) -> tuple[str, ...]:
    card = _card(name)
    return card.shares if card else ()


def _absent(name: str) -> list[str]:
    """Its modules that are absent; where all are there, "tools" if something else is missing."""
    modules = [module for module in _requires(name) if impls.absent(module)]
    return modules or ["tools"] * _lacks_tools(name)


@functools.cache
def _lacks_tools(name: str) -> bool:
    """Whether its card says so, asked once: the answer may be that of a compiler.

    Not in the card's words, which may name a folder that is new each time.
    """
    card = _card(name)
    return bool(card and card.lacking and card.lacking())


def _own(name: str) -> bool:
    return impls.origin(name) == f"impls.{name}"


def _home(name: str) -> Path:
    """Folder or file of an implementation's top package; own ones have a folder each."""
    if _own(name):
        return Path(impls.__file__).parent / name
    spec = importlib.util.find_spec(impls.origin(name).partition(".")[0])
    if spec is None or spec.origin is None:
        return Path()
    path = Path(spec.origin)
    return path.parent if path.name == "__init__.py" else path


def _files(home: Path) -> list[Path]:
    """Source files below a folder, in a fixed order; a file stands for itself."""
    if home == Path() or home.is_file():
        return [home] * home.is_file()
    return sorted(
        path
        for path in home.rglob("*")
        if path.is_file() and path.suffix not in SKIPPED and "__pycache__" not in path.parts
    )
