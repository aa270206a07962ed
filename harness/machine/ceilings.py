"""Measure what a machine reaches at best: matrix rate, bandwidth, dispatch, exponentials.

A worker process in the run's thread budget does it, through the probes of the first framework
that is there (torch, jax, else NumPy); NumPy's exp, which can be faster on one core, is asked
too. Every probe runs twice with the others in between and its best call counts, so that a busy
moment does not lower a ceiling. Nothing is stored: the caller keeps `Ceilings.to_dict()` in the
manifest. A cell below 1 x of floor tells that a ceiling was still measured too low.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import impls
from harness.floors import Ceilings
from harness.process import Worker, WorkerFailure

FRAMEWORKS = ("torch", "jax", "numpy")
MEBI = 1 << 20
GEMM_SIZES = {"cpu": (256, 512, 1024), "cuda": (2048, 4096, 8192)}
COPY_BYTES = {"cpu": (64 * MEBI, 256 * MEBI), "cuda": (512 * MEBI, 512 * MEBI)}
"""Least and largest buffer of the copy; between them, twice the last cache."""
EXP_ELEMENTS = {"cpu": (1 << 16, 1 << 18), "cuda": (1 << 26, 1 << 28)}
"""Exponentials of the exp probe; on CUDA many for each element, or memory would be measured."""
STEP_SIZE = 8
"""A product this small costs its call alone: the smallest dependent step there is."""
CUDA_STEP_S = 1e-6
"""A step of a persistent recurrent kernel, assumed: no probe from outside can time one."""
PROBE_S = 0.12
TIME_LIMIT_S = 5.0
SLOW_PROBE_S = 0.7
"""A larger product is not tried if its samples would take longer than this."""
SAMPLES_PER_PROBE = 7
ANSWER_S = 60.0
LIMIT_S = 90.0
"""For all frameworks and probes together."""

Key = tuple[str, str, str, int]
"""(framework, probe, dtype, size), as `harness.worker` takes them."""
Ask = Callable[[str, str, str, int], float]
"""Seconds of the best call of a Key; may raise WorkerFailure."""


def measure(
    threads: int,
    dtypes: Sequence[str],
    device: str,
    log_dir: str | Path,
    limit_s: float = LIMIT_S,
) -> Ceilings:
    """Ceilings of `device` in a budget of `threads`, in about 5 s plus the framework's import.

    A dtype that the framework cannot multiply gets the best rate of the others, and `source`
    says so; on "cuda" it also says that the time of a dependent step is assumed. A worker that
    has not answered after `limit_s` seconds in all is killed, and no other framework is asked.

    Raises:
        WorkerFailure: no framework can measure this device; the last one's reason.
    """
    able = FRAMEWORKS if device == "cpu" else FRAMEWORKS[:2]
    present = [name for name in able if not impls.absent(name)]
    until = time.monotonic() + limit_s
    failed = WorkerFailure("missing", "ImportError", f"nothing here can measure {device!r}")
    for framework in present:
        try:
            with Worker("ceilings", threads, Path(log_dir)) as worker:
                hello = worker.call("hello", _wait_s(until), modules=[framework])
                found = collect(_asking(worker, device, until), framework, dtypes, device)
        except WorkerFailure as failure:
            failed = failure
            if time.monotonic() >= until:
                break
            continue
        version = hello["versions"][framework]
        words = [f"{framework} {version}, thread budget {threads}, {device}", *found.pop("remarks")]
        return Ceilings(**found, source="; ".join(words))
    raise failed


def collect(
    ask: Ask, framework: str, dtypes: Sequence[str], device: str, limit_s: float = TIME_LIMIT_S
) -> dict[str, Any]:
    """Fields of Ceilings without `source`, and "remarks", a list of words for it.

    After `limit_s` seconds nothing is asked a second time.

    Raises:
        WorkerFailure: a probe failed for another reason than an unknown dtype.
    """
    end = time.monotonic() + limit_s
    best: dict[Key, float] = {}
    for dtype in dtypes:
        _products(ask, best, framework, dtype, GEMM_SIZES[device])
    if not best:
        raise WorkerFailure(
            "unsupported", "NotImplementedError", f"{framework} multiplies no dtype"
        )
    copy = (framework, "copy", "float32", _copy_bytes(device))
    dispatch = (framework, "dispatch", "float32", 1)
    sources = {framework, "numpy"} if device == "cpu" else {framework}
    exps = [(name, "exp", "float32", n) for name in sorted(sources) for n in EXP_ELEMENTS[device]]
    step = ("numpy", "gemm", "float32", STEP_SIZE)
    others = [copy, dispatch, *exps, *([step] if device == "cpu" else [])]
    again = [key for dtype in dtypes if (key := _fastest(best, dtype)) is not None]
    for number, key in enumerate([*others, *again, *others]):
        if number >= len(others) and time.monotonic() > end:
            break
        best[key] = min(ask(*key), best.get(key, math.inf))
    rates = {key[2]: _rate(key, best) for key in again}
    remarks = [
        f"{dtype} not multiplied, taken as the best other" for dtype in dtypes if dtype not in rates
    ]
    if device != "cpu":
        remarks.append("time of a dependent step assumed")
    return {
        "gemm_flops": {dtype: rates.get(dtype, max(rates.values())) for dtype in dtypes},
        "copy_bytes": 2 * copy[3] / best[copy],
        "dispatch_s": best[dispatch],
        "exp_rate": max(key[3] / best[key] for key in exps),
        "step_s": best[step] if device == "cpu" else CUDA_STEP_S,
        "remarks": remarks,
    }


def _wait_s(until: float) -> float:
    """Seconds that one answer may take."""
    return min(ANSWER_S, max(0.0, until - time.monotonic()))


def _asking(worker: Worker, device: str, until: float) -> Ask:
    def ask(framework: str, name: str, dtype: str, size: int) -> float:
        answer = worker.call(
            "probe",
            _wait_s(until),
            framework=framework,
            name=name,
            device=device,
            dtype=dtype,
            size=size,
            seconds=PROBE_S,
        )
        return float(answer["best_ns"]) * 1e-9

    return ask


def _products(
    ask: Ask, best: dict[Key, float], framework: str, dtype: str, sizes: Sequence[int]
) -> None:
    """Time products of growing size, until the next would take too long."""
    expected = 0.0
    for size in sizes:
        if expected * SAMPLES_PER_PROBE > SLOW_PROBE_S:
            return
        key = (framework, "gemm", dtype, size)
        try:
            best[key] = ask(*key)
        except WorkerFailure as failure:
            if failure.status != "unsupported":
                raise
            return
        expected = best[key] * 8


def _rate(key: Key, best: dict[Key, float]) -> float:
    return 2 * key[3] ** 3 / best[key]


def _fastest(best: dict[Key, float], dtype: str) -> Key | None:
    products = [key for key in best if key[1:3] == ("gemm", dtype)]
    return max(products, key=lambda key: _rate(key, best), default=None)


def _copy_bytes(device: str) -> int:
    """Size of a copy that no cache holds."""
    least, largest = COPY_BYTES[device]
    caches = [0]
    for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        text = path.read_text().strip()
        caches.append(int(text[:-1]) * {"K": 1 << 10, "M": MEBI}.get(text[-1], 0))
    return min(largest, max(least, 2 * max(caches)))
