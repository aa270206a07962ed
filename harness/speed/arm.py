"""An arm: one contender in a sitting, its worker and what is known of it so far."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from harness.process import Reply, Worker, WorkerFailure
from harness.speed.grid import Contender

TOO_LATE = "the budget was spent before its turn: give a larger --budget, or --only"


class Until(NamedTuple):
    """A moment of `time.monotonic()` at which an answer is given up; is it the run's hard end?"""

    at: float
    is_end: bool


@dataclass(frozen=True)
class Limits:
    """Seconds after which a worker counts as hanging and is killed.

    Attributes:
        hello_s: start and import of the frameworks.
        prepare_s: loading, compiling and the gate.
        block_s: one turn, beyond twenty times the time it was expected to take.
        end: moment of `time.monotonic()` beyond which nobody is waited for at all.
    """

    hello_s: float = 180.0
    prepare_s: float = 300.0
    block_s: float = 60.0
    end: float = math.inf

    def until(self, seconds: float) -> Until:
        """When an answer that is asked for now is given up: after `seconds`, or at the end."""
        at = time.monotonic() + seconds
        return Until(min(at, self.end), at > self.end)


@dataclass
class Arm:
    """One contender in a sitting: its worker, and what is known of it so far.

    Attributes:
        columns: columns of its row from the worker's answers.
        wanted: rounds that the sitting's rules ask for.
        wall, cpu: nanoseconds per call, one list per round.
        turns: raw records of its turns for the samples file.
    """

    contender: Contender
    worker: Worker | None
    device: str = "cpu"
    columns: dict[str, Any] = field(default_factory=dict)
    status: str = "ok"
    error_type: str | None = None
    reason: str | None = None
    warm: list[float] = field(default_factory=list)
    warm_s: float = 0.0
    steady: bool = False
    inner: int = 1
    wanted: int = 0
    wall: list[list[float]] = field(default_factory=list)
    cpu: list[list[float]] = field(default_factory=list)
    turns: list[dict[str, Any]] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """False once it has failed."""
        return self.status == "ok"

    @property
    def call_ns(self) -> float:
        """One call's time as seen lately."""
        return statistics.median(self.warm[-10:])

    @property
    def present(self) -> Worker:
        """The worker of an arm that takes part.

        Raises:
            RuntimeError: it has none; a made-up arm cannot be asked.
        """
        if self.worker is None:
            raise RuntimeError(f"{self.contender.name} has no worker to ask")
        return self.worker

    def fail(self, failure: WorkerFailure) -> None:
        """Take the arm out of the sitting; the others go on without it."""
        self.status, self.error_type = failure.status, failure.error_type
        self.reason = failure.reason
        self.columns |= failure.details
        self.wall, self.cpu, self.turns = [], [], []
        if failure.fatal and self.worker is not None:
            self.worker.kill()

    def ask(self, command: str, until: Until, finish: bool = False, **arguments: Any) -> Reply:
        """Ask the worker; a failure takes the arm out and gives an empty answer."""
        self.present.ask(command, **arguments)
        return self.collect(until, finish)

    def collect(self, until: Until, finish: bool = False) -> Reply:
        """The answer to what the worker was asked; a failure as in `ask`.

        Whom the run's end cuts off is "skipped": nothing says that it hangs.
        """
        try:
            return self.present.answer(max(0.0, until.at - time.monotonic()), finish)
        except WorkerFailure as failure:
            cut = failure.status == "timeout" and until.is_end
            self.fail(too_late() if cut else failure)
            return {}


def too_late(fatal: bool = True) -> WorkerFailure:
    """What takes an arm out whose time a hard end cut off."""
    return WorkerFailure("skipped", "Budget", TOO_LATE, fatal=fatal)


def live(arms: Sequence[Arm]) -> list[Arm]:
    """The arms that are still in the sitting."""
    return [arm for arm in arms if arm.ok]


def ranking(mode: str) -> str:
    """The mode whose baseline and control count for contenders of `mode`."""
    return "graph" if mode == "graph" else "default"


def references(arms: Sequence[Arm], baseline: str, clock: str = "wall") -> list[tuple[Arm, Arm]]:
    """(reference, arm) pairs whose ratios the sitting is about, among the live arms.

    Every arm against the baseline of its mode, and every twin with its own original; a part of
    a layer does less than the baseline and is in no pair.
    """
    pairs = []
    for arm in live(arms):
        if arm.contender.twin:
            own = [a for a in live(arms) if a.contender == arm.contender.original]
            pairs += [(original, arm) for original in own]
            continue
        base = choose_baseline(arms, baseline, clock, arm.contender.mode)
        if base is not None and arm is not base and not arm.contender.is_part:
            pairs.append((base, arm))
    return pairs


def choose_baseline(
    arms: Sequence[Arm], baseline: str, clock: str = "wall", mode: str = "default"
) -> Arm | None:
    """The fixed baseline, or with "auto" the faster of the LSTMs that passed the gate.

    Faster by the samples of `clock`, "wall" or "cpu"; before there are any, by the warm-up. A
    CUDA-graph replay has a baseline that is one too; every other `mode` has the plain one.
    """
    own = ranking(mode)
    names = ("lstm_torch", "lstm_jax") if baseline == "auto" else (baseline,)
    able = [
        arm
        for arm in live(arms)
        if arm.contender.impl in names
        and arm.contender.mode == own
        and not arm.contender.twin
        and (arm.wall or arm.warm)
    ]
    return min(able, key=lambda arm: _median_call(arm, clock), default=None)


def _median_call(arm: Arm, clock: str) -> float:
    times = arm.cpu if clock == "cpu" else arm.wall
    return statistics.median([ns for one in times for ns in one] or arm.warm)
