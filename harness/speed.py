"""The coordinator: one sitting after the other, workers kept alive, rows appended as a whole.

It imports no framework and sleeps while a worker computes.
"""

from __future__ import annotations

import os
import platform
import random
import shutil
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from zlib import crc32

import impls
from harness import floors, machine, rows
from harness.arm import Arm, Limits, live
from harness.config import Profile
from harness.grid import Contender, Point
from harness.plan import Plan, Sitting
from harness.process import Worker, WorkerFailure, worker_cpus
from harness.progress import Progress
from harness.sitting import (
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


class Pool:
    """The workers of a run, one per contender, kept alive from sitting to sitting."""

    def __init__(self, logs: Path, stop: Stop, limits: Limits) -> None:
        self._logs, self._stop, self._limits = logs, stop, limits
        self._workers: dict[Contender, Worker] = {}

    def arms(self, contenders: Sequence[Contender], threads: int) -> list[Arm]:
        """Living workers for these contenders, those that must be started at the same time."""
        for contender, worker in list(self._workers.items()):
            if not worker.alive or worker.threads != threads or contender not in contenders:
                worker.kill()
                del self._workers[contender]
        fresh = [contender for contender in contenders if contender not in self._workers]
        for slot, contender in enumerate(fresh):
            worker = Worker(contender.name, threads, self._logs, self._stop, slot)
            self._workers[contender] = worker
            modules = list(impls.get(contender.impl).requires)
            worker.ask("hello", modules=modules, impl=contender.impl)
        arms = {contender: Arm(contender, self._workers[contender]) for contender in contenders}
        for contender in fresh:
            self._welcome(arms[contender], threads)
        return list(arms.values())

    def _welcome(self, arm: Arm, threads: int) -> None:
        try:
            arm.present.answer(self._limits.hello_s)
            arm.present.call("bind", self._limits.hello_s, cpus=worker_cpus(threads))
        except WorkerFailure as failure:
            arm.fail(failure)

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers.values():
            worker.kill()


def run_speed(
    plan: Plan,
    folder: RunFolder,
    profile: Profile,
    progress: Progress,
    limits: Limits | None = None,
) -> Outcome:
    """Measure the plan's sittings and append their rows; Ctrl-C ends it between two blocks.

    The time that one sitting saves or overdraws is spread over those that follow.
    """
    started, done, measured = time.perf_counter(), 0, 0.0
    limits = limits or Limits()
    run = _Run(plan, folder, profile, limits)
    total, spare, interrupted = len(plan.sittings), 0.0, False
    progress.start(total)
    with Stop() as stop, Pool(folder.logs, stop, limits) as pool:
        try:
            for number, sitting in enumerate(plan.sittings):
                left = sum(one.share_s for one in plan.sittings[number:]) + spare
                progress.sitting(sitting.point.label(), number, total, max(0.0, left))
                arms = pool.arms(sitting.contenders, sitting.point.threads)
                share = max(
                    LEAST_SHARE * sitting.share_s, sitting.share_s + spare / (total - number)
                )
                spent = run.sit(sitting, arms, share, stop)
                spare += sitting.share_s - spent
                measured, done = measured + spent, done + 1
            run.skip(plan.dropped)
        except InterruptError:
            interrupted = True
            progress.note("interrupted: the unfinished point left no row and is measured again")
    shutil.rmtree(run.cache, ignore_errors=True)
    return Outcome(done, interrupted, time.perf_counter() - started, measured)


class _Run:
    """What the sittings of one run share: machine, ceilings, folder, how rows are written."""

    def __init__(self, plan: Plan, folder: RunFolder, profile: Profile, limits: Limits) -> None:
        self.plan, self.folder, self.profile, self.limits = plan, folder, profile, limits
        self.cache = Path(folder.path) / "oracle"
        shutil.rmtree(self.cache, ignore_errors=True)
        known = folder.manifest.get("ceilings")
        found = floors.Ceilings.from_dict(known) if known else None
        # What was not measured is good enough to plan with, not to print as a floor.
        self.ceilings = None if found is None or found.source == "nominal" else found
        self.attempts = Counter(str(row.get("cell_id")) for row in folder.rows)
        self.prints: dict[int, str] = {}

    def sit(self, sitting: Sitting, arms: list[Arm], share_s: float, stop: Stop) -> float:
        """Measure one sitting and append its rows; returns the seconds it took.

        Raises:
            InterruptError: the user asked to stop; nothing was written.
        """

        def check() -> None:
            if stop.requested:
                raise InterruptError

        start, point, profile = time.perf_counter(), sitting.point, self.profile
        sitting_id = uuid.uuid4().hex[:12]
        order_seed = crc32(f"{profile.seed} {sitting_id}".encode())
        rng = random.Random(order_seed)
        before = {"started_at": _now(), "load_before": machine.load_average()}
        prepare(arms, point, profile.seed, str(self.cache), self.limits)
        if live(arms):
            left = share_s - (time.perf_counter() - start)
            cap = min(
                WARMUP_CAP_S[point.placement.device],
                max(0.0, WARMUP_SHARE * left / len(live(arms))),
            )
            warm_up(arms, cap, random.Random(order_seed + 1), self.limits, check)
        if live(arms):
            rule = rules(arms, share_s, start + share_s, profile)
            sample(arms, rule, profile.baseline, rng, self.limits, check)
            finish(arms, self.limits)
        shutil.rmtree(self.cache, ignore_errors=True)
        fixed = before | self._fixed(point, sitting_id, order_seed)
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
            found = machine.fingerprint(point.threads)
            self.prints[point.threads] = machine.fingerprint_hash(found)
        return {
            "run_id": self.folder.manifest.get("run_id"),
            "profile": self.profile.name,
            "sitting_id": sitting_id,
            "order_seed": order_seed,
            "ended_at": _now(),
            "load_after": machine.load_average(),
            "host_id": machine.host_id(),
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
