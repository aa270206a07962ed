"""Memory of one forward call beyond inputs, weights and outputs, apart from all timing.

Each figure comes from a process of its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import impls
from harness.config import Profile
from harness.files import Row
from harness.floors import Ceilings
from harness.process import Worker, WorkerFailure
from harness.speed.grid import Contender, Point
from harness.speed.plan import build
from harness.stop import Stop

ANSWER_S = 300.0
PROCESS_S = 4.0
"""Seconds of one figure, mostly imports."""
CLOSED = ("ok", "unsupported")
"""Statuses that end a figure; what failed is tried again, what is still missing has its row."""
ENDLESS_S = 1e9
"""Budget of the plan that lists the contenders: nothing is left out."""


@dataclass(frozen=True)
class Open:
    """A figure that has no row yet: the row so far, and why it cannot be measured, or None."""

    row: Row
    point: Point
    hindrance: tuple[str, str] | None


def open_of(profile: Profile, recorded: Sequence[Row]) -> list[Open]:
    """What `profile.memory` asks for and `recorded` has no final row of, for these sources."""
    if not profile.memory:
        return []
    asked = replace(profile, grids=profile.memory, memory=(), parts=(), repeats=1)
    plan = build(asked, [], Ceilings.nominal(), budget_s=ENDLESS_S)
    known = {(row["cell_id"], row["stale_key"]): row["status"] for row in recorded}
    found = []
    for sitting in plan.sittings:
        whole = [(one, None) for one in sitting.contenders if not one.twin]
        absent = [(one, (status, reason)) for one, status, reason in sitting.absent]
        for one, why in (*whole, *absent):
            key = plan.stale_keys[one.impl]
            row = _identity(one, sitting.point) | {"stale_key": key}
            last = known.get((row["cell_id"], key))
            if last not in CLOSED and (why is None or last != why[0]):
                found.append(Open(row, sitting.point, why))
    return found


def seconds(todo: Sequence[Open]) -> float:
    """What `measure` will take."""
    return PROCESS_S * sum(one.hindrance is None for one in todo)


def measure(todo: Sequence[Open], seed: int, logs: Path, stop: Stop) -> Iterator[Row]:
    """The rows, one after the other.

    Raises:
        InterruptError: the user asked to stop.
    """
    for one in todo:
        if one.hindrance is None:
            yield one.row | _ask(one.row["impl"], one.point, seed, logs, stop)
        else:
            yield one.row | dict(zip(("status", "reason"), one.hindrance, strict=True))


def _identity(one: Contender, point: Point) -> Row:
    fields = {"record": "memory", "impl": one.impl, "mode": one.mode, **point.fields()}
    text = f"memory {one.name} {point.point_id}"
    digest = hashlib.sha256(text.encode()).hexdigest()
    return fields | {"cell_id": digest[:16], "point_id": point.point_id}


def _ask(impl: str, point: Point, seed: int, logs: Path, stop: Stop) -> Row:
    """The columns that one fresh process finds."""
    try:
        with Worker(f"memory-{impl}", point.threads, logs, stop) as worker:
            worker.call("hello", ANSWER_S, modules=list(impls.get(impl).requires))
            answer = worker.call("memory", ANSWER_S, point=asdict(point), impl=impl, seed=seed)
            return {"status": "ok", "reason": None, **answer}
    except WorkerFailure as failure:
        return {"status": failure.status, "reason": failure.reason}
