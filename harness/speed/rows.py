"""The rows of one sitting: summaries, ratios with intervals, verdicts, and where time could go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import impls
from harness import floors
from harness.machine import identity
from harness.speed.arm import Arm, ranking
from harness.speed.grid import Contender, Point, cell_id
from harness.speed.ratios import choose_clock, ratios_of, times
from harness.speed.stats import median_interval
from impls.contract import ModelSpec

SCHEMA_VERSION = 1
WORDS = """
schema_version record run_id profile point_id cell_id sitting_id stale_key attempt repeat
status noisy reason error_type started_at ended_at host_id
impl twin framework framework_version impl_src_sha256 kind device dtype batch steps ragged
family input_size hidden_size layers kernel_width pooling zoneout zoneout_mode zoneout_eval
dense bidirectional dilated heads parameters threads mode
gate_error gate_worst gate_tolerance gate_sequences
clock inner rounds n warmup_n warmup_s steady prepare_s first_call_s min_ns q1_ns median_ns
q3_ns mean_ns sd_ns ci_lo_ns ci_hi_ns cpu_median_ns cpu_min_ns order_seed
baseline speedup speedup_lo speedup_hi speedup_min verdict control control_lo control_hi
tokens_per_s flops bytes transcendentals tflops gbps floor_s staged_floor_s x_of_floor
x_of_staged load_before load_after cpu_per_wall fingerprint python
tokens cpus tasks torch_threads
algorithm precision graph_baseline graph_speedup graph_speedup_lo graph_speedup_hi
sm_mhz sm_mhz_min power_w temp_c throttle
"""
COLUMNS = tuple(WORDS.split())
"""Keys of every row; null where nothing is known."""


@dataclass(frozen=True)
class Scene:
    """What all rows of a sitting share.

    Attributes:
        fixed: columns that are the same in every row of the sitting.
        stale_keys: by implementation.
        attempts: earlier rows by cell_id.
        ceilings: of the machine, or None where they were not measured.
        seed: of the bootstrap.
        load: largest load average that still counts as quiet.
    """

    point: Point
    fixed: dict[str, Any]
    stale_keys: dict[str, str]
    attempts: dict[str, int]
    ceilings: floors.Ceilings | None
    baseline: str
    seed: int
    load: float


def rows_of(
    arms: Sequence[Arm], absent: Sequence[tuple[Contender, str, str]], scene: Scene
) -> list[dict[str, Any]]:
    """One row per contender, whatever happened to it, in the order of the plan."""
    modes = dict.fromkeys(ranking(arm.contender.mode) for arm in arms)
    clocks = {mode: choose_clock(arms, scene, mode) for mode in modes}
    ratios: dict[Contender, dict[str, Any]] = {}
    for mode in modes:
        ratios |= ratios_of(arms, scene, *clocks[mode], mode)
    rows = []
    for arm in arms:
        clock, noisy = clocks[ranking(arm.contender.mode)]
        row = _identity(arm.contender, scene) | {"status": arm.status}
        row |= {"error_type": arm.error_type, "reason": arm.reason}
        row |= {key: value for key, value in arm.columns.items() if key in row}
        row |= {"warmup_n": len(arm.warm), "warmup_s": arm.warm_s, "steady": arm.steady}
        if arm.ok:
            row |= _timing(arm, clock, scene.seed) | {"clock": clock, "noisy": noisy}
            row |= ratios[arm.contender]
            row |= _derived(row, scene)
            if len(arm.wall) < arm.wanted:
                row["reason"] = f"{len(arm.wall)} of {arm.wanted} rounds: its time was spent"
        rows.append(row)
    for contender, status, reason in absent:
        rows.append(_identity(contender, scene) | {"status": status, "reason": reason})
    return [{key: _plain(value) for key, value in row.items()} for row in rows]


def _plain(value: Any) -> Any:
    """JSON's own types; what is not finite is unknown."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


def _identity(contender: Contender, scene: Scene) -> dict[str, Any]:
    point, impl = scene.point, contender.impl
    try:
        card = impls.get(impl)
        family, framework = card.family, card.requires[0] if card.requires else None
    except impls.BrokenImplementation:  # it has a row too, which says so
        family, framework = "unknown", None
    at = replace(point, spec=replace(point.spec, family=family))
    row = dict.fromkeys(COLUMNS) | scene.fixed | at.fields()
    cell = cell_id(point, contender)
    return row | {
        "schema_version": SCHEMA_VERSION,
        "record": "speed",
        "point_id": point.point_id,
        "cell_id": cell,
        "stale_key": scene.stale_keys.get(impl),
        "attempt": scene.attempts.get(cell, 0) + 1,
        "noisy": False,
        "impl": impl,
        "twin": contender.twin,
        "framework": framework,
        "framework_version": framework and identity.framework_version(framework),
        "impl_src_sha256": identity.source_hash(impl),
        "mode": contender.mode,
    }


def _timing(arm: Arm, clock: str, seed: int) -> dict[str, Any]:
    """Summary of all samples in nanoseconds per call; none is left out."""
    own, cpu = np.concatenate(times(arm, clock)), np.concatenate(arm.cpu)
    q1, median, q3 = np.quantile(own, (0.25, 0.5, 0.75))
    middle = median_interval(times(arm, clock), seed)
    return {
        "inner": arm.inner,
        "rounds": len(arm.wall),
        "n": len(own),
        "min_ns": own.min(),
        "q1_ns": q1,
        "median_ns": median,
        "q3_ns": q3,
        "mean_ns": own.mean(),
        "sd_ns": own.std(ddof=1) if len(own) > 1 else None,
        "ci_lo_ns": middle.lo,
        "ci_hi_ns": middle.hi,
        "cpu_median_ns": np.median(cpu),
        "cpu_min_ns": cpu.min(),
        "cpu_per_wall": cpu.sum() / np.concatenate(arm.wall).sum(),
    }


def _derived(row: dict[str, Any], scene: Scene) -> dict[str, Any]:
    """Rates, and how far the median is from the machine's floors."""
    point, seconds = scene.point, row["median_ns"] * 1e-9
    tokens = row["tokens"] or point.batch * point.steps
    out: dict[str, Any] = {"tokens_per_s": tokens / seconds}
    spec: ModelSpec = replace(point.spec, family=row["family"])
    dtype = point.placement.dtype
    if row["mode"] == "pooling":  # what follows is of layers and of products
        moved = floors.pooling_bytes(spec, point.kind, point.batch * point.steps, dtype)
        return out | {"bytes": moved, "gbps": moved / seconds * 1e-9}
    cost = floors.cost(spec, point.kind, point.batch, point.steps, dtype)
    if cost is None or point.ragged:  # the formulas count every step of every sequence
        return out
    if row["mode"] == "gemm":
        return out | {"flops": cost.flops, "tflops": cost.flops / seconds * 1e-12}
    out |= {"flops": cost.flops, "bytes": cost.bytes, "transcendentals": cost.transcendentals}
    out |= {"tflops": cost.flops / seconds * 1e-12, "gbps": cost.bytes / seconds * 1e-9}
    if scene.ceilings is None or dtype not in scene.ceilings.gemm_flops:
        return out
    least = floors.floor_s(cost, scene.ceilings, dtype)
    staged = floors.staged_floor_s(cost, scene.ceilings, dtype)
    out |= {"floor_s": least, "staged_floor_s": staged}
    return out | {"x_of_floor": seconds / least, "x_of_staged": seconds / staged}


def samples_of(arms: Sequence[Arm], point: Point, sitting_id: str) -> list[dict[str, Any]]:
    """Raw records of every turn: round, place in its order, samples, burned calls."""
    return [
        {"cell_id": cell_id(point, arm.contender), "sitting_id": sitting_id, **turn}
        for arm in arms
        for turn in arm.turns
    ]
