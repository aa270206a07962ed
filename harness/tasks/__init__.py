"""The registry of tasks: what a network learns in an ablation, one module per task in this folder.

A module that defines `task` is a task; its file name is the task's name. Importing this package
and any task imports no framework and no optional library.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np

from harness.errors import UsageError, nearest
from impls.training import Batch

Score = Callable[[Sequence[np.ndarray], Sequence[Batch]], float]
Options = Mapping[str, object]
EVALUATION = (4, 128)
"""Batches and sequences per batch of each evaluation set of a synthetic task."""


@dataclass(frozen=True)
class TaskData:
    """The examples of one run; every draw comes from the run's root seed, never from an arm.

    Attributes:
        train: the batch of a training step (0-based): a pure function of run_root and step.
        validation: the only set that selection and stopping may look at.
        test: the set that is reported.
        tuning: the set that a learning-rate grid looks at, and nothing else.
        score: the task's metric of `Trainer.outputs` over the same batches in the same order.
        sha256: of the task's name, version and evaluation sets (which may make a batch only when
            it is asked for), and of a training text that comes from a file.
        net: NetSpec's fields without `core`; `Task.net` with the sizes that the data decide.
        chance: score of a guess that ignores the input, on these data.
        text: symbols of an output as text, where the task has any.
    """

    train: Callable[[int], Batch]
    validation: Sequence[Batch]
    test: Sequence[Batch]
    tuning: Sequence[Batch]
    score: Score
    sha256: str
    net: dict[str, Any]
    chance: float
    text: Callable[[Sequence[int]], str] | None = None


@dataclass(frozen=True)
class Task:
    """A task as data: what is asked, how it is scored, and which arms must differ on it.

    Attributes:
        name: file and row name; version: raised whenever any example changes.
        about: one sentence.
        metric: "accuracy", "mse", "bits_per_character" or "exact_match".
        chance: score of a guess that ignores the input; ceiling: the best score there is.
        target: threshold of steps-to-target.
        good: changes of the baseline (ModelSpec or NetSpec fields) known to do well here.
        bad: changes known to do badly; where the two do not separate, a run is uninformative.
        net: NetSpec's fields without `core`; `TaskData.net` is the complete set.
        batch_size: sequences of a training batch; steps: training steps by default.
        input_size: embedding or bottleneck width, or features of dense inputs.
        make: `(run_root, options) -> TaskData`, reached through `data`.
        options: name and meaning of each option that `data` accepts.
        evaluated: sequences, or characters, of each evaluation set by default; 0 = a share of a
            fixed set, which `version` names.
        recipe: what reaches `target` in `steps` steps outside of ablations: "core" (ModelSpec
            fields), "net" (NetSpec fields), "optimiser" (OptimiserSpec fields); empty = none.
    """

    name: str
    version: int
    about: str
    metric: str
    higher_is_better: bool
    chance: float
    ceiling: float
    target: float
    good: dict[str, object]
    bad: dict[str, object]
    net: dict[str, Any]
    batch_size: int
    steps: int
    input_size: int
    make: Callable[[int, Options], TaskData] = field(repr=False)
    options: dict[str, str] = field(default_factory=dict)
    recipe: dict[str, dict[str, Any]] = field(default_factory=dict)
    evaluated: int = EVALUATION[0] * EVALUATION[1]

    def data(self, run_root: int, options: Options | None = None) -> TaskData:
        """The examples of the run with this 64-bit root seed.

        Raises:
            UsageError: an unknown option, a missing library, or a data file that cannot be used.
        """
        given = dict(options or {})
        for name in given:
            if name not in self.options:
                allowed = ", ".join(self.options) or "none"
                hint = nearest(name, self.options)
                raise UsageError(
                    f"task {self.name!r} has no option {name!r}; allowed: {allowed}{hint}"
                )
        return self.make(run_root, given)


@cache
def _tasks() -> dict[str, Task]:
    found = {}
    for module in pkgutil.iter_modules(__path__):
        task = getattr(importlib.import_module(f"{__name__}.{module.name}"), "task", None)
        if isinstance(task, Task):
            found[module.name] = task
    return dict(sorted(found.items()))


def names() -> tuple[str, ...]:
    """Every task's name, sorted."""
    return tuple(_tasks())


def get(name: str) -> Task:
    """The task of this name.

    Raises:
        UsageError: there is none; the line names the nearest one.
    """
    if name not in _tasks():
        raise UsageError(
            f"there is no task {name!r}; there are {', '.join(_tasks())}{nearest(name, _tasks())}"
        )
    return _tasks()[name]
