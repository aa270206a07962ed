"""From recorded training runs to contrasts with a verdict: which arm differs from the reference?

Set before any run, beside the rules of `harness.analysis.outcomes`:

* Holm over the primary contrasts within one task (those without a score count as p = 1),
  Benjamini-Hochberg over the other contrasts of that task; both for the test of a difference and
  for the one of equivalence (TOST);
* the difference comes first: what its corrected test rejects is "better" or "worse", with "but by
  less than 1 point" where the corrected TOST holds too; "no effect" needs that TOST and no
  rejection;
* fewer than 8 shared seeds are "exploratory", whatever they show;
* a task whose known-good and known-bad arms do not separate is "uninformative at this budget", and
  so is a contrast of two arms that both stay at chance.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from harness.ablation.accuracy import Ablation
from harness.analysis.contrasts import (
    ALPHA,
    ENOUGH,
    MARGIN,
    Estimate,
    Paired,
    across_tasks,
    benjamini_hochberg,
    holm,
)
from harness.analysis.outcomes import (
    Arm,
    Place,
    Separation,
    Subject,
    arms,
    control,
    separation,
    shared,
    versus,
)

CEILING, FLOOR = 0.99, 0.02
"""Scaled scores from which on a task is solved, and down from which nothing is learned."""
BETTER, WORSE, NONE, OPEN = "better", "worse", "no effect", "not resolved"
A_LITTLE = f", but by less than {MARGIN:g} point"
LITTLE_BETTER, LITTLE_WORSE = BETTER + A_LITTLE, WORSE + A_LITTLE
EXPLORATORY, UNINFORMATIVE = "exploratory", "uninformative"
ABSENT = "no result"
SEED = 0


@dataclass(frozen=True)
class Contrast:
    """One arm against the reference on one task.

    Attributes:
        kind: "primary", "secondary" or "control"; result: None without a shared seed.
        p_adjusted: Holm's p of a primary (and of a control), Benjamini and Hochberg's of a
            secondary contrast; p_equivalent: the same of the two one-sided tests.
        verdict: "better" or "worse", each alone or with "but by less than 1 point", "no effect",
            "not resolved", "exploratory", "uninformative" or "no result"; remarks: what a reader
            must know beside it.
    """

    subject: Subject
    arm: Arm
    reference: Arm
    kind: str
    result: Paired | None
    p_adjusted: float = 1.0
    p_equivalent: float = 1.0
    verdict: str = ABSENT
    remarks: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """The arm, and its budget mode where that is not the usual one."""
        return self.arm.label

    @property
    def marked(self) -> bool:
        """Whether the adjusted test alone says that the arms differ, with enough seeds."""
        enough = self.result is not None and self.result.n >= ENOUGH
        return enough and self.p_adjusted < ALPHA


def contrasts(study: Ablation, subject: Subject) -> list[Contrast]:
    """Every arm of a subject against its reference, tested, adjusted and judged."""
    found, raw = arms(study, subject), []
    for (task, _, mode), arm in found.items():
        kind = arm.kind
        reference = _reference(found, task, mode)
        if kind in ("primary", "secondary") and reference is not None:
            result = versus(arm, reference)
            raw.append(Contrast(subject, arm, reference, kind, result))
    return _all_judged(raw, study, subject)


def controls(study: Ablation, subject: Subject) -> list[Contrast]:
    """The reference against itself with other seeds (A/A), judged by the rules of all others.

    No difference is real here, so a "better" or "worse" is a false alarm.
    """
    pairs = [pair for task in study.tasks if (pair := control(study, subject, task))]
    raw = [Contrast(subject, a, b, "control", versus(a, b)) for a, b in pairs]
    return _all_judged(raw, study, subject)


def _all_judged(raw: list[Contrast], study: Ablation, subject: Subject) -> list[Contrast]:
    separated = {name: separation(study, subject, name) for name in study.tasks}
    out = []
    for one in _adjusted(raw, study):
        verdict, remarks = _judged(one, separated[one.arm.task.name])
        out.append(replace(one, verdict=verdict, remarks=remarks))
    return out


def _reference(found: Mapping[Place, Arm], task: str, mode: str) -> Arm | None:
    """The reference of a task in the same budget mode, else as it is."""
    own = {
        arm.mode: arm for (name, _, _), arm in found.items()
        if name == task and arm.kind == "reference"
    }  # fmt: skip
    return own.get(mode) or own.get("as_is")


def _primaries(study: Ablation, task: str) -> int:
    """How many primary arms are planned: the family is no smaller while some are missing."""
    planned = study.arms
    return sum(planned[name].get("contrast") == "primary" for name in study.trained(task))


def _adjusted(raw: list[Contrast], study: Ablation) -> list[Contrast]:
    """The contrasts with p values adjusted within their task and kind, order kept."""
    out = list(raw)
    methods = {"primary": holm, "secondary": benjamini_hochberg, "control": holm}
    for kind, method in methods.items():
        for task in dict.fromkeys(one.arm.task.name for one in raw):
            at = [i for i, one in enumerate(raw) if (one.kind, one.arm.task.name) == (kind, task)]
            known = [raw[i].result for i in at]
            none = [1.0] * (_primaries(study, task) - len(at) if kind == "primary" else 0)
            differ = method([1.0 if one is None else one.p for one in known] + none)
            same = method([1.0 if one is None else one.p_equivalent for one in known] + none)
            for i, p, q in zip(at, differ, same, strict=False):
                out[i] = replace(raw[i], p_adjusted=p, p_equivalent=q)
    return out


def _judged(one: Contrast, separated: Separation) -> tuple[str, tuple[str, ...]]:
    """The verdict of a contrast, and its remarks."""
    remarks = list(_remarks(one))
    if one.result is None:
        words = ", ".join(sorted(set(one.arm.unavailable))) or "no finished run"
        return ABSENT, (words,)
    if separated.separated is False:
        return UNINFORMATIVE, (separated.words, *remarks)
    if "both at chance" in remarks:
        return UNINFORMATIVE, tuple(remarks)
    if one.result.n < ENOUGH:
        return EXPLORATORY, tuple(remarks)
    small = one.p_equivalent < ALPHA
    if one.p_adjusted < ALPHA:
        word = BETTER if one.result.mean > 0 else WORSE
        return word + A_LITTLE * small, tuple(remarks)
    return NONE if small else OPEN, tuple(remarks)


def _remarks(one: Contrast) -> Iterable[str]:
    scaled = [
        float(np.mean(list(side.scaled.values())))
        for side in (one.arm, one.reference)
        if side.scores
    ]
    if len(scaled) == 2 and min(scaled) >= CEILING:
        yield "both at the ceiling"
    if len(scaled) == 2 and max(scaled) <= FLOOR:
        yield "both at chance"
    for who, side in (("", one.arm), ("reference: ", one.reference)):
        if side.failed:
            yield f"{who}{len(side.failed)} of {len(side.scores)} runs failed and count as chance"
        if any(row.get("lr_edge") for row in side.rows.values()):
            yield f"{who}best learning rate at the edge of the grid"


def overall(study: Ablation, subject: Subject) -> dict[str, tuple[Estimate, list[str]]]:
    """By arm: difference of interquartile means over tasks, in points, and the tasks in it.

    Scores are scaled from chance to ceiling. The tasks are those that separate and that every
    primary arm was trained on with at least 8 seeds; with fewer than two tasks there is nothing to
    take together.
    """
    found: dict[str, dict[str, Contrast]] = {}
    for one in contrasts(study, subject):
        task = one.arm.task.name
        enough = one.result is not None and one.result.n >= ENOUGH
        if enough and separation(study, subject, task).separated is not False:
            found.setdefault(one.label, {})[task] = one
    primaries = [own for own in found.values() if next(iter(own.values())).kind == "primary"]
    common = [task for task in study.tasks if primaries and all(task in own for own in primaries)]
    out: dict[str, tuple[Estimate, list[str]]] = {}
    for label, own in found.items():
        if len(common) > 1 and all(task in own for task in common):
            sides = [shared(own[t].arm.scaled, own[t].reference.scaled) for t in common]
            estimate = across_tasks(sides, SEED)
            points = Estimate(100 * estimate.value, 100 * estimate.lo, 100 * estimate.hi)
            out[label] = points, common
    return out
