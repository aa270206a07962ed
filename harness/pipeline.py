"""A whole profile, step by step: checks, ceilings, plan, sittings, pages; each part resumes."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import impls
from harness import ceilings, equivalence, files, machine, memory, paths
from harness.checked import parse_duration
from harness.config import Profile, load_profile
from harness.floors import Ceilings
from harness.grid import PROTOCOL_VERSION, Contender, parse_only, points, select
from harness.plan import Plan, build
from harness.process import WorkerFailure
from harness.progress import Progress, words
from harness.speed import run_speed
from harness.stop import InterruptError, Stop
from harness.store import RunFolder, read_manifest, read_rows

INTERRUPTED = 130


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
    known = Ceilings.from_dict(found) if found else Ceilings.nominal()
    plan = build(profile, rows, known, budget_s=budget_s, only=parse_only(only))
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
) -> int:
    """Run the named parts ("equivalence", "speed") of a profile; returns the exit code.

    0 when all was done, 1 when a check or a gate failed, 130 after Ctrl-C (the next call goes
    on where this one ended).

    Raises:
        UsageError: bad profile, budget, filter or results folder; nothing was overwritten.
    """
    started = time.monotonic()
    profile, budget_s = _profile(name, budget)
    filters = parse_only(only)
    select(points(profile), filters)
    place = out or paths.run_folder(profile.name)
    with RunFolder.open(place, profile.name, PROTOCOL_VERSION, repair=repair) as folder:
        progress = Progress()
        try:
            _describe(profile, folder)
            failed = "equivalence" in parts and _equivalence(profile, folder, progress)
            folder.update_manifest(ceilings=_ceilings(profile, folder, progress).to_dict())
            todo = memory.open_of(profile, files.read_lines(folder.path / "memory.jsonl")[0])
            rest = ("worker start", *(["report"] if "equivalence" in parts else []))
            overhead = profile.overhead_of(*rest) + memory.seconds(todo)
            left = max(0.0, budget_s - (time.monotonic() - started))
            known = Ceilings.from_dict(folder.manifest["ceilings"])
            plan = build(profile, folder.rows, known, left, filters, min(overhead, left))
            before = len(folder.rows)
            interrupted = _speed(plan, folder, progress, started)
            failed = _wrong(folder.rows[before:], progress) or failed
            if not interrupted:
                _memory(todo, profile, folder, progress)
        except InterruptError:
            interrupted = True
        finally:
            progress.close()
    return INTERRUPTED if interrupted else int(failed)


def _describe(profile: Profile, folder: RunFolder) -> None:
    """Record in the manifest what is asked and on which machine."""
    asked = {key: value for key, value in asdict(profile).items() if key != "name"}
    threads = machine.thread_count(profile.threads)
    folder.update_manifest(plan=asked, machine=machine.fingerprint(threads))


def _equivalence(profile: Profile, folder: RunFolder, progress: Progress) -> bool:
    """Check every contender that has no rows yet under its present sources; True = one failed."""
    threads = machine.thread_count(profile.threads)
    print_hash = machine.fingerprint_hash(machine.fingerprint(threads))
    names = impls.names() if profile.contenders == "all" else list(profile.contenders)
    keys = {name: machine.stale_key(name, print_hash, threads) for name in names}
    recorded, _ = files.read_lines(folder.path / "equivalence.jsonl")
    dtypes = profile.checks or tuple(dict.fromkeys(p.placement.dtype for p in points(profile)))
    device = points(profile)[0].placement.device
    known = {(r["impl"], r.get("stale_key"), r.get("device"), r["dtype"]) for r in recorded}
    todo = [n for n in names if any((n, keys[n], device, d) not in known for d in dtypes)]
    failed = [
        r for r in recorded if r["status"] == "failed" and r["stale_key"] == keys.get(r["impl"])
    ]
    if todo:
        progress.note(f"checking {', '.join(todo)} against the float64 oracle")
    with Stop() as stop:
        for impl, found in equivalence.check_all(todo, dtypes, device, folder.logs, stop):
            folder.append_equivalence([{**row, "stale_key": keys[impl]} for row in found])
            failed += [row for row in found if row["status"] == "failed"]
    for row in failed:
        progress.note(f"FAILED {row['impl']}: {row['claim']}: {row['message']}")
    return bool(failed)


def _memory(
    todo: Sequence[memory.Open], profile: Profile, folder: RunFolder, progress: Progress
) -> None:
    """Measure the memory of the contenders and points that have no row yet."""
    if todo:
        progress.note("measuring memory, each figure in a process of its own")
    with Stop() as stop:
        for row in memory.measure(todo, profile.seed, folder.logs, stop):
            folder.append_memory([row])


def _ceilings(profile: Profile, folder: RunFolder, progress: Progress) -> Ceilings:
    """Ceilings of this machine: those of the folder if they still hold, else measured now."""
    asked = points(profile)
    dtypes = sorted({"float32", *(point.placement.dtype for point in asked)})
    threads = machine.thread_count(profile.threads)
    device = asked[0].placement.device
    key = [machine.fingerprint_hash(machine.fingerprint(threads)), threads, dtypes, device]
    if folder.manifest.get("ceilings") and folder.manifest.get("ceilings_key") == key:
        return Ceilings.from_dict(folder.manifest["ceilings"])
    progress.note("measuring this machine's ceilings")
    try:
        found = ceilings.measure(threads, dtypes, device, folder.logs)
    except WorkerFailure as failure:
        progress.note(f"no ceilings, planning with nominal ones: {failure.reason}")
        return Ceilings.nominal()
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


def render_pages(
    name: str, out: Path | None, html: Path | None, picture: Path | None = None
) -> int:
    """Render the pages of a run folder; 1 when one of them is incomplete.

    Args:
        picture: where to write the overview as a PNG too, as the README shows it.

    Raises:
        UsageError: not a run folder, or the packages of the extra `report` are missing.
    """
    from harness import report

    place = out or paths.run_folder(load_profile(name).name)
    try:
        index = report.render(place, html)
    except report.ReportFailedError as error:
        print(f"quasibench: {error}", file=sys.stderr)
        return 1
    if picture is not None:
        from harness import results
        from harness.plots.picture import picture as draw

        draw(results.load(place), picture)
    print(index)
    return 0
