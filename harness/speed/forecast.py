"""What a sitting will cost: recorded times where there are any, else floors with a factor."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import impls
from harness import floors
from harness.floors import Ceilings
from harness.speed import clock
from harness.speed.grid import AXES, Contender, Point
from impls.contract import ADDED_LATER, Implementation, ModelSpec, Placement, spec_fields

UNKNOWN_FACTOR = 3.0
"""A new contender is expected at this many times its floor, as long as nobody timed it."""
HOPED_FACTOR = 1.5
"""A new contender may be this near its floor: a point is dropped only where even that is too
slow, because a sitting that proves slow ends with its share anyway."""
DISPATCHES_PER_STEP = {"cpu": 3.0, "cuda": 0.3}
"""Calls of the framework per time step, times the factor: whether a contender loops over time
in Python is not known before it ran. On CUDA a step is a kernel of a library at most."""
PREPARE_S = {"torch": 0.03, "jax": 0.45}
"""Seconds to load and compile one contender at one point, by framework; calls come on top. Means of
the recorded default run (reports/data/cpu-2-cores): 0.02 and 0.42."""
OTHER_PREPARE_S = 0.5
COMPILE_S = 60.0
"""The same for one that compiles for minutes (`Implementation.compiles`), until it has rows."""
CALLS_IN_GATE = 3
"""The call itself, a second one with muted gradients, and what comparing costs."""
WARM_SAMPLES = {True: 20, False: 4}
"""Samples until a short or a long call can count as warm."""
WARMUP_CAP_S = {"cpu": 2.0, "cuda": 0.25}
TURN_S = 0.001
"""Passing the turn from one worker to the next."""
DRAW_S = 3e-8
"""Seconds to draw, round and hand over one number of x or dy."""
ORACLE_FULL = 2**20
ORACLE_SEQUENCES = 8
"""Above ORACLE_FULL = B*T*H the gate's oracle computes a slice of ORACLE_SEQUENCES sequences."""
ORACLE_STEP_S = 1e-4
ORACLE_EXP = 10.0
"""The oracle's element-wise work, in exponentials per activation."""


class Forecast:
    """Seconds of calls and sittings, from the rows of earlier runs and the machine's ceilings."""

    def __init__(self, rows: Sequence[dict[str, Any]], ceilings: Ceilings) -> None:
        self.ceilings = ceilings
        self._known: dict[tuple[Any, ...], float] = {}
        self._prepare: dict[tuple[Any, ...], list[float]] = {}
        self._ratios: dict[tuple[str, Any], list[float]] = {}
        for row in rows:
            if row.get("status") == "ok" and row.get("median_ns"):
                self._learn(row)

    def call_s(
        self, arm: Contender, family: str, point: Point, factor: float = UNKNOWN_FACTOR
    ) -> float:
        """Seconds of one call: as recorded at this point, else its floor times a factor.

        The factor is the contender's usual one where it has rows at other points, else the one
        given. A part of a layer nobody timed is expected to cost as much as the layer.
        """
        name = arm.original.name
        known = self._known.get(_key(name, point.fields()))
        if known is not None:
            return known
        ratios = self._ratios.get((name, point.kind)) or self._ratios.get((name, None))
        return (statistics.median(ratios) if ratios else factor) * self._base_s(family, point)

    def sitting_s(
        self,
        point: Point,
        contenders: Sequence[Contender],
        rounds: int,
        factor: float = UNKNOWN_FACTOR,
    ) -> float:
        """Seconds of a sitting of so many rounds, gate and warm-up included; 0 without arms."""
        total, families, prepared = 0.0, set(), [0.0]
        device = point.placement.device
        for arm in contenders:
            card = impls.get(arm.impl)
            families.add(card.family)
            call = self.call_s(arm, card.family, point, factor)
            sample = clock.inner_calls(call * 1e9, device) * call
            short = clock.is_short(call * 1e9)
            turn = clock.samples_per_block(call * 1e9, device) * sample + call * short + TURN_S
            prepared.append(self._prepare_s(arm, card, point) + DRAW_S * _numbers(point))
            prepared[-1] += CALLS_IN_GATE * call
            total += min(WARMUP_CAP_S[device], WARM_SAMPLES[short] * sample)
            total += rounds * turn
        # On CUDA all prepare at once, with the host's cores and memory between them.
        total += 2 * max(prepared) if device == "cuda" else sum(prepared)
        return total + sum(self._oracle_s(family, point) for family in families)

    def _learn(self, row: dict[str, Any]) -> None:
        arm = Contender(row["impl"], mode=row.get("mode") or "default")
        name, kind, seconds = arm.name, row["kind"], row["median_ns"] * 1e-9
        self._known[_key(name, row)] = seconds
        point = Point(
            kind=kind,
            spec=ModelSpec(**{name: row[name] for name in spec_fields() if name in row}),
            placement=Placement(row["device"], row["dtype"]),
            batch=row["batch"],
            steps=row["steps"],
        )
        ratio = seconds / self._base_s(row["family"], point)
        for key in ((name, kind), (name, None)):
            self._ratios.setdefault(key, []).append(ratio)
        if row.get("prepare_s") is not None:
            late = max(0.0, (row.get("first_call_s") or 0.0) - seconds)  # beyond a usual call
            for prepared in (_key(name, row), (name, kind)):
                self._prepare.setdefault(prepared, []).append(row["prepare_s"] + late)

    def _prepare_s(self, arm: Contender, card: Implementation, point: Point) -> float:
        """Seconds to load and compile: as recorded at this point, else at others of its kind.

        Of these the median; the longest where compiling takes minutes and grows with the point.
        """
        name = arm.original.name
        if here := self._prepare.get(_key(name, point.fields())):
            return here[-1]
        if others := self._prepare.get((name, point.kind)):
            return max(others) if card.compiles else statistics.median(others)
        known = [PREPARE_S[module] for module in card.requires if module in PREPARE_S]
        return COMPILE_S if card.compiles else max(known, default=OTHER_PREPARE_S)

    def _base_s(self, family: str, point: Point) -> float:
        """The floor plus the dispatches of a loop over time."""
        cost, dtype = self._cost(family, point), point.placement.dtype
        spec, training = point.spec, point.kind in ("backward", "train_step")
        loops = point.steps * spec.layers * len(spec.directions) * (2 if training else 1)
        steps = DISPATCHES_PER_STEP[point.placement.device]
        dispatch = loops * steps * self.ceilings.dispatch_s
        return floors.floor_s(cost, self._complete(dtype), dtype) + dispatch

    def _oracle_s(self, family: str, point: Point) -> float:
        cost, ceilings = self._cost(family, point), self._complete("float64")
        part = 1.0
        if point.batch * point.steps * point.spec.hidden_size > ORACLE_FULL:
            part = min(1.0, ORACLE_SEQUENCES / point.batch)
        work = cost.flops / ceilings.gemm_flops["float64"]
        work += ORACLE_EXP * cost.transcendentals / ceilings.exp_rate
        return part * work + ORACLE_STEP_S * point.steps * point.spec.layers

    def _cost(self, family: str, point: Point) -> floors.Cost:
        """The family's cost; the QRNN's for a family without a formula."""
        size = (point.kind, point.batch, point.steps, point.placement.dtype)
        cost = floors.cost(replace(point.spec, family=family), *size)
        if cost is None:
            cost = floors.cost(replace(point.spec, family="qrnn"), *size)
        return cast("floors.Cost", cost)

    def _complete(self, dtype: str) -> Ceilings:
        """The ceilings; a dtype that was not measured counts as half the slowest known one."""
        rates = self.ceilings.gemm_flops
        if dtype in rates:
            return self.ceilings
        slowest = min(rates.values(), default=Ceilings.nominal().gemm_flops["float32"])
        return replace(self.ceilings, gemm_flops={**rates, dtype: slowest / 2})


def _key(name: str, fields: Mapping[str, Any]) -> tuple[Any, ...]:
    """What makes two measurements the same work: all but repeat, family and machine."""
    usual = {field: getattr(ModelSpec, field) for field in ADDED_LATER}
    return (name, *({**usual, **fields}[axis] for axis in (*AXES, "threads")))


def _numbers(point: Point) -> int:
    """Numbers in x, and in dy or target where there is one."""
    width = point.spec.input_size
    if point.kind in ("backward", "train_step"):
        width += point.spec.output_size
    return point.batch * point.steps * width
