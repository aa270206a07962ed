"""A run whose budget is a hard end and whose points are in the order of their importance."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace

from harness.config import Profile
from harness.floors import Ceilings
from harness.progress import Progress, words
from harness.speed.arm import Limits
from harness.speed.coordinator import run_speed
from harness.speed.plan import Plan, build
from harness.store import RunFolder

LIMITS = Limits(hello_s=90.0, prepare_s=45.0, block_s=15.0)
"""Shorter than usual: a contender that hangs must not take the others' time."""


def in_order(
    profile: Profile,
    folder: RunFolder,
    progress: Progress,
    filters: Mapping[str, str],
    end: float,
) -> bool:
    """Measure the points in the file's order until `end`, of the monotonic clock; True = stopped.

    What the forecast leaves out is planned again with the measured times, as long as time is left;
    what never fits gets its "skipped" rows.
    """
    known = Ceilings.from_dict(folder.manifest["ceilings"])
    before = len(folder.rows)
    plans: list[Plan] = []

    def planned() -> Plan:
        left = max(0.0, end - time.monotonic())
        start_s = 0.0 if plans else min(left, profile.overhead_of("worker start"))
        plan = build(profile, folder.rows, known, left, filters, start_s)
        tried = {row["point_id"] for row in folder.rows[before:]}
        fresh = [one for one in plan.sittings if one.point.point_id not in tried]
        plans.append(replace(plan, sittings=fresh))
        return plans[-1]

    started = time.monotonic()
    first = planned()
    outcome = run_speed(
        first, folder, profile, progress, LIMITS, left_s=max(0.0, end - started), again=planned
    )
    spent = time.monotonic() - started
    progress.note(
        f"{first.done + outcome.sittings_done} of {first.total} points measured, "
        f"{outcome.sittings_done} of them now in {words(spent)}; "
        f"{outcome.measured_s / max(spent, 1e-9):.0%} of it in gates, warm-up and samples"
    )
    if first.done + outcome.sittings_done < first.total:
        progress.note("the budget held the first points of the file; the others are skipped")
    return outcome.interrupted
