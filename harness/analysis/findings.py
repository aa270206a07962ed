"""What training runs say, in words: the answer, task by task, and where the run left its plan."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from harness.ablation.accuracy import Ablation
from harness.analysis import effects, outcomes
from harness.analysis.contrasts import ENOUGH, Estimate, Paired
from harness.analysis.effects import (
    ABSENT,
    BETTER,
    EXPLORATORY,
    LITTLE_BETTER,
    LITTLE_WORSE,
    NONE,
    OPEN,
    UNINFORMATIVE,
    WORSE,
    Contrast,
)
from harness.analysis.outcomes import Arm, Subject
from harness.summary import count, listing

EMPTY = "No training run is recorded in this folder; `quasibench ablate` makes some."
SAID = (BETTER, LITTLE_BETTER, WORSE, LITTLE_WORSE, NONE, OPEN, UNINFORMATIVE, ABSENT)
"""Verdicts in the order in which they are told."""
WORDS = {
    EXPLORATORY: f"exploratory, fewer than {ENOUGH} seeds",
    UNINFORMATIVE: "uninformative at this budget",
}

TURNED = {
    BETTER: WORSE, WORSE: BETTER, LITTLE_BETTER: LITTLE_WORSE, LITTLE_WORSE: LITTLE_BETTER,
    NONE: "equally",
}  # fmt: skip
"""Verdicts from the reference's side."""


def signed(value: float) -> str:
    """Points with their sign, e.g. "+20.8", "−3.0"; two decimals below a tenth, "0" for nothing."""
    if abs(value) < 0.005:
        return "0"
    return f"{value:+.{1 if abs(value) >= 0.095 else 2}f}".replace("-", "−")


def bracketed(found: Paired | Estimate) -> str:
    """The 95 % interval of a difference, "" where there is none."""
    if not math.isfinite(found.lo):
        return ""
    return f"[{signed(found.lo)}, {signed(found.hi)}]".replace("+", "")


def span(one: Contrast) -> str:
    """The 95 % interval, below 8 seeds the lowest and the highest seed, "" with one seed."""
    if one.result is None or one.result.n < 2:
        return ""
    if one.result.n >= ENOUGH:
        return bracketed(one.result)
    low, high = reach(one)
    return f"{signed(low)} to {signed(high)}"


def reach(one: Contrast) -> tuple[float, float]:
    """Ends of the 95 % interval, below 8 seeds of the seeds' own differences.

    Student's interval of two seeds is 18 times as wide as their distance and says nothing.
    """
    assert one.result is not None
    if one.result.n >= ENOUGH:
        return one.result.lo, one.result.hi
    gaps = np.subtract(*outcomes.shared(one.arm.scores, one.reference.scores))
    return float(gaps.min()), float(gaps.max())


def difference(one: Contrast) -> str:
    """ "+20.8 [19.7, 21.9]", or what stands in its place."""
    if one.result is None:
        return one.remarks[0] if one.remarks else ABSENT
    return f"{signed(one.result.mean)} {span(one)}".strip()


def verdict(study: Ablation) -> list[str]:
    """The result of all training runs in sentences, the answer first."""
    out = []
    found = outcomes.subjects(study)
    for subject in found:
        told = [*answer(study, subject), *by_task(told_of(study, subject)).values()]
        out += [f"{subject.name}: {told[0]}", *told[1:]] if len(found) > 1 else told
    return out or [EMPTY]


def told_of(study: Ablation, subject: Subject) -> list[Contrast]:
    """The contrasts with the reference, then those of the reference with itself."""
    return effects.contrasts(study, subject) + effects.controls(study, subject)


def answer(study: Ablation, subject: Subject) -> list[str]:
    """What an LSTM scores beside the reference, and how many contrasts ended how."""
    every = told_of(study, subject)
    made = [one for one in every if one.kind != "control"]
    told = [*_beside_lstm(study, made), *_tally(made), *_false_alarms(every), *_few_seeds(every)]
    return told or ["No arm shares a finished seed with the reference yet."]


def by_task(made: Sequence[Contrast]) -> dict[str, str]:
    """Task -> one sentence with every contrast, grouped by its verdict; controls come last."""
    out = {}
    for task in dict.fromkeys(one.arm.task.name for one in made):
        here = [one for one in made if one.arm.task.name == task]
        own = [one for one in here if one.kind != "control"]
        parts = [_told(word, [one for one in own if one.verdict == word]) for word in SAID]
        early = [one for one in own if one.verdict == EXPLORATORY and one.result is not None]
        early.sort(key=lambda one: -one.result.mean if one.result else 0.0)
        if early:
            words = listing([f"{one.label} {_higher(one.result)}" for one in early], 12)
            parts.insert(0, f"{words} ({WORDS[EXPLORATORY]})")
        same = [one for one in here if one.kind == "control" and one.result is not None]
        parts += [
            f"the reference with other seeds ({one.label}): {difference(one)}, "
            f"p {one.result.p:.2g}, {'' if one.marked else 'not '}rejected"
            for one in same
            if one.result is not None
        ]
        mean = here[0].reference.mean
        level = "no finished run" if math.isnan(mean) else f"{mean:.1f} points"
        head = f"{task} (reference {level})"
        out[task] = f"{head}: {'; '.join(filter(None, parts))}."
    return out


def _told(verdict: str, own: list[Contrast]) -> str:
    """One verdict with the arms that got it."""
    if not own:
        return ""
    if verdict in (UNINFORMATIVE, ABSENT):
        reasons = listing(list(dict.fromkeys(one.remarks[0] for one in own)), 3, "; ")
        return f"{WORDS.get(verdict, verdict)}: {listing([o.label for o in own], 12)} ({reasons})"
    sure = sorted(own, key=lambda one: -abs(one.result.mean) if one.result else 0.0)
    return f"{verdict}: {listing([f'{o.label} {difference(o)}' for o in sure], 12)}"


def _higher(found: Paired | None) -> str:
    if found is None:
        return ABSENT
    if abs(found.mean) < 0.005:
        return "the same"
    return f"{signed(found.mean)[1:]} points {'higher' if found.mean > 0 else 'lower'}"


def reference_words(study: Ablation) -> str:
    """The reference in a few words, e.g. "fo, K = 2, 2 layers, 64 units"; "" where unknown."""
    found = study.baseline
    words = {
        "pooling": "{}", "kernel_width": "K = {}", "layers": "{} layers", "hidden_size": "{} units"
    }  # fmt: skip
    return ", ".join(form.format(found[key]) for key, form in words.items() if key in found)


def _beside_lstm(study: Ablation, made: Sequence[Contrast]) -> Iterable[str]:
    """The reference beside an LSTM: the size of both, and the score of every task."""
    own = [one for one in made if is_lstm(one.arm) and one.arm.mode == "as_is"]
    groups: dict[str, list[str]] = {}
    for one in own:
        if one.result is not None:
            gap = 0.0 - one.result.mean
            turned = TURNED.get(one.verdict, one.verdict)
            if one.verdict == EXPLORATORY:
                turned = "higher" if gap > 0 else "lower"
            points = "" if turned == UNINFORMATIVE else f" ({signed(gap)} points)"
            groups.setdefault(turned, []).append(f"{one.arm.task.name}{points}")
    order = [BETTER, LITTLE_BETTER, "higher", WORSE, LITTLE_WORSE, "lower", "equally"]
    scored = [f"{word} on {listing(groups[word], 12)}" for word in order if word in groups]
    told = [f"scores {listing(scored, 9)}"] if scored else []
    for word, saying in ((OPEN, "not resolved on"), (UNINFORMATIVE, "nothing to be said on")):
        told += [f"{saying} {listing(groups[word], 12)}"] if word in groups else []
    if told:
        lstm, size = (_size([getattr(one, side) for one in own]) for side in ("arm", "reference"))
        family = study.baseline.get("family", "qrnn") if study.baseline else "reference"
        who = "QRNN" if family == "qrnn" else "reference"
        words = ", ".join(filter(None, [reference_words(study), size]))
        sides = f"an LSTM{f' ({lstm})' * bool(lstm)} the {who}{f' ({words})' * bool(words)}"
        early = any(one.verdict == EXPLORATORY for one in own)
        start = "Exploratory: beside" if early else "Beside"
        yield f"{start} {sides}{'' if scored else ':'} {'; '.join(told)}."


def _size(arms: Sequence[Arm]) -> str:
    """Parameters of an arm over its tasks, e.g. "51 to 53 thousand parameters"; "" if unknown."""
    known = [size for arm in arms if (size := median_of(arm, "params")) is not None]
    if not known:
        return ""
    large = min(known) >= 10_000
    sizes = [f"{size / 1e3 if large else size:,.0f}" for size in (min(known), max(known))]
    return f"{' to '.join(dict.fromkeys(sizes))}{' thousand' if large else ''} parameters"


def _false_alarms(made: Sequence[Contrast]) -> Iterable[str]:
    """How many contrasts of the reference with itself were rejected."""
    own = [one for one in made if one.kind == "control" and one.result is not None]
    if own:
        rejected = sum(one.marked for one in own)
        seeds = listing([str(n) for n in sorted({o.result.n for o in own if o.result})])
        yield (
            f"{rejected} of {count(len(own), 'control contrast')} of the reference with itself "
            f"under other seeds ({seeds} seeds) {'is' if rejected == 1 else 'are'} rejected at "
            "5 %; expected none."
        )


def _tally(made: Sequence[Contrast]) -> Iterable[str]:
    """How many primary contrasts ended with which verdict."""
    own = [one for one in made if one.kind == "primary"]
    if not own:
        return
    amounts = [(word, sum(one.verdict == word for one in own)) for word in (*SAID, EXPLORATORY)]
    told = listing([f"{amount} {word}" for word, amount in amounts if amount], 9, "; ")
    tasks = count(len({one.arm.task.name for one in own}), "task")
    seeds = sorted({one.result.n for one in own if one.result is not None})
    ends = " to ".join(str(n) for n in dict.fromkeys([*seeds[:1], *seeds[-1:]]))
    ns = f" ({ends} seeds)" if ends else ""
    end = " (Holm within each task)" if any(one.verdict in SAID[:6] for one in own) else ""
    yield (
        f"Of {count(len(own), 'primary contrast')} with the reference on {tasks}{ns}: {told}{end}."
    )


def _few_seeds(made: Sequence[Contrast]) -> Iterable[str]:
    shared = [one.result.n for one in made if one.result is not None]
    if shared and max(shared) < ENOUGH:
        yield (
            f"At most {count(max(shared), 'seed')} per arm: this shows where to look and proves "
            f"nothing; a claim needs at least {ENOUGH}."
        )


def is_lstm(arm: Arm) -> bool:
    """Whether the arm is a network of LSTM layers."""
    return (next(iter(arm.rows.values())).get("changes") or {}).get("family") == "lstm"


def values_of(arm: Arm, column: str) -> list[float]:
    """A column over the arm's finished runs, in the order of their seeds; [] where none knows it.

    "cpu_ms" is process CPU time over steps, in ms: training with its evaluations, no start-up.
    """
    rows = [row for row in arm.rows.values() if row["status"] == "ok"]
    if column == "cpu_ms":
        return [1e3 * float(row["cpu_s"]) / float(row["steps_done"]) for row in rows
                if row.get("cpu_s") is not None and row.get("steps_done")]  # fmt: skip
    return [float(row[column]) for row in rows if row.get(column) is not None]


def median_of(arm: Arm, column: str) -> float | None:
    """Median of `values_of`; None where no run knows it."""
    known = values_of(arm, column)
    return float(np.median(known)) if known else None


def changed(fields: Mapping[str, object]) -> str:
    """Fields with their values in words, e.g. "kernel width 4, dense"."""
    words = (
        f"{'' if value else 'not '}{key.replace('_', ' ')}"
        if isinstance(value, bool)
        else f"{key.replace('_', ' ')} {value}"
        for key, value in fields.items()
    )
    return ", ".join(words)
