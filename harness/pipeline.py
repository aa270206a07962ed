"""A whole profile, step by step: checks, ceilings, plan, sittings, pages; each part resumes."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from harness import files, paths, proofs, report
from harness.checked import parse_duration
from harness.config import Profile, load_profile, profile_names
from harness.errors import UsageError
from harness.floors import Ceilings
from harness.machine import ceilings, identity, system
from harness.process import WorkerFailure
from harness.progress import Progress, words
from harness.speed import memory
from harness.speed.coordinator import run_speed
from harness.speed.grid import PROTOCOL_VERSION, Contender, parse_only, points, select
from harness.speed.importance import in_order
from harness.speed.plan import Plan, build
from harness.stop import InterruptError, Stop
from harness.store import RunFolder, read_manifest, read_rows

INTERRUPTED = 130
END_S = 9.0
"""Kept back where the budget is a hard end, for ending the workers."""


def _profile(name: str, budget: str | None) -> tuple[Profile, float]:
    profile = load_profile(name)
    return profile, parse_duration(budget, "--budget") if budget else profile.budget_s


def show_plan(name: str, out: Path | None, budget: str | None, only: Sequence[str]) -> None:
    """Print the sittings that a run would measure now, and how long it would take.

    Raises:
        UsageError: bad profile, budget, filter or results folder.
    """
    profile, budget_s = _profile(name, budget)
    folder = out or paths.run_folder(profile.name)
    manifest = read_manifest(folder, profile.name, PROTOCOL_VERSION) or {}
    rows, note = read_rows(folder) if folder.exists() else ([], None)
    if note:
        print(f"quasibench: {note}", file=sys.stderr)
    found = manifest.get("ceilings")
    known = Ceilings.from_dict(found) if found else Ceilings.nominal(profile.device)
    todo = memory.open_of(profile, files.read_lines(folder / "memory.jsonl")[0])
    overhead = profile.overhead_s + memory.seconds(todo)
    plan = build(profile, rows, known, budget_s, parse_only(only), overhead)
    console = Console(highlight=False)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("point", "contenders", "one round", "time"):
        table.add_column(title, justify="left" if title == "point" else "right")
    for sitting in plan.sittings:
        table.add_row(sitting.point.label(), str(len(sitting.contenders)),
                      f"{sitting.predicted_s:.2g} s", f"{sitting.share_s:.0f} s")  # fmt: skip
    console.print(table)
    _print_summary(console, plan)


def _print_summary(console: Console, plan: Plan) -> None:
    cells = sum(len(s.contenders) + len(s.absent) for s in plan.sittings)
    console.print(
        f"\n{plan.profile.name}: {plan.total} points, {plan.done} done, {len(plan.sittings)} to "
        f"measure ({cells} cells), {len(plan.dropped)} dropped; about {words(plan.estimate_s)}",
        soft_wrap=True,
    )
    for point, reason in plan.dropped:
        console.print(f"dropped: {point.label()}: {reason}", markup=False, soft_wrap=True)
    absent = {c.impl: (status, why) for s in plan.sittings for c, status, why in s.absent}
    for impl, (status, why) in sorted(absent.items()):
        console.print(f"{status}: {impl}: {why}", markup=False, soft_wrap=True)


def run_profile(
    name: str,
    out: Path | None,
    budget: str | None,
    only: Sequence[str],
    *,
    repair: bool,
    parts: Sequence[str],
    again: bool = False,
) -> int:
    """Run the named parts ("equivalence", "speed") of a profile; returns the exit code.

    0 when all was done, 1 when a check, a gate or a test on the device failed, 130 after Ctrl-C
    (the next call goes on where this one ended).

    With `again` points that are done are measured once more; their old rows stay in the file.

    Raises:
        UsageError: bad profile, budget, filter or results folder, or no device for a profile that
            needs one; nothing was overwritten.
    """
    started = time.monotonic()
    profile, budget_s = _profile(name, budget)
    filters = parse_only(only)
    _possible(profile, filters, again)
    place = out or paths.run_folder(profile.name)
    with RunFolder.open(place, profile.name, PROTOCOL_VERSION, repair=repair) as folder:
        progress = Progress()
        try:
            _describe(profile, folder)
            failed = "equivalence" in parts and proofs.prove(profile, folder, progress, budget_s)
            found = _ceilings(profile, folder, progress, started + budget_s)
            folder.update_manifest(ceilings=found.to_dict())
            todo = memory.open_of(profile, files.read_lines(folder.path / "memory.jsonl")[0])
            before = len(folder.rows)
            pages = "equivalence" in parts
            if profile.drop == "last":
                end = started + budget_s - _kept_back(profile, pages)
                interrupted = in_order(profile, folder, progress, filters, end)
            else:
                plan = _planned(profile, folder, filters, started + budget_s, pages, todo, again)
                interrupted = _speed(plan, folder, progress, started)
            failed = _wrong(folder.rows[before:], progress) or failed
            if not interrupted:
                _memory(todo, profile, folder, progress)
        except InterruptError:
            interrupted = True
        finally:
            progress.close()
    return INTERRUPTED if interrupted else int(failed)


def _kept_back(profile: Profile, pages: bool) -> float:
    """Seconds of a hard end that belong to ending the workers and to the pages."""
    return END_S + (profile.overhead_of("report") if pages and report.lacking() is None else 0.0)


def _possible(profile: Profile, filters: Mapping[str, str], again: bool) -> None:
    """Raise UsageError where the filters keep nothing, or the profile cannot run so or here."""
    select(points(profile), filters)
    if again and profile.drop == "last":
        raise UsageError("--again: a profile with a hard end goes on, it repeats nothing")
    if profile.device == "cuda" and not system.gpus():
        raise UsageError(
            f"profile {profile.name!r} measures a CUDA device and nvidia-smi lists none here: run "
            "it on a machine with one (nothing was written)"
        )


def _planned(
    profile: Profile,
    folder: RunFolder,
    filters: Mapping[str, str],
    end: float,
    pages: bool,
    todo: Sequence[memory.Open],
    again: bool,
) -> Plan:
    """The plan of what is open, in the time that is left until `end` of the monotonic clock."""
    rest = ("worker start", *(["report"] if pages else []))
    overhead = profile.overhead_of(*rest) + memory.seconds(todo)
    left = max(0.0, end - time.monotonic())
    known = Ceilings.from_dict(folder.manifest["ceilings"])
    return build(profile, folder.rows, known, left, filters, min(overhead, left), again)


def _describe(profile: Profile, folder: RunFolder) -> None:
    """Record in the manifest what is asked and on which machine."""
    asked = {key: value for key, value in asdict(profile).items() if key != "name"}
    threads = identity.thread_count(profile.threads)
    folder.update_manifest(plan=asked, machine=identity.fingerprint(threads))


def _memory(
    todo: Sequence[memory.Open], profile: Profile, folder: RunFolder, progress: Progress
) -> None:
    """Measure the memory of the contenders and points that have no row yet."""
    if todo:
        progress.note("measuring memory, each figure in a process of its own")
    with Stop() as stop:
        for row in memory.measure(todo, profile.seed, folder.logs, stop):
            folder.append_memory([row])


def _ceilings(profile: Profile, folder: RunFolder, progress: Progress, end: float) -> Ceilings:
    """Ceilings of this machine: those of the folder if they still hold, else measured now."""
    asked = points(profile)
    dtypes = sorted({"float32", *(point.placement.dtype for point in asked)})
    threads = identity.thread_count(profile.threads)
    device = asked[0].placement.device
    key = [identity.fingerprint_hash(identity.fingerprint(threads)), threads, dtypes, device]
    if folder.manifest.get("ceilings") and folder.manifest.get("ceilings_key") == key:
        return Ceilings.from_dict(folder.manifest["ceilings"])
    progress.note("measuring this machine's ceilings")
    try:
        limit_s = ceilings.LIMIT_S
        if profile.drop == "last":
            limit_s = min(limit_s, proofs.TESTS_SHARE * max(0.0, end - time.monotonic()))
        found = ceilings.measure(threads, dtypes, device, folder.logs, limit_s)
    except WorkerFailure as failure:
        progress.note(f"no ceilings, planning with nominal ones: {failure.reason}")
        return Ceilings.nominal(device)
    folder.update_manifest(ceilings_key=key)
    return found


def _wrong(rows: Sequence[dict[str, Any]], progress: Progress) -> bool:
    """Say which cells failed their gate; True = there is one."""
    wrong = [row for row in rows if row["status"] in ("mismatch", "nonfinite")]
    for row in wrong:
        at = f"{row['kind']} {row['dtype']} {row['batch']} x {row['steps']}"
        who = Contender(row["impl"], mode=row["mode"]).name
        progress.note(f"{row['status']}, not timed: {who}, {at}: {row['reason']}")
    return bool(wrong)


def _speed(plan: Plan, folder: RunFolder, progress: Progress, started: float) -> bool:
    """Measure the plan's sittings and say what was done and dropped; True = interrupted."""
    outcome = run_speed(plan, folder, plan.profile, progress)
    spent = time.monotonic() - started
    progress.note(
        f"{plan.done + outcome.sittings_done} of {plan.total} points measured in {words(spent)}; "
        f"{outcome.measured_s / spent:.0%} of it in gates, warm-up and samples"
    )
    for point, reason in plan.dropped:
        progress.note(f"dropped: {point.label()}: {reason}")
    return outcome.interrupted


def _recorded(name: str) -> Path:
    """The run folder of a profile, of an ablation, or of that name itself.

    Raises:
        UsageError: there is no such profile, and no such folder.
    """
    for folder in (f"ablation-{name}", name):
        place = paths.run_folder(folder)
        if name not in profile_names() and (place / "manifest.json").is_file():
            return place
    return paths.run_folder(load_profile(name).name)


def render_pages(
    name: str, out: Path | None, html: Path | None, picture: Path | None = None
) -> int:
    """Render the pages of a run folder; 1 when one of them is incomplete.

    Args:
        picture: where to write the overview as a PNG too, as the README shows it: of speed
            where any was measured, else of accuracy.

    Raises:
        UsageError: not a run folder, or the packages of the extra `report` are missing.
    """
    place = out or _recorded(name)
    try:
        index = report.render(place, html)
    except report.ReportFailedError as error:
        print(f"quasibench: {error}", file=sys.stderr)
        return 1
    if picture is not None:
        from harness import results
        from harness.plots import picture as draw

        if (place / "cells.jsonl").is_file():
            draw.picture(results.load(place), picture)
        else:
            draw.forest(results.load_ablation(place), picture)
    print(index)
    return 0
