"""Who was trained with what outcome: the final runs of every arm, and whether a task separates.

Rules, the same for every arm and set before any run:

* a final run that diverged, crashed, ran out of time or memory, or gave no number is a failure: it
  scores the task's chance level and never reaches the target. It is never left out;
* a run that is missing or interrupted, or whose arm the implementation does not offer, has no
  score; only seeds that both arms finished are compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from harness.ablation.accuracy import FAILED as FAILED  # readers of outcomes ask for it here
from harness.ablation.accuracy import Ablation, TaskFacts
from harness.analysis.contrasts import ALPHA, ENOUGH, MARGIN, Paired, paired
from harness.files import Row

Place = tuple[str, str, str]
"""(task, arm, budget mode)."""


@dataclass(frozen=True)
class Subject:
    """Who was trained: an implementation on a device in a number format."""

    impl: str
    framework: str
    device: str
    dtype: str

    @property
    def name(self) -> str:
        """In words; the usual device and format are not said."""
        usual = {"device": "cpu", "dtype": "float32"}
        more = [
            str(getattr(self, key)) for key, value in usual.items() if getattr(self, key) != value
        ]
        return ", ".join([self.impl, *more])


@dataclass(frozen=True)
class Arm:
    """The final runs of one arm on one task in one budget mode.

    Attributes:
        scores: points by seed, failures at chance; raw: the task's own metric by seed.
        failed: status by seed of the failures; unavailable: statuses of rows without a score.
        rows: the final rows by seed.
    """

    task: TaskFacts
    name: str
    mode: str
    scores: dict[int, float]
    failed: dict[int, str]
    unavailable: tuple[str, ...]
    rows: dict[int, Row]

    @property
    def kind(self) -> str:
        """reference, primary, secondary or control; a second budget mode makes secondary."""
        kind = str(next(iter(self.rows.values()))["contrast"])
        return "secondary" if kind == "primary" and self.mode != "as_is" else kind

    @property
    def label(self) -> str:
        """The name, and the budget mode where that is not the usual one."""
        return self.name if self.mode == "as_is" else f"{self.name} ({self.mode})"

    @property
    def mean(self) -> float:
        """Mean points over seeds; nan without any."""
        return float(np.mean(list(self.scores.values()))) if self.scores else float("nan")

    @property
    def scaled(self) -> dict[int, float]:
        """0 at chance, 1 at the ceiling, by seed."""
        low, high = self.task.chance_points, self.task.points(self.task.ceiling)
        return {seed: (value - low) / (high - low) for seed, value in self.scores.items()}

    def steps_to_target(self) -> list[float]:
        """Steps until the target by seed, infinite where it was never reached or the run failed."""
        return [
            float("inf")
            if seed in self.failed or row.get("steps_to_target") is None
            else float(row["steps_to_target"])
            for seed, row in sorted(self.rows.items())
            if seed in self.scores
        ]


@dataclass(frozen=True)
class Separation:
    """Whether a task's known-good and known-bad arms differ; None = they were not both run."""

    task: str
    separated: bool | None
    words: str


def subjects(study: Ablation) -> list[Subject]:
    """Whose reference arm was run, in the order of the rows."""
    found = [row for row in study.rows if row.get("contrast") == "reference"]
    keys = ("impl", "framework", "device", "dtype")
    return list(dict.fromkeys(Subject(*(str(row[key]) for key in keys)) for row in found))


def arms(study: Ablation, subject: Subject) -> dict[Place, Arm]:
    """The final runs of a subject by (task, arm, budget mode), in the order of the plan.

    An arm that this implementation never ran is taken from another one of the same framework,
    device and format: an LSTM is its own implementation.
    """
    near = [row for row in study.rows if row["role"] == "final" and _near(row, subject)]
    own = {
        _place(row)
        for row in near
        if row["impl"] == subject.impl and row["status"] != "unsupported"
    }
    kept = [row for row in near if row["impl"] == subject.impl or _place(row) not in own]
    groups: dict[Place, dict[int, Row]] = {}
    for row in kept:
        seeds = groups.setdefault(_place(row), {})
        if row["status"] != "unsupported" or row["seed"] not in seeds:
            seeds[int(row["seed"])] = row
    order = {name: number for number, name in enumerate(study.arms)}
    tasks = list(study.tasks)

    def planned(place: Place) -> tuple[int, int, bool]:
        task, arm, mode = place
        return tasks.index(task), order.get(arm, len(order)), mode != "as_is"

    places = sorted(groups, key=planned)
    return {place: _arm(study.tasks[place[0]], place, groups[place]) for place in places}


def _near(row: Row, subject: Subject) -> bool:
    same = all(row[key] == getattr(subject, key) for key in ("framework", "device", "dtype"))
    return same and (row["impl"] == subject.impl or row["contrast"] != "reference")


def _place(row: Row) -> Place:
    return str(row["task"]), str(row["arm"]), str(row["budget_mode"])


def _arm(task: TaskFacts, place: Place, rows: Mapping[int, Row]) -> Arm:
    scores, failed, unavailable = {}, {}, []
    for seed, row in sorted(rows.items()):
        if row["status"] in FAILED or (row["status"] == "ok" and row["metric"] is None):
            failed[seed] = str(row["status"])
            scores[seed] = task.chance_points
        elif row["status"] == "ok":
            scores[seed] = task.points(float(row["metric"]))
        else:
            unavailable.append(str(row["status"]))
    return Arm(task, place[1], place[2], scores, failed, tuple(unavailable), dict(rows))


def shared(arm: dict[int, float], other: dict[int, float]) -> tuple[list[float], list[float]]:
    """The values of both at the seeds that both have."""
    seeds = sorted(set(arm) & set(other))
    return [arm[seed] for seed in seeds], [other[seed] for seed in seeds]


def versus(arm: Arm, other: Arm) -> Paired | None:
    """The two arms over the seeds that both finished; None where they share none."""
    ours, theirs = shared(arm.scores, other.scores)
    return paired(ours, theirs) if ours else None


def separation(study: Ablation, subject: Subject, task: str) -> Separation:
    """Whether the known-good arm of a task beats its known-bad arm at this budget.

    With at least 8 shared seeds by the sign-flip test at 5 %, with fewer if every seed agrees;
    in both cases by more than the margin.
    """
    facts, found = study.tasks[task], arms(study, subject)
    good, bad = (found.get((task, name or "", "as_is")) for name in (facts.good, facts.bad))
    if good is None or bad is None:
        return Separation(task, None, "the known-good and known-bad arms were not both run")
    gap = versus(good, bad)
    if gap is None:
        return Separation(task, None, "the known-good and known-bad arms share no finished seed")
    sure = gap.p < ALPHA if gap.n >= ENOUGH else gap.improved == 1.0
    separated = bool(sure and gap.mean > MARGIN)
    means = f"known-good arm {good.name} {good.mean:.1f}, known-bad arm {bad.name} {bad.mean:.1f}"
    words = means if separated else f"{means}: they do not separate"
    return Separation(task, separated, words)


def control(study: Ablation, subject: Subject, task: str) -> tuple[Arm, Arm] | None:
    """The same arm as the reference with other seeds (A/A), and the reference; None: not run.

    Their scores are numbered by the order of their seeds, which share nothing: any pairing will do.
    """
    found = arms(study, subject)
    same = [arm for arm in found.values() if arm.task.name == task and arm.mode == "as_is"]
    reference = next((arm for arm in same if arm.kind == "reference"), None)
    for arm in same:
        changed = next(iter(arm.rows.values())).get("changes")
        disjoint = reference and not set(arm.rows) & set(reference.rows)
        if reference and arm.kind == "control" and disjoint and not changed:
            return _numbered(arm), _numbered(reference)
    return None


def _numbered(arm: Arm) -> Arm:
    return replace(arm, scores=dict(enumerate(arm.scores.values())))
