"""What an ablation is: a baseline, the arms that change it, tasks and seeds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from harness.ablation.changes import Changes
from harness.tasks import Task


@dataclass(frozen=True)
class Arm:
    """The baseline with some fields changed.

    Attributes:
        changes: field -> value; empty for the baseline itself.
        contrast: "reference" (the baseline), "primary", "secondary" or "control".
        budgets: in which budget modes it is compared.
        tasks: the tasks it is trained on; None = all of them.
        first_seed: its first final seed; other than 0 only for an A/A control.
    """

    name: str
    changes: Changes
    contrast: str = "primary"
    budgets: tuple[str, ...] = ("as_is",)
    tasks: tuple[str, ...] | None = None
    first_seed: int = 0


@dataclass(frozen=True)
class Asked:
    """A task of an ablation: where it differs from the task's own values.

    Attributes:
        steps: training steps; target: threshold of steps-to-target, nothing else.
        seeds: final seeds; arms: the arms trained on it beside the baseline, None = all.
        options: of `Task.data`, a local file's path, say.
        optional: left out, and said so, where its options lack what it needs.
    """

    task: Task
    steps: int
    target: float
    seeds: int
    arms: tuple[str, ...] | None = None
    options: dict[str, Any] = field(default_factory=dict)
    optional: bool = False


@dataclass(frozen=True)
class Ablation:
    """One validated ablation; the words are those of its TOML file.

    Attributes:
        impl: implementation of the QRNN; other families get a companion of the same framework.
        baseline: the reference arm's fields.
        arms: the reference first, then the changes, then controls that a task adds.
        seeds: final seeds per arm and task; tuning_seeds: of the learning-rate grid;
            runoff_seeds: further ones for its two best rates.
        learning_rates: the grid, ascending; empty = every arm takes the baseline's.
        root: of all random streams.
        evaluations: how many log-spaced steps are evaluated.
        seconds: of training, for budget mode "wall".
        workers: runs at a time, each with one thread; more than the cores are not started.
        timeout_s: of one run; limit_s: of the whole, None = none.
        checkpoint_s: seconds between two checkpoints of a run.
    """

    name: str
    about: str
    impl: str
    tasks: tuple[Asked, ...]
    baseline: Changes
    arms: tuple[Arm, ...]
    seeds: int
    tuning_seeds: int = 0
    runoff_seeds: int = 0
    learning_rates: tuple[float, ...] = ()
    root: int = 1
    evaluations: int = 12
    seconds: float | None = None
    workers: int = 2
    timeout_s: float = 600.0
    limit_s: float | None = None
    checkpoint_s: float = 30.0
    dtype: str = "float32"

    def fields_of(self, arm: Arm) -> Changes:
        """The baseline's fields with the arm's changes."""
        return {**self.baseline, **arm.changes}
