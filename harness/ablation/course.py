"""The course of one training: its evaluations, when it stops, and what of it is reported."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

FIRST = 50
"""The first evaluation is at this part of the training."""
SOLVED = 2
"""Evaluations in a row that must reach `SOLVED_AT` before a training counts as solved."""
SOLVED_AT = {"accuracy": 0.99, "exact_match": 0.99}
"""Scores of metrics with ceiling 1 at which hardly anything is left to learn. Errors and bits per
character never count as solved. The target of a task decides nothing but steps-to-target."""
DIVERGED = 3.0
"""A validation loss of this many times the first one has diverged."""
LAST = 2
"""The final score is the mean over this many evaluations at the end, never the best."""


def evaluation_steps(steps: int, count: int) -> list[int]:
    """About `count` log-spaced steps from steps / FIRST on, the last of them `steps`."""
    spaced = np.geomspace(max(1.0, steps / FIRST), steps, count)
    return sorted({*(int(step) for step in np.rint(spaced)), steps})


@dataclass
class Course:
    """What a training has seen so far; plain values, so that a checkpoint can hold it.

    Attributes:
        points: the steps after which it is evaluated; done: steps made.
        validation, test, loss: by evaluation so far; the test score only where the final score
            needs it, None elsewhere; loss is the validation set's.
        first_loss: validation loss before the first step.
        train_loss: of the last step; step_s: seconds of every step.
        stop: "solved", "diverged" or None; status: "ok", "diverged" or "nonfinite".
    """

    points: list[int]
    done: int = 0
    validation: list[float] = field(default_factory=list)
    test: list[float | None] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)
    first_loss: float = math.nan
    train_loss: float = math.nan
    step_s: list[float] = field(default_factory=list)
    stop: str | None = None
    status: str = "ok"
    wall_s: float = 0.0
    cpu_s: float = 0.0
    peak_bytes: int = 0

    @property
    def ended(self) -> bool:
        """Whether there is nothing left to train."""
        return self.stop is not None or self.done >= self.points[-1]

    def judge(self, loss: float, score: float, metric: str) -> None:
        """Note an evaluation on the validation set and decide, by it alone, whether to stop."""
        self.validation.append(score)
        self.loss.append(loss)
        if not math.isfinite(loss) or not math.isfinite(score):
            self.fail("nonfinite")
        elif loss > DIVERGED * self.first_loss:
            self.fail("diverged")
        elif len(self.validation) >= SOLVED and all(
            one >= SOLVED_AT.get(metric, math.inf) for one in self.validation[-SOLVED:]
        ):
            self.stop = "solved"

    def fail(self, status: str) -> None:
        """Stop as a failure."""
        self.stop, self.status = "diverged", status

    @property
    def needs_test(self) -> bool:
        """Whether the evaluation just judged is one of those that the final score is made of."""
        left = len(self.points) - len(self.validation)
        return self.status == "ok" and (self.stop is not None or left < LAST)

    def carried(self, values: Sequence[float | None]) -> list[float | None]:
        """The values at all points: a stopped training keeps its last one."""
        return [*values, *[values[-1]] * (len(self.points) - len(values))] if values else []

    def final(self, values: Sequence[float | None]) -> float | None:
        """Mean of the last evaluations, carried forward; None for a failure."""
        kept = self.carried(values)[-LAST:]
        if self.status != "ok" or any(value is None for value in kept) or not kept:
            return None
        return statistics.fmean(value for value in kept if value is not None)

    def auc(self) -> float | None:
        """Mean of the validation score over the logarithm of steps; None for a failure."""
        if self.status != "ok":
            return None
        at = np.log(self.points)
        scores = np.array(self.carried(self.validation), dtype=np.float64)
        if len(at) == 1:
            return float(scores[0])
        area = np.sum((scores[1:] + scores[:-1]) / 2 * np.diff(at))
        return float(area / (at[-1] - at[0]))

    def steps_to(self, target: float, higher_is_better: bool) -> int | None:
        """The first evaluated step at which the validation score reaches the target, or None."""
        for step, score in zip(self.points, self.validation, strict=False):
            if reached(score, target, higher_is_better):
                return step
        return None


def reached(score: float, target: float, higher_is_better: bool) -> bool:
    """Whether a score is as good as the target."""
    return score >= target if higher_is_better else score <= target
