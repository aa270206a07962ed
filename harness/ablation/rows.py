"""The row of one training: what was asked, what came of it, and under which key it stays valid."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import impls
from harness.ablation import budgets
from harness.ablation.accuracy import FINAL, standing
from harness.ablation.cells import Run, digest
from harness.machine import identity
from harness.process import WorkerFailure
from impls.training import framework_of

THREADS = 1
COLUMNS = tuple(
    """
schema_version record run_id plan_hash trained_under row_key stale_key impl framework device
threads dtype task task_version data_sha256 arm changes contrast budget_mode hidden_size params
flops_per_step role seed learning_rate lr_edge steps steps_done status stop_reason metric_name
metric validation auc steps_to_target train_loss wall_s cpu_s ms_per_step peak_bytes target chance
params_sha256 attempt error_type error_msg started_at ended_at
""".split()
)
"""Keys of every row; null where nothing is known."""
TRAINING = (
    "impls/nets.py impls/training.py impls/net_params.py impls/batches.py impls/snapshots.py "
    "impls/beam.py impls/reference/philox.py harness/ablation/train.py harness/ablation/course.py "
    "harness/ablation/losses.py harness/ablation/seeds.py harness/tasks/draws.py"
).split()
"""Files beside an implementation's own that a training runs; tasks have versions."""


def now() -> str:
    """The time, as rows write it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


@functools.cache
def stale_key(impl: str, task: str) -> str:
    """16 hexadecimal digits that change when a row of this implementation no longer holds.

    They cover the machine, the implementation's source and frameworks, and what trains and scores.
    """
    top = Path(__file__).resolve().parents[2]
    code = {
        name: hashlib.sha256((top / name).read_bytes()).hexdigest()
        for name in (*TRAINING, f"harness/tasks/{task}.py")
    }
    print_ = identity.fingerprint_hash(identity.fingerprint(THREADS))
    return digest([identity.stale_key(impl, print_, THREADS), code], 16)


def row_of(
    run: Run,
    shared: Mapping[str, Any],
    started_at: str,
    found: Mapping[str, Any] | None = None,
    failure: WorkerFailure | None = None,
    attempt: int = 1,
) -> dict[str, Any]:
    """The row of a training that ended, well or not.

    Args:
        shared: run_id and plan_hash.
        found: the "row" of the worker's answer; failure: why there is none.
        attempt: how often the training was begun by now; a checkpoint gone on with counts anew.
    """
    row: dict[str, Any] = dict.fromkeys(COLUMNS)
    row |= {"record": "accuracy", **shared, **_planned(run)}
    row |= {"attempt": attempt, "started_at": started_at, "ended_at": now()}
    if failure is not None:
        row |= {
            "status": failure.status,
            "error_type": failure.error_type,
            "error_msg": failure.reason,
        }
    row |= found or {}
    del row["schema_version"]  # the store's
    return row


def _planned(run: Run) -> dict[str, Any]:
    """What a training's row says before it has begun."""
    cell, task = run.cell, run.cell.asked.task
    return {
        "row_key": run.row_key,
        "stale_key": stale_key(cell.impl, task.name),
        "impl": cell.impl,
        "framework": framework_of(impls.get(cell.impl)),
        "device": "cpu",
        "threads": THREADS,
        "dtype": cell.dtype,
        "task": task.name,
        "task_version": task.version,
        "arm": cell.arm.name,
        "changes": cell.arm.changes,
        "contrast": cell.contrast,
        "budget_mode": cell.mode,
        "hidden_size": cell.net.core.hidden_size,
        "params": budgets.params(cell.net),
        "flops_per_step": cell.flops,
        "role": run.role,
        "seed": run.seed,
        "learning_rate": run.learning_rate,
        "lr_edge": run.lr_edge,
        "steps": cell.steps,
        "metric_name": task.metric,
        "target": cell.asked.target,
        "chance": cell.probe.chance,
    }


def attempts(rows: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """How often each row_key's training was begun; rows without the column count as one."""
    found: dict[str, int] = {}
    for row in rows:
        begun = row.get("attempt")
        begun = int(row["status"] != "skipped") if begun is None else begun
        found[row["row_key"]] = max(found.get(row["row_key"], 0), begun)
    return found


def done_rows(
    rows: list[dict[str, Any]], retry: frozenset[str] = frozenset()
) -> dict[str, dict[str, Any]]:
    """The row of each row_key that stands, is still valid, and not to be tried again."""
    kept = {}
    for key, row in standing(rows).items():
        final = row["status"] in FINAL and row["status"] not in retry
        if final and row["stale_key"] == stale_key(row["impl"], row["task"]):
            kept[key] = row
    return kept
