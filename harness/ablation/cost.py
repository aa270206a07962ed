"""What an ablation will cost: from recorded trainings where there are any, else from FLOPs."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from typing import Any

import impls
from harness.ablation import rates
from harness.ablation.cells import Cell, Run
from harness.ablation.plan import Plan

RATE = 6e10
"""FLOP/s of one usual core in products of this size, until something was recorded."""
STEP_S = {"torch": 1.5e-3, "jax": 1e-3}
"""Seconds of dispatch per layer and training step, by framework."""
SERIAL_S = 2e-5
"""Seconds of a dependent step of an LSTM, forward and backward."""
EVALUATION = 1.3
"""Evaluations and data, as a part of the steps."""
FIRST_S = {"torch": 0.3, "jax": 1.5}
"""Seconds that the first training of a cell takes longer, to compile."""
START_S = 6.0
"""Seconds until a worker has imported its framework."""


class Cost:
    """Seconds of trainings, by what earlier ones of the same cell or implementation took."""

    def __init__(self, rows: Iterable[Mapping[str, Any]]) -> None:
        self._known: dict[tuple[Any, ...], list[float]] = {}
        for row in rows:
            self.learn(row)

    def learn(self, row: Mapping[str, Any]) -> None:
        """Take a row into account."""
        if row["status"] == "ok" and row["steps_done"] and row["wall_s"]:
            key = (row["impl"], row["task"], row["arm"], row["budget_mode"])
            self._known.setdefault(key, []).append(row["wall_s"] / row["steps_done"])

    def run_s(self, cell: Cell) -> float:
        """Seconds of one training of this cell, early stops not counted on."""
        return cell.steps * self.step_s(cell)

    def step_s(self, cell: Cell) -> float:
        """Seconds of a step, its part of the evaluations included."""
        key = (cell.impl, cell.asked.task.name, cell.arm.name, cell.mode)
        if key in self._known:
            return statistics.median(self._known[key])
        core = cell.net.core
        step = (cell.flops or 0) / RATE + core.layers * STEP_S[_framework(cell)]
        if core.family == "lstm":
            step += core.layers * cell.probe.steps * SERIAL_S
        return EVALUATION * step

    def known(self, run: Run) -> bool:
        """Whether some training of the run's cell was recorded."""
        cell = run.cell
        return (cell.impl, cell.asked.task.name, cell.arm.name, cell.mode) in self._known

    def cell_s(self, cell: Cell, open_runs: int) -> float:
        """Seconds of so many trainings of a cell, one after the other."""
        return open_runs * self.run_s(cell) + FIRST_S[_framework(cell)] * (open_runs > 0)

    def plan_s(self, plan: Plan, rows: Mapping[str, Any], workers: int) -> float:
        """Seconds of everything that is open, so many trainings at a time."""
        total = sum(self.cell_s(cell, open_count(cell, rows)) for cell in plan.cells)
        return total / workers + START_S * (total > 0)


def open_count(cell: Cell, rows: Mapping[str, Any]) -> int:
    """How many trainings a cell has left, extensions of its grid not counted."""
    open_runs = cell.open_runs(rows)
    left = len(open_runs)
    if any(run.role == "tune" for run in open_runs):
        left += len(cell.final_seeds)
        if any(run.seed in cell.tuning_seeds for run in open_runs):  # then the runoff is to come
            left += rates.FINALISTS * len(cell.runoff_seeds)
    return left


def _framework(cell: Cell) -> str:
    return "jax" if "jax" in impls.get(cell.impl).requires else "torch"
