"""The coordinator: one sitting after the other, workers kept alive, rows appended as a whole.

It imports no framework and sleeps while a worker computes.
"""

from __future__ import annotations

import math
import os
import platform
import random
import shutil
import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from zlib import crc32

from harness import floors
from harness.config import Profile
from harness.machine import identity, telemetry
from harness.progress import Progress
from harness.speed import rows
from harness.speed.arm import TOO_LATE, Arm, Limits, live
from harness.speed.grid import Contender, Point
from harness.speed.plan import Plan, Sitting
from harness.speed.pool import Pool
from harness.speed.sitting import (
    WARMUP_CAP_S,
    WARMUP_SHARE,
    finish,
    prepare,
    rules,
    sample,
    warm_up,
)
from harness.stop import InterruptError, Stop
from harness.store import RunFolder

LEAST_SHARE = 0.25
"""A sitting keeps at least this part of its share, however late the run is."""
SAMPLING_SHARE = 0.4
FINISH_S = 3.0
"""Kept before a hard end for the proofs at the end of a sitting."""
STRIKES = 2
"""Where the end is hard, a contender that hung or died so often in a row is left out: waiting for
it, or for its new worker, would cost the others their time."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        sittings_done: sittings whose rows were written.
        interrupted: the user asked to stop; the unfinished sitting left no row.
        seconds: of the whole call.
        measured_s: of these, in gates, warm-up and samples.
    """

    sittings_done: int
    interrupted: bool
    seconds: float
    measured_s: float


def run_speed(
    plan: Plan,
    folder: RunFolder,
    profile: Profile,
    progress: Progress,
    limits: Limits | None = None,
    left_s: float = math.inf,
    again: Callable[[], Plan] | None = None,
) -> Outcome:
    """Measure the plan's sittings and append their rows; Ctrl-C ends it between two blocks.

    The time that one sitting saves or overdraws is spread over those that follow.

    Args:
        left_s: seconds from now to a hard end: no sitting begins that would not fit, and no
            contender is waited for beyond it. Infinite = every sitting is measured.
        again: asked for a further plan, for the same workers, until one has no sittings or no
            time for them; what the last one drops or does not reach gets "skipped" rows.
    """
    started = time.perf_counter()
    limits = replace(limits or Limits(), end=time.monotonic() + left_s - FINISH_S)
    run = _Run(plan, folder, profile, limits)
    interrupted = False
    with Stop() as stop, Pool(folder.logs, stop, limits, profile.device) as pool:
        try:
            late = run.measure(plan, pool, stop, progress)
            while again is not None and plan.sittings:
                done = run.done
                run.plan = plan = again()
                late = run.measure(plan, pool, stop, progress)
                if run.done == done:
                    break
            run.skip([*((one.point, TOO_LATE) for one in late), *plan.dropped])
        except InterruptError:
            interrupted = True
            progress.note("interrupted: the unfinished point left no row and is measured again")
    shutil.rmtree(run.cache, ignore_errors=True)
    return Outcome(run.done, interrupted, time.perf_counter() - started, run.measured)


class _Run:
    """What the sittings of one run share: machine, ceilings, folder, how rows are written."""

    def __init__(
        self,
        plan: Plan,
        folder: RunFolder,
        profile: Profile,
        limits: Limits,
    ) -> None:
        self.plan, self.folder, self.profile, self.limits = plan, folder, profile, limits
        self.ends = math.isfinite(limits.end)
        self.done, self.measured = 0, 0.0
        self.cache = Path(folder.path) / "oracle"
        shutil.rmtree(self.cache, ignore_errors=True)
        known = folder.manifest.get("ceilings")
        found = floors.Ceilings.from_dict(known) if known else None
        # What was not measured is good enough to plan with, not to print as a floor.
        self.ceilings = None if found is None or found.source == "nominal" else found
        self.attempts = Counter(str(row.get("cell_id")) for row in folder.rows)
        self.prints: dict[int, str] = {}
        self.strikes: Counter[Contender] = Counter()

    def measure(self, plan: Plan, pool: Pool, stop: Stop, progress: Progress) -> list[Sitting]:
        """Every sitting of the plan in its order; those that a hard end leaves out are returned.

        Raises:
            InterruptError: the user asked to stop.
        """
        total, spare = len(plan.sittings), 0.0
        progress.start(total)
        for number, planned in enumerate(plan.sittings):
            sitting = self._before_the_end(planned)
            if sitting is None:
                return plan.sittings[number:]
            left = sum(one.share_s for one in plan.sittings[number:]) + spare
            progress.sitting(sitting.point.label(), number, total, max(0.0, left))
            arms = pool.arms(sitting.contenders, sitting.point.threads)
            share = max(LEAST_SHARE * sitting.share_s, sitting.share_s + spare / (total - number))
            spent = self.sit(sitting, arms, share, stop)
            spare += sitting.share_s - spent
            self.measured, self.done = self.measured + spent, self.done + 1
        return []

    def _before_the_end(self, sitting: Sitting) -> Sitting | None:
        """The sitting as there is time for it; None where it would not fit before a hard end."""
        if not self.ends:
            return sitting
        left = self.limits.end - time.monotonic()
        usual = self.measured / self.done if self.done else 0.0
        if left <= 0 or left < min(sitting.share_s, usual):
            return None
        return self.without_failing(sitting)

    def without_failing(self, sitting: Sitting) -> Sitting:
        """The sitting without the contenders that have already cost too much waiting."""
        out = [one for one in sitting.contenders if self.strikes[one] >= STRIKES]
        reason = f"it hung or died in {STRIKES} points in a row: left out of the rest of this run"
        absent = (*sitting.absent, *((one, "skipped", reason) for one in out))
        kept = tuple(one for one in sitting.contenders if one not in out)
        return replace(sitting, contenders=kept, absent=absent)

    def sit(self, sitting: Sitting, arms: list[Arm], share_s: float, stop: Stop) -> float:
        """Measure one sitting and append its rows; returns the seconds it took.

        Raises:
            InterruptError: the user asked to stop; nothing was written.
        """

        gauge = telemetry.gauge(sitting.point.placement.device)

        def check() -> None:
            if stop.requested:
                raise InterruptError
            gauge.look()

        start, point, profile = time.perf_counter(), sitting.point, self.profile
        sitting_id = uuid.uuid4().hex[:12]
        order_seed = crc32(f"{profile.seed} {sitting_id}".encode())
        rng = random.Random(order_seed)
        before = {"started_at": _now(), "load_before": identity.load_average()}
        prepare(arms, point, profile.seed, str(self.cache), self.limits)
        # Where the first compilations ate the share, a hard-ended run still samples: its first
        # points matter most, and the others' shares make up for it.
        kept = SAMPLING_SHARE * share_s if self.ends else 0.0
        if live(arms):
            left = max(kept, share_s - (time.perf_counter() - start))
            cap = min(
                WARMUP_CAP_S[point.placement.device],
                max(0.0, WARMUP_SHARE * left / len(live(arms))),
            )
            warm_up(arms, cap, random.Random(order_seed + 1), self.limits, check)
        if live(arms):
            deadline = max(start + share_s, time.perf_counter() + kept)
            rule = rules(arms, share_s, deadline, profile)
            sample(arms, rule, profile.baseline, rng, self.limits, check)
            gauge.note()
            finish(arms, replace(self.limits, end=self.limits.end + FINISH_S))
        shutil.rmtree(self.cache, ignore_errors=True)
        for arm in arms:
            failed = arm.status in ("timeout", "crash")
            self.strikes[arm.contender] = failed * (self.strikes[arm.contender] + 1)
        fixed = before | self._fixed(point, sitting_id, order_seed) | gauge.columns()
        self._append(sitting, arms, fixed, sitting_id)
        return time.perf_counter() - start

    def skip(self, dropped: Sequence[tuple[Point, str]]) -> None:
        """Rows "skipped" for the points that the budget does not hold, unless they have them."""
        last = {row["point_id"]: row["status"] for row in self.folder.rows}
        for point, reason in dropped:
            if last.get(point.point_id) == "skipped":
                continue
            absent = tuple((Contender(name), "skipped", reason) for name in self.plan.stale_keys)
            sitting_id = uuid.uuid4().hex[:12]
            fixed = {"started_at": _now()} | self._fixed(point, sitting_id, None)
            self._append(Sitting(point, (), absent, 0.0, 0.0), [], fixed, sitting_id)

    def _fixed(self, point: Point, sitting_id: str, order_seed: int | None) -> dict[str, object]:
        if point.threads not in self.prints:
            found = identity.fingerprint(point.threads)
            self.prints[point.threads] = identity.fingerprint_hash(found)
        return {
            "run_id": self.folder.manifest.get("run_id"),
            "profile": self.profile.name,
            "sitting_id": sitting_id,
            "order_seed": order_seed,
            "ended_at": _now(),
            "load_after": identity.load_average(),
            "host_id": identity.host_id(),
            "fingerprint": self.prints[point.threads],
            "python": platform.python_version(),
        }

    def _append(
        self, sitting: Sitting, arms: list[Arm], fixed: dict[str, object], sitting_id: str
    ) -> None:
        scene = rows.Scene(
            point=sitting.point,
            fixed=fixed,
            stale_keys=self.plan.stale_keys,
            attempts=dict(self.attempts),
            ceilings=self.ceilings,
            baseline=self.profile.baseline,
            seed=self.profile.seed,
            load=(os.cpu_count() or 1) + 1.0,
        )
        written = rows.rows_of(arms, sitting.absent, scene)
        self.folder.append_sitting(written, rows.samples_of(arms, sitting.point, sitting_id))
        self.attempts.update(str(row["cell_id"]) for row in written)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
