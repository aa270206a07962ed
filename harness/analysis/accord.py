"""Do two implementations agree? The same contrasts, trained by each of them, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from harness.ablation.accuracy import Ablation
from harness.analysis import effects, findings, outcomes
from harness.analysis.effects import BETTER, LITTLE_BETTER, LITTLE_WORSE, WORSE, Contrast
from harness.analysis.outcomes import Subject
from harness.summary import count, listing

UP, DOWN = (BETTER, LITTLE_BETTER), (WORSE, LITTLE_WORSE)


@dataclass(frozen=True)
class Side:
    """One contrast as two implementations trained it; both have a result."""

    one: Contrast
    other: Contrast

    @property
    def gap(self) -> float:
        """Points by which the two differences differ."""
        assert self.one.result is not None
        assert self.other.result is not None
        return abs(self.one.result.mean - self.other.result.mean)

    @property
    def same_sign(self) -> bool:
        """Whether both differences point the same way; none points anywhere if one is 0."""
        assert self.one.result is not None
        assert self.other.result is not None
        return self.one.result.mean * self.other.result.mean >= 0.0

    @property
    def opposed(self) -> bool:
        """Whether one says better and the other worse."""
        verdicts = (self.one.verdict, self.other.verdict)
        return any(v in UP for v in verdicts) and any(v in DOWN for v in verdicts)


def sides(*studies: Ablation) -> dict[tuple[Subject, Subject], list[Side]]:
    """Every pair of subjects, in one folder or in several, with the contrasts that both trained."""
    made: dict[Subject, list[Contrast]] = {}
    for study in studies:
        for subject in outcomes.subjects(study):
            made.setdefault(subject, effects.contrasts(study, subject))
    out = {}
    for first, second in combinations(made, 2):
        theirs = {(one.arm.task.name, one.label): one for one in made[second]}
        both = [
            Side(one, other)
            for one in made[first]
            if (other := theirs.get((one.arm.task.name, one.label))) is not None
            and one.result is not None
            and other.result is not None
        ]
        if both:
            out[first, second] = both
    return out


def words(first: Subject, second: Subject, both: Sequence[Side]) -> str:
    """How many contrasts point the same way, the largest gap, and the disagreements by name."""
    same = sum(side.same_sign for side in both)
    widest = max(both, key=lambda side: side.gap)
    told = (
        f"{first.name} and {second.name}: {same} of {count(len(both), 'contrast')} have the same "
        f"sign; the differences are at most {widest.gap:.1f} points apart ({_named(widest)})."
    )
    apart = [_named(side) for side in both if not side.same_sign]
    if apart:
        told += f" Opposite signs: {listing(apart, 8, '; ')}."
    opposed = [_named(side) for side in both if side.opposed]
    if opposed:
        return f"{told} One says better and the other worse: {listing(opposed, 8, '; ')}."
    return f"{told} No contrast is better with one and worse with the other."


def _named(side: Side) -> str:
    means = (each.result.mean for each in (side.one, side.other) if each.result is not None)
    told = " against ".join(findings.signed(mean) for mean in means)
    return f"{side.one.label} on {side.one.arm.task.name}, {told}"
