"""The plan: which sittings to run, in which time, and what the budget leaves out; pure.

The time is split over the points in proportion to what they cost at the fewest rounds; where it
does not hold all of them, the most expensive ones are dropped (or the last ones, as the profile
says), each with its reason.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import impls
from harness import store
from harness.config import FEWEST_ROUNDS, Profile
from harness.errors import UsageError, nearest
from harness.floors import Ceilings
from harness.machine import identity, system
from harness.speed import parts
from harness.speed.forecast import HOPED_FACTOR, Forecast
from harness.speed.grid import Contender, Point, cell_id, points, select
from impls.contract import Implementation
from impls.params import stream_hindrance

LSTMS = ("lstm_torch", "lstm_jax")
"""Whose twin is the control where the profile names no baseline, in this order."""


@dataclass(frozen=True)
class Sitting:
    """One grid point with all its contenders, measured interleaved.

    Attributes:
        contenders: those that can run here, twins included.
        absent: (contender, status, reason) of those that cannot.
        predicted_s: seconds of one call of every contender in `contenders`.
        share_s: seconds that the sitting may use, gate and warm-up included.
    """

    point: Point
    contenders: tuple[Contender, ...]
    absent: tuple[tuple[Contender, str, str], ...]
    predicted_s: float
    share_s: float


@dataclass(frozen=True)
class Plan:
    """Everything a run needs to know before it starts.

    Attributes:
        sittings: what is still to be measured, in the profile's order.
        dropped: points that the budget does not hold, each with the reason.
        done: points whose rows are complete; total: points of the profile (after `only`).
        estimate_s: seconds of the whole command at most, overhead included.
        overhead_s: of these, seconds for everything that is not a sitting.
        stale_keys: by implementation; a row carries the key it was measured under.
    """

    profile: Profile
    sittings: list[Sitting]
    dropped: list[tuple[Point, str]]
    done: int
    total: int
    estimate_s: float
    overhead_s: float
    stale_keys: dict[str, str] = field(default_factory=dict)


def build(
    profile: Profile,
    rows: list[dict[str, Any]],
    ceilings: Ceilings,
    budget_s: float | None = None,
    only: Mapping[str, str] | None = None,
    overhead_s: float | None = None,
    again: bool = False,
) -> Plan:
    """The plan of a profile on this machine, given the rows that a folder already holds.

    Args:
        budget_s: seconds for the whole command instead of the profile's.
        only: field -> value of the points to keep, e.g. {"batch": "8", "kind": "forward"}.
        overhead_s: seconds of the budget that no sitting gets, instead of the profile's.
        again: points that are done are planned too; readers take their newest sitting.

    Raises:
        UsageError: a filter that keeps nothing, a contender that is not listed any more, more
            threads than cores.
    """
    budget_s = profile.budget_s if budget_s is None else budget_s
    overhead_s = profile.overhead_s if overhead_s is None else overhead_s
    wanted = select(points(profile), only or {})
    if not wanted:
        raise UsageError("--only: no point has all of these values: leave one filter out")
    lineup = _Lineup(profile, wanted[0].threads)
    forecast = Forecast(rows, ceilings)
    by_point: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_point.setdefault(row["point_id"], []).append(row)
    todo = []
    for point in wanted:
        sitting = lineup.sitting(point, forecast)
        if again or not store.complete(by_point.get(point.point_id, []), lineup.expected(sitting)):
            todo.append(sitting)
    sittings, dropped = _split(todo, forecast, profile, max(0.0, budget_s - overhead_s))
    return Plan(
        profile=profile,
        sittings=sittings,
        dropped=dropped,
        done=len(wanted) - len(todo),
        total=len(wanted),
        estimate_s=overhead_s + sum(sitting.share_s for sitting in sittings),
        overhead_s=overhead_s,
        stale_keys=lineup.stale_keys,
    )


def chosen(profile: Profile) -> tuple[str, ...]:
    """Names of the profile's implementations, installed here or not.

    "all" leaves out those of `without`, and those that compile for minutes, unless the profile
    says `compile = true`.
    """
    if profile.contenders != "all":
        return profile.contenders
    names = (name for name in impls.names() if name not in profile.without)
    return tuple(name for name in names if profile.compile or not impls.compiles(name))


class _Lineup:
    """The profile's implementations on this machine: who can run a point, and who gets a twin."""

    def __init__(self, profile: Profile, threads: int) -> None:
        self.profile = profile
        names = chosen(profile)
        for name in names:
            if name not in impls.names():
                raise UsageError(
                    f"contenders: {name!r} is not installed{nearest(name, impls.names())} "
                    f"(known: {', '.join(impls.names())})"
                )
        fp_hash = identity.fingerprint_hash(identity.fingerprint(threads))
        self.stale_keys = {name: identity.stale_key(name, fp_hash, threads) for name in names}
        self.cards: dict[str, Implementation | str] = {}
        for name in names:
            try:
                self.cards[name] = impls.get(name)
            except impls.BrokenImplementation as error:
                self.cards[name] = str(error)

    def sitting(self, point: Point, forecast: Forecast) -> Sitting:
        """The point with its contenders; its share is still open."""
        arms, absent = [], []
        for name, card in self.cards.items():
            if point.batch * point.steps > self.profile.up_to.get(name, math.inf):
                continue
            for one in self._modes(name, card, point):
                found = _hindrance(card, point)
                if found is None and one.is_part and (reason := parts.hindrance(point)):
                    found = "unsupported", reason
                if found is None:
                    arms.append(one)
                else:
                    absent.append((one, *found))
        for mode in self.profile.modes:
            able = [arm.impl for arm in arms if arm.mode == mode]
            arms += [Contender(name, twin=True, mode=mode) for name in self._twins(able)]
        calls = [forecast.call_s(arm, self._family(arm.impl), point) for arm in arms]
        return Sitting(point, tuple(arms), tuple(absent), sum(calls), 0.0)

    def expected(self, sitting: Sitting) -> dict[str, str]:
        """The stale_key of every cell that a complete sitting has."""
        cells = [*sitting.contenders, *(contender for contender, _, _ in sitting.absent)]
        return {cell_id(sitting.point, one): self.stale_keys[one.impl] for one in cells}

    def _modes(self, name: str, card: Implementation | str, point: Point) -> list[Contender]:
        """The whole layer in the profile's modes, and the parts of it that are asked for.

        Of both what the card offers; a card that is broken has its row in mode "default".
        """
        if isinstance(card, str):
            return [Contender(name)]
        modes = [m for m in self.profile.modes if m == "default" or card.capture is not None]
        wide = point.batch * point.steps >= self.profile.parts_from
        asked = [part for part in self.profile.parts if wide and part in card.parts]
        return [Contender(name, mode=mode) for mode in (*modes, *asked)]

    def _twins(self, able: list[str]) -> list[str]:
        if self.profile.twins == "all":
            return able
        named = () if self.profile.baseline == "auto" else (self.profile.baseline,)
        return [name for name in (*named, *LSTMS) if name in able][:1]

    def _family(self, name: str) -> str:
        card = self.cards[name]
        return card.family if isinstance(card, Implementation) else "qrnn"


def _hindrance(card: Implementation | str, point: Point) -> tuple[str, str] | None:
    """(status, reason) why an implementation cannot run a point here, or None."""
    if isinstance(card, str):
        return "crash", card
    if reason := impls.missing(card):
        return "missing", reason
    if point.placement.device == "cuda" and not system.gpus():
        return "missing", "no CUDA device here: nvidia-smi lists none"
    if point.kind == "step" and point.spec.bidirectional:
        return "unsupported", "a step needs one direction: the reverse one sees the whole sequence"
    spec = replace(point.spec, family=card.family)
    if point.kind == "step" and (reason := stream_hindrance(spec)):
        return "unsupported", reason
    reason = impls.hindrance(card, spec, point.placement)
    return None if reason is None else ("unsupported", reason)


@dataclass(frozen=True)
class _Price:
    """Seconds of a sitting: hoped and expected with the fewest rounds, and with the most."""

    hoped: float
    expected: float
    most: float


def _split(
    todo: list[Sitting], forecast: Forecast, profile: Profile, available_s: float
) -> tuple[list[Sitting], list[tuple[Point, str]]]:
    """Shares for the sittings that `available_s` holds, and the points that it does not hold."""
    kept = [(one, _price(one, forecast, profile)) for one in todo]
    dropped = []
    while kept and sum(price.hoped for _, price in kept) > available_s:
        loser = kept[-1]
        if profile.drop == "dearest":
            loser = max(reversed(kept), key=lambda item: item[1].hoped)
        kept.remove(loser)
        reason = (
            f"needs about {loser[1].hoped:.0f} s for {FEWEST_ROUNDS} rounds; the budget "
            f"leaves {available_s:.0f} s for {len(todo)} points: give a larger --budget, or --only"
        )
        dropped.append((loser[0].point, reason))
    shares = _fill([price for _, price in kept], available_s)
    return [replace(one, share_s=s) for (one, _), s in zip(kept, shares, strict=True)], dropped


def _price(sitting: Sitting, forecast: Forecast, profile: Profile) -> _Price:
    at, arms = sitting.point, sitting.contenders
    return _Price(
        hoped=forecast.sitting_s(at, arms, FEWEST_ROUNDS, HOPED_FACTOR),
        expected=forecast.sitting_s(at, arms, profile.min_rounds),
        most=forecast.sitting_s(at, arms, profile.max_rounds),
    )


def _fill(prices: list[_Price], available_s: float) -> list[float]:
    """Shares in proportion to the expected seconds, none above the most that it can use.

    What one sitting cannot use goes to the others.
    """
    shares = [price.most for price in prices]
    free = [at for at, price in enumerate(prices) if price.expected > 0]
    while free:
        fixed = sum(share for at, share in enumerate(shares) if at not in free)
        scale = (available_s - fixed) / sum(prices[at].expected for at in free)
        full = [at for at in free if prices[at].expected * scale >= prices[at].most]
        if not full:
            for at in free:
                shares[at] = prices[at].expected * scale
            break
        free = [at for at in free if at not in full]
    return shares
