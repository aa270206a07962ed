"""In a worker: how far the memory of its process rises at most during one call.

A short call first loads what any call needs; then the kernel's high-water mark is reset and the
first call at the asked length raises it.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness import floors
from harness.speed.draws import work_of
from harness.speed.grid import Point
from impls.contract import ModelSpec, Run, Session
from impls.params import FAMILIES, state_shapes

WARM_STEPS = 8
METHOD = (
    f"VmHWM after clear_refs less VmRSS before, the first call of its length in a fresh process "
    f"(after one of {WARM_STEPS} steps), less y and final states"
)


def peak(call: Callable[[], object]) -> int:
    """Bytes by which the resident memory of this process rises at most during `call`.

    Raises:
        NotImplementedError: this system cannot tell.
    """
    gc.collect()
    with contextlib.suppress(AttributeError, OSError):  # glibc only: what is free is given back
        ctypes.CDLL(None).malloc_trim(0)
    try:
        before = _status("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")
    except OSError as error:
        raise NotImplementedError(f"no high-water mark of memory here: {error}") from None
    call()
    return max(0, _status("VmHWM") - before)


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise NotImplementedError(f"/proc/self/status has no {name}")


def measure(
    session: Session, spec: ModelSpec, point: Point, weights: int, seed: int
) -> dict[str, Any]:
    """The memory columns of a contender at a point; to be asked in a fresh process.

    Args:
        weights: number of the session's parameters.

    Raises:
        NotImplementedError: this system cannot tell.
    """
    for steps in (WARM_STEPS, point.steps):
        run = session.prepare(work_of(replace(point, steps=steps), spec, seed))

        def call(run: Run = run) -> None:
            run()
            run.wait()

        risen = peak(call)
    item = floors.ITEM_BYTES[point.placement.dtype]
    positions = point.steps * point.batch
    outputs = positions * spec.output_size * item
    if spec.family in FAMILIES:
        states = state_shapes(spec, point.batch).values()
        outputs += sum(map(math.prod, states)) * max(item, floors.MASTER_BYTES)
    return {
        "mem_method": METHOD,
        "peak_bytes": risen,
        "output_bytes": outputs,
        "extra_bytes": max(0, risen - outputs),
        "minimum_bytes": (positions * spec.input_size + weights) * item + outputs,
    }
