"""The coordinator of an ablation: trainings side by side, a row for each, nothing lost.

It imports no framework and sleeps while workers train.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.ablation import checkpoint
from harness.ablation.accuracy import FAILED, FINAL, standing
from harness.ablation.cells import Run, digest
from harness.ablation.cost import Cost, open_count
from harness.ablation.plan import Plan
from harness.ablation.rows import attempts, done_rows, now, row_of, stale_key
from harness.ablation.slots import Answer, Asked, Slot, Slots
from harness.errors import UsageError
from harness.machine import system
from harness.process import WorkerFailure
from harness.progress import Progress
from harness.stop import Stop
from harness.store import RunFolder

LEAST_S = 2.0
"""No training begins this near to a hard end."""
HOPELESS = 3
"""Workers that failed before they were asked, until an implementation is left for the next call."""


@dataclass
class Outcome:
    """How an ablation ended: trainings by status, and whether the user asked to stop."""

    statuses: Counter[str] = field(default_factory=Counter)
    interrupted: bool = False


def train_all(
    plan: Plan,
    folder: RunFolder,
    rows: list[dict[str, Any]],
    progress: Progress,
    retry: frozenset[str] = frozenset(),
    end: float = math.inf,
) -> Outcome:
    """Train what the plan asks for and the folder does not hold; Ctrl-C ends it at once.

    Args:
        rows: those of the folder; retry: statuses to try again. What is tried again and does not
            come to an end keeps the row that it has.
        end: of the monotonic clock: nothing trains beyond it, what is left gets "skipped" rows.

    Raises:
        UsageError: a checkpoint in the folder that is of another training.
    """
    run = _Coordinator(plan, folder, rows, progress, retry, end)
    with Stop() as stop, Slots(run.workers, folder.logs, stop) as slots:
        run.serve(slots, stop)
    return run.outcome


def workers(plan: Plan) -> int:
    """How many train at a time: one core each."""
    return min(plan.ablation.workers, system.cores())


class _Coordinator:
    """What is done, what is in training, what comes next."""

    def __init__(
        self,
        plan: Plan,
        folder: RunFolder,
        rows: list[dict[str, Any]],
        progress: Progress,
        retry: frozenset[str],
        end: float,
    ) -> None:
        self.plan, self.folder, self.progress, self.end = plan, folder, progress, end
        self.workers = workers(plan)
        self.newest, self.begun = standing(rows), attempts(rows)
        self.rows = done_rows(rows, retry)
        self.cost, self.outcome = Cost(rows), Outcome()
        self.running: dict[str, str] = {}
        self.lost: dict[str, list[str]] = {}
        """By implementation the row_keys of what was given up before it began."""
        self.shared = {
            "run_id": folder.manifest.get("run_id"),
            "plan_hash": plan.plan_hash,
        }
        self._check_checkpoints()
        self._adopt()

    def serve(self, slots: Slots, stop: Stop) -> None:
        """Keep every slot busy until nothing is left or the time is up."""
        total = sum(open_count(cell, self.rows) for cell in self.plan.cells)
        self.progress.start(total)
        while True:
            while slots.idle and not stop.requested and (run := self._next(slots.idle[0])):
                self._begin(slots, slots.idle[0], run)
            if not slots.busy:
                break
            self._end(slots.wait())
            done = sum(self.outcome.statuses.values())
            if self.running:
                self.progress.sitting(self._words(), done, max(total, done + 1), self._left_s())
        self.outcome.interrupted = stop.requested
        if not stop.requested:
            self._skip()

    def _next(self, slot: Slot) -> Run | None:
        """What this slot trains next: more of the cell it has compiled, else the next cell.

        A cell that another slot trains comes last, since it would be compiled twice.
        """
        if time.monotonic() > self.end - LEAST_S:
            return None
        others = set(self.running.values())
        ranked: list[tuple[int, int, Run]] = []
        for place, cell in enumerate(self.plan.cells):
            rank = 0 if cell.label == slot.last else 2 if cell.label in others else 1
            if ranked and rank >= ranked[0][0]:
                continue
            for run in cell.open_runs(self.rows):
                if run.row_key not in self.running and self._able(run) and self._fits(run):
                    ranked = [(rank, place, run)]
                    break
        return ranked[0][2] if ranked else None

    def _able(self, run: Run) -> bool:
        """Whether its worker has not failed to start in this call."""
        lost = self.lost.get(run.cell.impl, [])
        return run.row_key not in lost and len(lost) < HOPELESS

    def _fits(self, run: Run) -> bool:
        """Whether it can end in time, as far as that is known."""
        left = self.end - time.monotonic()
        return not self.cost.known(run) or self.cost.run_s(run.cell) <= left

    def _begin(self, slots: Slots, slot: Slot, run: Run) -> None:
        file = self._checkpoint(run)
        arguments = {
            "identity": run.identity(),
            "options": run.cell.asked.options,
            "file": str(file),
            "every_s": self.plan.ablation.checkpoint_s,
            "stale_key": stale_key(run.cell.impl, run.cell.asked.task.name),
        }
        slot.last, self.running[run.row_key] = run.cell.label, run.cell.label
        about, limit_s = (run, now()), self.plan.ablation.timeout_s
        slots.ask(slot, Asked(about, run.cell.impl, "train", arguments, limit_s, self.end))

    def _checkpoint(self, run: Run) -> Path:
        """Where the training's checkpoint is; one that other code wrote is removed.

        Raises:
            UsageError: it is of another training.
        """
        file = self.folder.path / "checkpoints" / f"{run.row_key}.safetensors"
        if file.exists():
            words = checkpoint.header(file, run.identity())
            if words["stale_key"] != stale_key(run.cell.impl, run.cell.asked.task.name):
                self.progress.note(f"{run.cell.label}: begins again, the code has changed")
                file.unlink()
        return file.resolve()

    def _check_checkpoints(self) -> None:
        """Refuse a checkpoint that is not of the training it is named after, before any begins."""
        known = {run.row_key: run for cell in self.plan.cells for run in cell.open_runs(self.rows)}
        for file in sorted((self.folder.path / "checkpoints").glob("*.safetensors")):
            if file.stem in known:
                checkpoint.header(file, known[file.stem].identity())
            elif digest(checkpoint.identity(file), 16) != file.stem:
                raise UsageError(
                    f"{file}: a checkpoint of another training than its name says; remove it, or "
                    "give another --out folder"
                )

    def _end(self, answer: Answer) -> None:
        """Write the row of a training that ended."""
        run, started_at = answer.asked.about
        del self.running[run.row_key]
        failure, found, curve = answer.failure, None, None
        if failure is not None and failure.status == "timeout" and time.monotonic() >= self.end:
            failure = WorkerFailure("skipped", "Timeout", "the time of the whole ablation was up")
        if answer.found is not None:
            found, curve = answer.found["row"], answer.found["curve"]
        elif failure is None:
            failure = WorkerFailure("interrupted", "Interrupt", "the user asked to stop")
        self.begun[run.row_key] = attempt = self.begun.get(run.row_key, 0) + 1
        self._write(row_of(run, self.shared, started_at, found, failure, attempt), curve)
        if failure is not None and failure.status == "missing":
            self.lost.setdefault(run.cell.impl, []).append(run.row_key)
        if failure is not None and failure.status in (*FAILED, "missing"):
            self.progress.note(f"{failure.status}: {run.cell.label}: {failure.reason}")

    def _write(self, row: dict[str, Any], curve: dict[str, Any] | None = None) -> None:
        named = None if curve is None else {"row_key": row["row_key"], **curve}
        self.folder.append_accuracy(row, named)
        old = self.newest.get(row["row_key"], row)
        self.newest[row["row_key"]] = standing([old, row])[row["row_key"]]
        self.outcome.statuses[row["status"]] += 1
        if row["status"] in FINAL:
            self.rows[row["row_key"]] = row
            self.cost.learn(row)

    def _adopt(self) -> None:
        """Rows of an older plan that ask for the very same training stand under this one too."""
        adopted = 0
        for cell in self.plan.cells:
            for run in cell.runs(self.rows):
                row = self.rows.get(run.row_key)
                if row is None or row["plan_hash"] == self.plan.plan_hash:
                    continue
                old = row.get("trained_under") or row["plan_hash"]
                now_under = {"trained_under": old, "lr_edge": run.lr_edge, **self.shared}
                self.rows[run.row_key] = row | now_under | {"contrast": cell.contrast}
                self.folder.append_accuracy(self.rows[run.row_key], None)
                adopted += 1
        if adopted:
            self.progress.note(f"{adopted} trainings of an earlier plan are the same and stand")

    def _skip(self) -> None:
        """Rows "skipped" for what was not reached, unless they have one, or an older result."""
        for cell in self.plan.cells:
            for run in cell.open_runs(self.rows):
                if self.newest.get(run.row_key, {}).get("status") in (*FINAL, "skipped"):
                    continue
                if self._able(run):
                    failure = WorkerFailure("skipped", "Budget", "the time was up before its turn")
                elif run.row_key not in self.lost[run.cell.impl]:
                    why = f"{HOPELESS} workers of {run.cell.impl} failed before they began"
                    failure = WorkerFailure("missing", "Worker", why)
                else:
                    continue
                begun = self.begun.get(run.row_key, 0)
                self._write(row_of(run, self.shared, now(), failure=failure, attempt=begun))

    def _left_s(self) -> float:
        return min(
            self.cost.plan_s(self.plan, self.rows, self.workers),
            max(0.0, self.end - time.monotonic()),
        )

    def _words(self) -> str:
        return ", ".join(dict.fromkeys(self.running.values()))
