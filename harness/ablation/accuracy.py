"""The recorded training runs of a folder: newest rows, learning curves, and what was planned.

`ablation.jsonl` has one line per run, `curves.jsonl` one per run with its evaluations, and
`manifest["ablation"]` the plan as it was registered:

    name, impl, plan_hash, deviations (sentences),
    command: reproduces all of it; call: {ablation (name or path), text, options},
    plans: [{plan_hash, registered_at, registered}], every plan that was ever registered here,
    registered: {seeds, baseline: {field: value}, learning_rates,
                 arms: [{name, changes, contrast, tasks}], tasks: [{name, seeds, arms}]},
    tasks: {task: {about, version, metric, higher_is_better, chance, ceiling, target, good, bad}}

where `good` and `bad` name arms. Readers ignore further keys. Needs no table library.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from harness import files
from harness.errors import UsageError
from harness.files import Row
from harness.store import SCHEMA_VERSION

ROWS, CURVES = "ablation.jsonl", "curves.jsonl"
FAILED = ("diverged", "crash", "timeout", "nonfinite", "oom_host", "oom_device", "mismatch")
"""Statuses of a training that was tried and counts as a failure."""
FINAL = frozenset({"ok", "unsupported", *FAILED})
"""Statuses that end a training. Others ("interrupted", "skipped", "missing": nothing came of it)
leave it open, and never take the place of a final row."""
FRACTIONS = ("accuracy", "exact_match")
"""Metrics whose own hundredths are points; all others are scaled from chance to ceiling."""


@dataclass(frozen=True)
class TaskFacts:
    """What a task says of its own scores.

    Attributes:
        chance, ceiling: the metric of a guess and of a perfect answer; of errors the ceiling is
            the lower number.
        target: the metric that counts as learned (steps to target).
        good, bad: names of the arms that are known to learn it and not to; None = not trained.
    """

    name: str
    metric: str = "accuracy"
    higher_is_better: bool = True
    chance: float = 0.0
    ceiling: float = 1.0
    target: float | None = None
    good: str | None = None
    bad: str | None = None
    about: str = ""
    version: int | None = None

    def scaled(self, metric: float) -> float:
        """0 at chance, 1 at the ceiling, higher is better whatever the metric."""
        return (metric - self.chance) / (self.ceiling - self.chance)

    def points(self, metric: float) -> float:
        """Hundredths of a fraction, or of the way from chance to ceiling; higher is better."""
        return 100.0 * (metric if self.metric in FRACTIONS else self.scaled(metric))

    @property
    def chance_points(self) -> float:
        """`points` of a guess: what a run that failed counts as."""
        return self.points(self.chance)


@dataclass(frozen=True)
class Ablation:
    """Everything that is recorded of the training runs of one folder.

    Attributes:
        rows: the newest row of every run, in the order of their first writing.
        curves: by row_key, with lists steps, validation, test, loss.
        tasks: by name, for every task in the plan or in a row.
        planned: `manifest["ablation"]`, {} where there is none.
        notes: remarks about the files.
    """

    rows: list[Row]
    curves: dict[str, Row] = field(default_factory=dict)
    tasks: dict[str, TaskFacts] = field(default_factory=dict)
    planned: Row = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def plan(self) -> Row:
        """What was registered, {} where the manifest holds nothing of it."""
        return dict(self.planned.get("registered") or {})

    @property
    def command(self) -> str | None:
        """The command that trains all of it again; None in manifests that do not say it."""
        return self.planned.get("command")

    @property
    def plans(self) -> list[Row]:
        """Every plan registered in the folder, oldest first: plan_hash, registered_at, registered.

        Empty in manifests that keep none.
        """
        return [dict(one) for one in self.planned.get("plans") or ()]

    @property
    def registered_at(self) -> str | None:
        """When today's plan was registered; None where unknown."""
        today = self.planned.get("plan_hash")
        return next((p["registered_at"] for p in self.plans if p["plan_hash"] == today), None)

    @property
    def foreign(self) -> list[Row]:
        """Final rows whose training was made under another plan than today's."""
        today = self.planned.get("plan_hash")
        return [
            row for row in self.rows
            if row["status"] in FINAL and (row.get("trained_under") or row["plan_hash"]) != today
        ]  # fmt: skip

    @property
    def before_plan(self) -> list[Row]:
        """Those of `foreign` that began before today's plan was registered."""
        since = self.registered_at and datetime.fromisoformat(self.registered_at)
        return [
            row
            for row in self.foreign
            if not since or datetime.fromisoformat(row["started_at"]) < since
        ]

    @property
    def baseline(self) -> Row:
        """Every field of the reference arm; {} where unknown."""
        return dict(self.plan.get("baseline") or {})

    @property
    def arms(self) -> dict[str, Row]:
        """The planned arms by name, the reference first."""
        return {str(arm["name"]): arm for arm in self.plan.get("arms") or ()}

    def seeds(self, task: str) -> int | None:
        """How many final seeds are planned on a task; None where unknown."""
        return self._asked(task).get("seeds", self.plan.get("seeds"))

    def trained(self, task: str) -> list[str]:
        """Names of the arms that the plan trains on a task."""
        chosen = self._asked(task).get("arms")
        return [
            name for name, arm in self.arms.items()
            if task in (arm.get("tasks") or [task])
            and (chosen is None or name in chosen or arm.get("contrast") == "reference"
                 or arm.get("tasks"))
        ]  # fmt: skip

    def _asked(self, task: str) -> Row:
        found = [one for one in self.plan.get("tasks") or () if one.get("name") == task]
        return dict(found[0]) if found else {}


def load(folder: str | Path) -> Ablation:
    """The training runs of a run folder; empty where none was recorded.

    Raises:
        UsageError: rows of another schema, a damaged line before the last, a damaged manifest.
    """
    folder = Path(folder)
    planned = _planned(folder / "manifest.json")
    rows, notes = newest(folder / ROWS)
    rows, left = _of_the_same_streams(rows, planned)
    rows = list(standing(rows, _run).values())
    curves, more = newest(folder / CURVES)
    said = planned.get("tasks") or {}
    names = [*said, *(str(row["task"]) for row in rows)]
    tasks = {name: _facts(name, said.get(name), rows) for name in dict.fromkeys(names)}
    by_key = {str(row["row_key"]): row for row in curves}
    return Ablation(rows, by_key, tasks, planned, notes + left + more)


def _of_the_same_streams(rows: list[Row], planned: Row) -> tuple[list[Row], list[str]]:
    """The rows without those that no seed of today's plan can be paired with, and a note on these.

    Under a plan with another root, or with another length of the task, the seed of the same number
    is another network on other data.
    """
    plans: dict[str, Row] = {p["plan_hash"]: p["registered"] for p in planned.get("plans") or ()}
    today: Row = planned.get("registered") or {}
    kept: list[Row] = []
    left: dict[str, int] = {}
    for row in rows:
        under = str(row.get("trained_under") or row["plan_hash"])
        stands = row["plan_hash"] == planned.get("plan_hash")
        other = today if stands else plans.get(under, today)
        if all(find(other, row["task"]) == find(today, row["task"]) for find in (_root, _steps)):
            kept.append(row)
        else:
            left[under[:12]] = left.get(under[:12], 0) + 1
    return kept, [
        f"{number} trainings under plan {under} are left out: it has another root or other steps."
        for under, number in left.items()
    ]


def _root(registered: Row, _task: str) -> object:
    return registered.get("root")


def _steps(registered: Row, task: str) -> object:
    return next((o.get("steps") for o in registered.get("tasks") or () if o["name"] == task), None)


def newest(path: Path) -> tuple[list[Row], list[str]]:
    """The line of every row_key that counts (see `standing`), and a note on a torn last one.

    Raises:
        UsageError: a line of another schema or without a row_key, or a damaged one.
    """
    found, torn = files.read_lines(path)
    for row in found:
        version = row.get("schema_version", SCHEMA_VERSION)
        if version != SCHEMA_VERSION or "row_key" not in row:
            raise UsageError(
                f"{path}: a line of schema version {version!r} or without a row_key; this program "
                f"reads schema version {SCHEMA_VERSION}, start a new run folder"
            )
    return list(standing(found).values()), [torn] if torn else []


def standing(
    rows: Iterable[Row], key_of: Callable[[Row], Any] = lambda row: str(row["row_key"])
) -> dict[Any, Row]:
    """By row_key its newest final row, else its newest one; a curve's line is final."""
    by_key: dict[Any, Row] = {}
    for row in rows:
        key = key_of(row)
        old = by_key.get(key)
        if old is None or row.get("status", "ok") in FINAL or old["status"] not in FINAL:
            by_key.pop(key, None)
            by_key[key] = row
    return by_key


def _run(row: Row) -> tuple[object, ...]:
    """Which run of the plan a row is about, whatever its row_key became when code changed."""
    keys = "impl device dtype task arm budget_mode role seed".split()
    rate = row["learning_rate"] if row["role"] == "tune" else None
    return *(row[key] for key in keys), rate


def recorded(folder: str | Path) -> bool:
    """Whether a folder holds a training run."""
    path = Path(folder) / ROWS
    return path.is_file() and path.stat().st_size > 0


def _planned(path: Path) -> Row:
    if not path.is_file():
        return {}
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(f"{path}: not valid JSON ({error})") from None
    found = manifest.get("ablation") if isinstance(manifest, dict) else None
    return dict(found) if isinstance(found, Mapping) else {}


def _facts(name: str, said: object, rows: list[Row]) -> TaskFacts:
    """The planned facts of a task; of one that no plan knows, what its rows tell."""
    if isinstance(said, Mapping):
        known = {key: said[key] for key in TaskFacts.__dataclass_fields__ if key in said}
        guesses = [row["chance"] for row in rows if row["task"] == name and row.get("chance")]
        if guesses:  # that of the data themselves
            known["chance"] = statistics.median(guesses)
        return TaskFacts(**{**known, "name": name})
    metrics = [str(row["metric_name"]) for row in rows if row["task"] == name]
    metric = metrics[-1] if metrics and metrics[-1] != "None" else "accuracy"
    if metric in FRACTIONS:
        return TaskFacts(name, metric)
    raise UsageError(
        f"task {name!r} has metric {metric!r}, and the run's plan does not say its chance level "
        "and ceiling (ablation.tasks of its manifest)"
    )
