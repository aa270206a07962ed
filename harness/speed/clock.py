"""The clock: samples of a Run in wall and CPU nanoseconds, and when it counts as warm.

A sample is `inner` calls and one wait. Wall time is `perf_counter_ns`; CPU time is the whole
process's, because XLA computes in threads of its own even with a budget of one.
"""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Sequence

import numpy as np

from impls.contract import Run

SHORT_CALL_NS = 20e6
"""Below this a call is short: it is burned after a switch and gets 30 rounds at least."""
LEAST_SAMPLE_NS = {"cpu": 1e6, "cuda": 5e6}
"""On CUDA a sample is a batch of launches and one wait, of which the wait must be no part."""
BLOCK_NS = {"cpu": 10e6, "cuda": 5e6}
STEADY_WINDOW = {True: 10, False: 3}
SLOPE_T = {10: 2.10, 3: 2.78}
"""Two-sided 5 % points of Student's t for a line through twice the window."""


def sample(run: Run, inner: int) -> tuple[int, int]:
    """Wall and CPU nanoseconds of `inner` calls and the wait for them."""
    cpu, wall = time.process_time_ns(), time.perf_counter_ns()
    for _ in range(inner):
        run()
    run.wait()
    wall = time.perf_counter_ns() - wall
    return wall, time.process_time_ns() - cpu


def block(run: Run, samples: int, inner: int, burn: int) -> dict[str, list[float]]:
    """`samples` samples after `burn` calls that are recorded apart, in nanoseconds per call.

    Garbage is collected before the block and not inside it. A Run that must restore something
    now and then (the parameters of a train_step) offers `reset()`, called between samples.
    """
    reset = getattr(run, "reset", None)
    out: dict[str, list[float]] = {"wall_ns": [], "cpu_ns": [], "burn_ns": []}
    gc.collect(0)
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        for _ in range(burn):
            out["burn_ns"].append(sample(run, 1)[0])
        for _ in range(samples):
            if reset is not None:
                reset()
            wall, cpu = sample(run, inner)
            out["wall_ns"].append(wall / inner)
            out["cpu_ns"].append(cpu / inner)
    finally:
        if was_enabled:
            gc.enable()
    return out


def is_short(call_ns: float) -> bool:
    """True for a call of under 20 ms."""
    return call_ns < SHORT_CALL_NS


def inner_calls(call_ns: float, device: str = "cpu") -> int:
    """Calls per sample: the fewest that last 1 ms (CUDA: 5 ms) and 1000 ticks of the timer.

    A sample of a shorter call then lasts under twice that; a longer call is a sample by itself.
    """
    tick = time.get_clock_info("perf_counter").resolution * 1e9
    return max(1, math.ceil(max(LEAST_SAMPLE_NS[device], 1000 * tick) / max(call_ns, 1.0)))


def samples_per_block(call_ns: float, device: str = "cpu") -> int:
    """Samples per turn: 1 to 5 of about 10 ms, so that all contenders see the same moments.

    On CUDA it is one, a batch of launches by itself.
    """
    return min(5, max(1, int(BLOCK_NS[device] / (call_ns * inner_calls(call_ns, device)))))


def steady(samples_ns: Sequence[float]) -> bool:
    """True once the last two windows agree and show no slope (harness/README.md, warm-up).

    Their medians differ by less than 2 %, and the slope of a line through both is within its
    noise. A window is 10 samples, or 3 where a call is long: the cap on warm-up leaves no more.
    """
    if not samples_ns:
        return False
    window = STEADY_WINDOW[is_short(samples_ns[-1])]
    if len(samples_ns) < 2 * window:
        return False
    tail = np.asarray(samples_ns[-2 * window :], dtype=float)
    before, after = statistics.median(tail[:window]), statistics.median(tail[window:])
    if abs(after - before) >= 0.02 * before:
        return False
    at = np.arange(len(tail)) - (len(tail) - 1) / 2
    slope = float(at @ tail / (at @ at))
    rest = tail - tail.mean() - slope * at
    noise = math.sqrt(float(rest @ rest) / (len(tail) - 2) / float(at @ at))
    return abs(slope) <= SLOPE_T[window] * noise or slope == 0.0
