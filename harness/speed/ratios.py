"""Ratios between the arms of a sitting: the clock that ranks, controls, speedups, verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from harness.speed.arm import Arm, choose_baseline, live, ranking, references
from harness.speed.grid import Contender
from harness.speed.stats import Interval, min_ratio, paired_ratio, verdict

if TYPE_CHECKING:
    from harness.speed.rows import Scene

QUIET_HALFWIDTH = 0.03


def times(arm: Arm, clock: str) -> list[list[float]]:
    """Nanoseconds per call on the clock "cpu" or "wall", one list per round."""
    return arm.cpu if clock == "cpu" else arm.wall


def control_of(
    arms: Sequence[Arm], scene: Scene, clock: str, mode: str = "default"
) -> Interval | None:
    """The A/A ratio of this sitting and mode: the baseline's twin, else whichever there is."""
    base = choose_baseline(arms, scene.baseline, clock, mode)
    pairs = [
        pair
        for pair in references(arms, scene.baseline, clock)
        if pair[1].contender.twin and ranking(pair[1].contender.mode) == mode
    ]
    pairs.sort(key=lambda pair: pair[0] is not base)
    if not pairs:
        return None
    original, twin = pairs[0]
    return paired_ratio(times(original, clock), times(twin, clock), scene.seed)


def choose_clock(arms: Sequence[Arm], scene: Scene, mode: str = "default") -> tuple[str, bool]:
    """The ranking clock and whether the cell is noisy (harness/README.md).

    Wall time on a quiet host. On a loud one, a single-thread cell on the CPU falls back to CPU
    time if its A/A control is quiet there; otherwise the cell keeps wall time and is noisy. On
    CUDA the control alone decides: the host's load, that of the preparing workers, is beside it.
    """
    load = max(scene.fixed.get("load_before") or 0.0, scene.fixed.get("load_after") or 0.0)

    calm = load <= scene.load

    def quiet(control: Interval | None) -> bool:
        if control is None:
            return calm
        return control.contains(1.0) and control.halfwidth < QUIET_HALFWIDTH

    control = control_of(arms, scene, "wall", mode)
    beside = scene.point.placement.device == "cuda" and control is not None
    if (calm or beside) and quiet(control):
        return "wall", False
    single = scene.point.threads == 1 and scene.point.placement.device == "cpu"
    control = control_of(arms, scene, "cpu", mode) if single else None
    if control is not None and quiet(control):
        return "cpu", False
    return "wall", True


def ratios_of(
    arms: Sequence[Arm], scene: Scene, clock: str, noisy: bool, mode: str = "default"
) -> dict[Contender, dict[str, Any]]:
    """The ratio columns by contender of one mode: against its baseline, a twin to its original."""
    control = control_of(arms, scene, clock, mode)
    base = choose_baseline(arms, scene.baseline, clock, mode)
    shared = dict.fromkeys(("baseline", "speedup", "speedup_lo", "speedup_hi", "verdict"))
    if control is not None:
        shared |= {"control": control.value, "control_lo": control.lo, "control_hi": control.hi}
    mine = [arm for arm in live(arms) if ranking(arm.contender.mode) == mode]
    out: dict[Contender, dict[str, Any]] = {
        arm.contender: shared | _to_graph(arms, arm, scene, clock) for arm in mine
    }
    if base is not None:
        one = dict.fromkeys(("speedup", "speedup_lo", "speedup_hi", "speedup_min"), 1.0)
        out[base.contender] |= one | {"baseline": base.contender.impl}
    for reference, arm in references(arms, scene.baseline, clock):
        if arm.contender not in out:
            continue
        left, right = times(reference, clock), times(arm, clock)
        ratio = paired_ratio(left, right, scene.seed)
        out[arm.contender] |= {
            "baseline": reference.contender.impl,
            "speedup": ratio.value,
            "speedup_lo": ratio.lo,
            "speedup_hi": ratio.hi,
            "speedup_min": min_ratio(left, right),
            "verdict": verdict(ratio, control, noisy=noisy),
        }
        if arm.contender.twin:
            own = {"control": ratio.value, "control_lo": ratio.lo, "control_hi": ratio.hi}
            out[arm.contender] |= own
    return out


def _to_graph(arms: Sequence[Arm], arm: Arm, scene: Scene, clock: str) -> dict[str, Any]:
    """How a contender that is no graph replay stands to the baseline's replay, without a verdict.

    A JAX contender is one compiled program in every call and has no replay of its own.
    """
    base = choose_baseline(arms, scene.baseline, clock, "graph")
    if base is None or arm.contender.twin or arm.contender.mode != "default":
        return {}
    ratio = paired_ratio(times(base, clock), times(arm, clock), scene.seed)
    words = {"graph_baseline": base.contender.impl, "graph_speedup": ratio.value}
    return words | {"graph_speedup_lo": ratio.lo, "graph_speedup_hi": ratio.hi}
