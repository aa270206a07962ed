"""A cell of an ablation, one arm on one task in one budget mode, and the trainings it asks for."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from harness.ablation import budgets, rates, seeds
from harness.ablation import changes as fields
from harness.ablation.changes import Changes
from harness.ablation.spec import Arm, Asked
from impls.nets import NetSpec, OptimiserSpec

PROTOCOL_VERSION = 2
"""Raised whenever the same run would be trained, stopped or scored differently."""


@dataclass(frozen=True)
class Probe:
    """What the plan must know of a task's data: those of the first final seed.

    Attributes:
        net: NetSpec's fields that the task decides; steps, batch: of a training batch.
        sha256: of the evaluation sets and of a file's training text.
        chance: score of a guess on these data.
        carries: batches continue each other, and carried states go on.
    """

    net: dict[str, Any]
    steps: int
    batch: int
    sha256: str
    chance: float
    carries: bool


def probe(asked: Asked, root: int) -> Probe:
    """Draw the data of seed 0 and look at them.

    Raises:
        UsageError: a data file that cannot be used, or a missing library.
    """
    data = asked.task.data(seeds.run_root(root, 0), asked.options)
    steps, batch = data.train(0).inputs.shape[:2]
    return Probe(data.net, steps, batch, data.sha256, data.chance, data.train(1).carry)


@dataclass(frozen=True)
class Run:
    """One training: a seed and a learning rate of a cell, to tune or to be reported."""

    cell: Cell
    role: str
    seed: int
    learning_rate: float
    lr_edge: bool | None = None

    def identity(self) -> dict[str, Any]:
        """Everything that decides the result, as JSON knows it."""
        cell, optimiser = self.cell, self.cell.optimiser(self.learning_rate)
        return {
            "protocol_version": PROTOCOL_VERSION,
            "impl": cell.impl,
            "arm": cell.arm.name,
            "budget_mode": cell.mode,
            "task": cell.asked.task.name,
            "task_version": cell.asked.task.version,
            "data_sha256": cell.probe.sha256,
            "options": {k: v for k, v in cell.asked.options.items() if k != "file"},
            "root": cell.root,
            "seed": self.seed,
            "role": self.role,
            "net": asdict(cell.net),
            "optimiser": {**asdict(optimiser), "betas": list(optimiser.betas)},
            "steps": cell.steps,
            "target": cell.asked.target,
            "evaluations": cell.evaluations,
            "dtype": cell.dtype,
        }

    @property
    def row_key(self) -> str:
        """16 hexadecimal digits: one training, whoever asks for it."""
        return _row_key(self.cell, self.role, self.seed, self.learning_rate)


@dataclass(frozen=True, eq=False)
class Cell:
    """An arm on a task in a budget mode: a network, its grid of learning rates, its seeds."""

    asked: Asked
    arm: Arm
    mode: str
    impl: str
    net: NetSpec
    changes: Changes
    probe: Probe
    steps: int
    root: int
    evaluations: int
    dtype: str
    grid: tuple[float, ...]
    tuning_seeds: tuple[int, ...]
    runoff_seeds: tuple[int, ...]
    final_seeds: tuple[int, ...]

    @property
    def label(self) -> str:
        """Short words for a terminal."""
        mode = "" if self.mode == "as_is" else f" ({self.mode})"
        return f"{self.asked.task.name} {self.arm.name}{mode}"

    @functools.cached_property
    def flops(self) -> int | None:
        """FLOP of a training step."""
        return budgets.flops(self.net, self.probe.batch, self.probe.steps)

    @property
    def tunings(self) -> int:
        """How many trainings choose its learning rate, an extension of the grid not counted."""
        return len(self.grid) * len(self.tuning_seeds) + rates.FINALISTS * len(self.runoff_seeds)

    @property
    def params(self) -> int:
        """Number of parameters."""
        return budgets.params(self.net)

    @property
    def contrast(self) -> str:
        """Its family in the statistics: what is not as_is is a second look, never primary."""
        second = self.mode != "as_is" and self.arm.contrast == "primary"
        return "secondary" if second else self.arm.contrast

    def runs(self, rows: Mapping[str, Mapping[str, Any]]) -> list[Run]:
        """The trainings that are known to be wanted, given the final row of each row_key so far.

        First the grid on tuning seeds, then one rate beyond an edge where the best one lies there,
        then the best two on the runoff's seeds, then the final seeds with the winner.
        """
        rate, edge, tuning = self.optimiser().learning_rate, None, []
        if self.grid:
            tuning = self._tuning(self.grid, self.tuning_seeds)
            if _missing(tuning, rows):
                return tuning
            grid = rates.extended(self.grid, self._ranked(tuning, rows)[0])
            tuning = self._tuning(grid, self.tuning_seeds)
            if _missing(tuning, rows):
                return tuning
            finalists = self._ranked(tuning, rows)[: rates.FINALISTS]
            tuning += self._tuning(finalists, self.runoff_seeds)
            if _missing(tuning, rows):
                return tuning
            compared = [run for run in tuning if run.learning_rate in finalists]
            rate = self._ranked(compared, rows)[0]
            edge = rate in (grid[0], grid[-1])
        return [*tuning, *(Run(self, "final", seed, rate, edge) for seed in self.final_seeds)]

    def open_runs(self, rows: Mapping[str, Mapping[str, Any]]) -> list[Run]:
        """What of `runs` can be trained now; empty = the cell is done."""
        return _missing(self.runs(rows), rows)

    def optimiser(self, learning_rate: float | None = None) -> OptimiserSpec:
        """The optimiser of its trainings, with another learning rate than the baseline's."""
        return fields.optimiser(self.changes, self.steps, learning_rate)

    def _tuning(self, grid: Sequence[float], among: Sequence[int]) -> list[Run]:
        return [Run(self, "tune", seed, rate) for rate in grid for seed in among]

    def _ranked(
        self, tuning: Sequence[Run], rows: Mapping[str, Mapping[str, Any]]
    ) -> tuple[float, ...]:
        tried = [(run.learning_rate, rows[run.row_key]) for run in tuning]
        return rates.ranked(tried, self.probe.chance, self.asked.task.higher_is_better)


@functools.cache
def _row_key(cell: Cell, role: str, seed: int, learning_rate: float) -> str:
    """Asked for many times while a plan is trained, and slow to make."""
    return digest(Run(cell, role, seed, learning_rate).identity(), 16)


def _missing(runs: Sequence[Run], rows: Mapping[str, Mapping[str, Any]]) -> list[Run]:
    return [run for run in runs if run.row_key not in rows]


def digest(value: object, digits: int) -> str:
    """First hexadecimal digits of the sha256 of canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:digits]
