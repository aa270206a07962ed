"""One sitting: all contenders of a grid point prepared, warmed and sampled in random turns."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from harness.config import FEWEST_ROUNDS, Profile
from harness.speed import clock
from harness.speed.arm import Arm, Limits, live, references, too_late
from harness.speed.grid import Point
from harness.speed.stats import paired_ratio

WARMUP_CAP_S = {"cpu": 2.0, "cuda": 0.25}
"""Most seconds of warm-up for one contender (triton#1658)."""
WARMUP_SHARE = 0.2
WARMUP_SAMPLES = 5
SHORT_ROUNDS = 30
STOP_RESAMPLES = 300


def prepare(arms: Sequence[Arm], point: Point, seed: int, cache: str, limits: Limits) -> None:
    """Load, compile and gate one contender after the other, so that none slows another.

    On CUDA all do it at once: a short budget holds few points otherwise. `prepare_s` and
    `first_call_s` of a row then tell what was waited for, not what one alone needs.
    """
    fields = asdict(point)
    together = point.placement.device == "cuda"
    asked = live(arms)
    for arm in asked:
        arm.present.ask(
            "prepare",
            point=fields,
            impl=arm.contender.impl,
            mode=arm.contender.mode,
            seed=seed,
            cache=cache,
        )
        if not together:
            arm.columns |= arm.collect(limits.until(limits.prepare_s))
    if together:
        until = limits.until(limits.prepare_s)
        for arm in asked:
            arm.columns |= arm.collect(until)


def _turn(arm: Arm, samples: int, burn: int, limits: Limits) -> dict[str, list[float]]:
    expected = (samples * arm.inner + burn) * (arm.call_ns if arm.warm else 0.0) * 1e-9
    until = limits.until(limits.block_s + 20 * expected)
    return arm.ask("block", until, True, samples=samples, inner=arm.inner, burn=burn)


def warm_up(
    arms: Sequence[Arm],
    cap_s: float,
    rng: random.Random,
    limits: Limits,
    check: Callable[[], None],
) -> None:
    """Turns without a record until every arm is steady, with the same cap for all, or the end.

    Sets each arm's number of calls per sample; a twin takes its original's.
    """
    for arm in live(arms):
        arm.warm += _turn(arm, 1, 0, limits).get("wall_ns", [])
        check()
    waiting = live(arms)
    while waiting and time.monotonic() < limits.end:
        rng.shuffle(waiting)
        for arm in waiting:
            arm.inner = clock.inner_calls(arm.call_ns, arm.device)
            samples = WARMUP_SAMPLES if clock.is_short(arm.call_ns) else 1
            start = time.perf_counter()
            arm.warm += _turn(arm, samples, 0, limits).get("wall_ns", [])
            arm.warm_s += time.perf_counter() - start
            arm.steady = clock.steady(arm.warm)
            check()
        waiting = [arm for arm in live(arms) if not arm.steady and arm.warm_s < cap_s]
    for arm in live(arms):
        arm.inner = clock.inner_calls(_original(arm, arms).call_ns, arm.device)


def _original(arm: Arm, arms: Sequence[Arm]) -> Arm:
    """The arm that this one is the twin of, else itself."""
    same = (a for a in live(arms) if a.contender == arm.contender.original)
    return next(same, arm)


def narrow(arms: Sequence[Arm], baseline: str, target: float, seed: int) -> bool:
    """True where every ratio of the sitting is known to the target half-width."""
    pairs = references(arms, baseline)
    return bool(pairs) and all(
        paired_ratio(base.wall, arm.wall, seed, resamples=STOP_RESAMPLES).halfwidth < target
        for base, arm in pairs
    )


@dataclass(frozen=True)
class Rules:
    """When a sitting has sampled enough.

    Attributes:
        deadline: `time.perf_counter()` at which its share is spent.
        least: rounds before the interval width is looked at.
        most: rounds at which it ends in any case.
        floor: rounds that are measured even where the share is spent.
        target: half-width of the interval of the log ratio.
    """

    deadline: float
    least: int
    most: int
    floor: int
    target: float


def rules(arms: Sequence[Arm], share_s: float, deadline: float, profile: Profile) -> Rules:
    """The rules from the arms' own speed: 30 rounds where calls are short, else `min_rounds`.

    Where the share does not hold `min_rounds`, three are measured and the interval is wide.
    """
    most, min_rounds = profile.max_rounds, min(profile.min_rounds, profile.max_rounds)
    calls = [arm.call_ns for arm in live(arms)]
    short = all(map(clock.is_short, calls))
    per_arm = [
        clock.samples_per_block(arm.call_ns, arm.device) * arm.inner * arm.call_ns
        + (arm.call_ns if clock.is_short(arm.call_ns) else 0.0)
        for arm in live(arms)
    ]
    fits = sum(per_arm) * 1e-9 * min_rounds <= share_s / 2
    least = max(min_rounds, SHORT_ROUNDS) if short else min_rounds
    floor = min_rounds if fits else min(FEWEST_ROUNDS, min_rounds)
    return Rules(deadline, min(least, most), most, floor, profile.target_halfwidth)


def sample(
    arms: Sequence[Arm],
    rule: Rules,
    baseline: str,
    rng: random.Random,
    limits: Limits,
    check: Callable[[], None],
) -> int:
    """Rounds in which every live arm gives one block, in an order drawn anew each time.

    No round begins that would outlast the end, by the time of the one before; where it leaves
    fewer than three, the arms are taken out. `check` is called after every block and raises to
    end the sitting. Returns the rounds.
    """
    device = arms[0].device
    calls = {id(arm): _original(arm, arms).call_ns for arm in live(arms)}  # a twin is treated alike
    sizes = {key: clock.samples_per_block(call_ns, device) for key, call_ns in calls.items()}
    burns = {key: int(clock.is_short(call_ns)) for key, call_ns in calls.items()}
    for arm in arms:
        arm.wanted = rule.least
    rounds, look, took = 0, rule.least, 0.0
    while live(arms) and rounds < rule.most:
        start = time.monotonic()
        if start + took >= limits.end:
            break
        order = live(arms)
        rng.shuffle(order)
        for place, arm in enumerate(order):
            got = _turn(arm, sizes[id(arm)], burns[id(arm)], limits)
            if got:
                arm.wall.append(got["wall_ns"])
                arm.cpu.append(got["cpu_ns"])
                arm.turns.append({"round": rounds, "place": place, "burn": burns[id(arm)], **got})
            check()
        rounds, took = rounds + 1, time.monotonic() - start
        if rounds >= look:
            if narrow(arms, baseline, rule.target, rounds):
                break
            look = max(rounds + 1, int(rounds * 1.25))
        if rounds >= rule.floor and time.perf_counter() >= rule.deadline:
            break
    if rounds < min(FEWEST_ROUNDS, rule.floor):
        for arm in live(arms):
            arm.fail(too_late(fatal=False))
    return rounds


def finish(arms: Sequence[Arm], limits: Limits) -> None:
    """Prove that what was timed still gives what passed the gate; frees the workers' memory."""
    asked = live(arms)
    for arm in asked:
        arm.present.ask("finish")
        if arm.device == "cpu":
            arm.collect(limits.until(limits.prepare_s), True)
    until = limits.until(limits.prepare_s)
    for arm in asked:
        if arm.device != "cpu":
            arm.collect(until, True)
