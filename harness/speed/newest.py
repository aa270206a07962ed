"""Which rows of a run folder count: those of the newest complete sitting of every grid point."""

from __future__ import annotations

from harness.files import Row

UNFINISHED = ("interrupted", "skipped")
"""Statuses that an earlier, complete sitting of the same point outranks."""


def sittings(rows: list[Row]) -> dict[str, list[Row]]:
    """Rows by sitting, in the order of their writing."""
    out: dict[str, list[Row]] = {}
    for row in rows:
        out.setdefault(row["sitting_id"], []).append(row)
    return out


def whole(sittings: dict[str, list[Row]], notes: list[str]) -> dict[str, list[Row]]:
    """The sittings without those that a torn write cut short.

    Every contender leaves a row in every sitting, so one that lacks some of the others' is cut.
    """
    who = {
        key: {(r["impl"], r["twin"], r.get("mode")) for r in rows} for key, rows in sittings.items()
    }
    point = {key: rows[0]["point_id"] for key, rows in sittings.items()}
    keys = list(sittings)
    cut = [
        key
        for at, key in enumerate(keys)
        if any(point[key] == point[later] and who[key] < who[later] for later in keys[at + 1 :])
        or (key == keys[-1] and any(who[key] < who[other] for other in keys))
    ]
    if cut:
        notes.append(f"cells.jsonl: {len(cut)} unfinished sitting(s) left out: a write was torn")
    return {key: rows for key, rows in sittings.items() if key not in cut}


def newest(sittings: dict[str, list[Row]]) -> list[Row]:
    """Rows of one sitting per point: the last complete one in the file, else the last one."""
    points: dict[str, list[list[Row]]] = {}
    for rows in sittings.values():
        points.setdefault(rows[0]["point_id"], []).append(rows)
    chosen: list[Row] = []
    for candidates in points.values():
        newest_first = candidates[::-1]
        complete = (s for s in newest_first if all(r["status"] not in UNFINISHED for r in s))
        chosen += next(complete, newest_first[0])
    return chosen
