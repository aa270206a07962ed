"""Memory of one forward call beyond inputs, weights and outputs, apart from all timing.

Each figure comes from a process of its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import impls
from harness.config import Profile
from harness.files import Row
from harness.floors import Ceilings
from harness.grid import Contender, Point
from harness.plan import build
from harness.process import Worker, WorkerFailure
from harness.stop import Stop

ANSWER_S = 300.0
ENDLESS_S = 1e9
"""Budget of the plan that lists the contenders: nothing is left out."""


def measure_all(profile: Profile, recorded: Sequence[Row], logs: Path, stop: Stop) -> Iterator[Row]:
    """A row for every contender and point of `profile.memory` that has none in `recorded` yet.

    Raises:
        InterruptError: the user asked to stop.
    """
    asked = replace(profile, grids=profile.memory, memory=(), parts=(), repeats=1)
    plan = build(asked, [], Ceilings.nominal(), budget_s=ENDLESS_S)
    known = {(row["cell_id"], row["stale_key"]) for row in recorded}
    for sitting in plan.sittings:
        point = sitting.point
        able = [(one, None) for one in sitting.contenders if not one.twin]
        for one, why in (*able, *((who, why) for who, *why in sitting.absent)):
            row = _identity(one, point) | {"stale_key": plan.stale_keys[one.impl]}
            if (row["cell_id"], row["stale_key"]) in known:
                continue
            if why is not None:
                yield row | {"status": why[0], "reason": why[1]}
                continue
            yield row | _ask(one.impl, point, profile.seed, logs, stop)


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
