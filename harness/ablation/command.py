"""`quasibench ablate`: read, plan, print, train, resume; the steps behind the command."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import impls
from harness import files, paths, report
from harness.ablation import calibration
from harness.ablation import manifest as ablation_manifest
from harness.ablation import plan as ablation_plan
from harness.ablation.accuracy import FINAL
from harness.ablation.config import load_ablation, source
from harness.ablation.coordinator import Outcome, train_all, workers
from harness.ablation.cost import Cost, open_count
from harness.ablation.plan import Plan
from harness.ablation.rows import done_rows
from harness.ablation.spec import Ablation
from harness.errors import UsageError, nearest
from harness.progress import Progress, words
from harness.speed.grid import PROTOCOL_VERSION
from harness.stop import InterruptError
from harness.store import RunFolder, read_manifest

INTERRUPTED = 130
BROKEN = ("crash", "timeout", "oom_host", "unsupported", "missing")
"""Failures of a program rather than results of an arm: the exit code is 1."""


def ablate(
    name: str,
    impl: str | None = None,
    out: Path | None = None,
    only: Sequence[str] = (),
    seeds: int | None = None,
    data: Sequence[str] = (),
    *,
    dry_run: bool = False,
    again: bool = False,
    retry: str | None = None,
    repair: bool = False,
    profile: str | None = None,
    run: str | None = None,
    end: float = math.inf,
) -> int:
    """Train an ablation, or go on with it; returns the exit code.

    Args:
        out: run folder; profile: whose run folder that is, where it is not the ablation's own;
            run: that profile as it was given to `quasibench run`.
        only: "task=a,b" or "arm=a,b"; data: "task=file" for tasks on a local file.
        retry: statuses to try again, with commas; again: train everything once more.
        end: of the monotonic clock, beside the ablation's own limit.

    Raises:
        UsageError: anything in the file or the options that cannot be; nothing was written.
    """
    ablation = _with_data(load_ablation(name), data)
    chosen = _implementation(ablation, impl)
    kept, repeated = _only(ablation, only), FINAL if again else _retry(retry)
    place, owner = out or folder_of(ablation, chosen), profile or f"ablation-{ablation.name}"
    manifest = read_manifest(place, owner, PROTOCOL_VERSION) or {}
    plan = ablation_plan.build(ablation, chosen, kept, seeds)  # before anything is written
    if dry_run:
        return _rehearse(calibration.applied(plan, manifest), place, repeated)
    usual = folder_of(ablation, chosen) if profile is None else paths.run_folder(profile)
    call = ablation_manifest.Call(
        name=name, text=source(name)[0], impl=None if chosen == ablation.impl else chosen,
        out=None if place == usual else place, only=only, seeds=seeds, data=data,
        profile=run or profile,
    )  # fmt: skip
    until = min(end, time.monotonic() + (ablation.limit_s or math.inf))
    with RunFolder.open(place, owner, PROTOCOL_VERSION, repair=repair) as folder:
        return _train(plan, folder, chosen, call, repeated, until)


def _implementation(ablation: Ablation, impl: str | None) -> str:
    """Who trains the arms of the baseline's family: `--impl`, or the file's own."""
    chosen = ablation_plan.known_implementation(impl or ablation.impl)
    family = ablation.baseline.get("family", "qrnn")
    if impl is not None and impls.get(impl).family != family:
        raise UsageError(
            f"--impl {impl}: computes {impls.get(impl).family!r} layers, the baseline of "
            f"{ablation.name} is {family!r}; give an implementation of that family"
        )
    return chosen


def _rehearse(plan: Plan, place: Path, repeated: frozenset[str]) -> int:
    """Print what a call would train; nothing is written."""
    rows, note = files.read_lines(place / "ablation.jsonl")
    if note:
        print(f"quasibench: {note}", file=sys.stderr)
    show(plan, rows, repeated)
    return 0


def _train(
    plan: Plan,
    folder: RunFolder,
    chosen: str,
    call: ablation_manifest.Call,
    repeated: frozenset[str],
    until: float,
) -> int:
    """Calibrate where a budget is in seconds, register the plan, train; returns the exit code."""
    progress = Progress()
    try:
        if any(cell.mode == "wall" for cell in plan.cells):
            calibration.calibrate(plan, folder)
            plan = calibration.applied(plan, folder.manifest, tried=True)
        rows = files.read_lines(folder.path / "ablation.jsonl")[0]
        show(plan, rows, repeated)
        ablation_manifest.describe(plan, folder, chosen, call)
        outcome = train_all(plan, folder, rows, progress, repeated, until)
    except InterruptError:
        return INTERRUPTED
    finally:
        progress.close()
    _say(outcome, progress)
    if outcome.interrupted:
        return INTERRUPTED
    return int(any(outcome.statuses[word] for word in BROKEN))


def folder_of(ablation: Ablation, impl: str) -> Path:
    """The default run folder of an ablation by an implementation."""
    other = f"-{impl}" if impl != ablation.impl else ""
    return paths.run_folder(f"ablation-{ablation.name}{other}")


def pages(name: str, impl: str | None, out: Path | None, html: Path | None) -> int:
    """Render an ablation's pages, where what that needs is installed; 1 = one is incomplete.

    Args:
        html: folder of the pages; None = one of its own below the usual one.
    """
    ablation = load_ablation(name)
    place = out or folder_of(ablation, impl or ablation.impl)
    if (missing := report.lacking()) is not None:
        print(
            f"no pages: rendering needs {missing}, which is not installed here; "
            f"`quasibench report --out {place}` renders the rows elsewhere"
        )
        return 0
    try:
        print(report.render(place, html or paths.html_folder() / place.name))
    except report.ReportFailedError as error:
        print(f"quasibench: {error}", file=sys.stderr)
        return 1
    return 0


def _with_data(ablation: Ablation, data: Sequence[str]) -> Ablation:
    """The ablation with the local files that were given.

    Raises:
        UsageError: a task that reads no file, or is none of the ablation's.
    """
    found = list(ablation.tasks)
    for given in data:
        name, _, path = given.partition("=")
        known = [one.task.name for one in found]
        if name not in known or not path:
            raise UsageError(
                f"--data {given!r}: give task=file{nearest(name, known)} (tasks: "
                f"{', '.join(known)})"
            )
        at = known.index(name)
        if "file" not in found[at].task.options:
            raise UsageError(f"--data {given!r}: task {name!r} reads no local file")
        found[at] = replace(found[at], options={**found[at].options, "file": path})
    return replace(ablation, tasks=tuple(found))


def _only(ablation: Ablation, only: Sequence[str]) -> dict[str, set[str]]:
    """The filters by field.

    Raises:
        UsageError: another field than task and arm, or a word that is none.
    """
    known = {
        "task": tuple(one.task.name for one in ablation.tasks),
        "arm": tuple(arm.name for arm in ablation.arms),
    }
    out: dict[str, set[str]] = {}
    for given in only:
        key, _, values = given.partition("=")
        if key not in known or not values:
            raise UsageError(
                f"--only {given!r}: give task=... or arm=...{nearest(key, tuple(known))}"
            )
        for value in values.split(","):
            if value not in known[key]:
                raise UsageError(
                    f"--only {given!r}: there is no {key} {value!r}{nearest(value, known[key])} "
                    f"({key}s: {', '.join(known[key])})"
                )
            out.setdefault(key, set()).add(value)
    return out


def _retry(given: str | None) -> frozenset[str]:
    found = frozenset((given or "").split(",")) - {""}
    if strange := sorted(found - FINAL):
        raise UsageError(
            f"--retry {given}: {strange[0]!r} is no status that stands"
            f"{nearest(strange[0], FINAL)} (statuses: {', '.join(sorted(FINAL))})"
        )
    return found


def show(plan: Plan, rows: Sequence[Mapping[str, Any]], retry: frozenset[str]) -> None:
    """Print the cells, what is open of them, the estimate, the hash and the deviations."""
    console = Console(highlight=False)
    done, cost = done_rows(list(rows), retry), Cost(rows)  # type: ignore[arg-type]
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("task", "arm", "contrast", "budget", "H", "parameters", "steps", "runs", "time"):
        left = title in ("task", "arm", "contrast", "budget")
        table.add_column(title, justify="left" if left else "right")
    for cell in plan.cells:
        count = open_count(cell, done)
        table.add_row(
            cell.asked.task.name, cell.arm.name, cell.contrast, cell.mode,
            str(cell.net.core.hidden_size), f"{cell.params:,}", str(cell.steps), str(count),
            f"{cost.cell_s(cell, count):.0f} s",
        )  # fmt: skip
    console.print(table)
    least, most = plan.most_runs
    wider = f" (up to {most} where a learning rate lies at an edge)" if most > least else ""
    at_once = workers(plan)
    seconds = cost.plan_s(plan, done, at_once)
    console.print(
        f"\n{plan.ablation.name}: {least} trainings{wider}, "
        f"{sum(open_count(cell, done) for cell in plan.cells)} open; about {words(seconds)} at "
        f"{at_once} at a time; plan {plan.plan_hash[:12]}",
        soft_wrap=True,
    )
    for task in plan.left_out:
        console.print(f"left out: {task}, exploratory on a file of yours: --data {task}=FILE")
    for deviation in plan.deviations:
        console.print(f"deviation: {deviation}", markup=False, soft_wrap=True)


def _say(outcome: Outcome, progress: Progress) -> None:
    """One line about how it ended."""
    parts = [f"{count} {status}" for status, count in sorted(outcome.statuses.items())]
    progress.note(f"trainings: {', '.join(parts) or 'nothing was left to train'}")
