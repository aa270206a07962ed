"""What does it cost in accuracy? The answer in words, task by task, and the forest plot."""

from __future__ import annotations

import math
from html import escape

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from harness.ablation.accuracy import Ablation
from harness.analysis import board, effects, findings, outcomes
from harness.analysis.contrasts import MARGIN, Estimate
from harness.analysis.effects import (
    BETTER,
    LITTLE_BETTER,
    LITTLE_WORSE,
    UNINFORMATIVE,
    WORSE,
    Contrast,
)
from harness.analysis.outcomes import Subject
from harness.plots import figure, tables
from harness.summary import listing

NOTHING = board.NOTHING
BLUE, RED = "#0173b2", "#c25400"
"""Higher and lower than the reference; they differ for colour-blind readers and in print."""


def answer(study: Ablation) -> figure.Html:
    """The result in words and the board of verdicts, one per implementation."""
    notes = [f'<p class="note">{escape(note)}</p>' for note in study.notes]
    return figure.Html(board.html(study), *notes)


def in_words(study: Ablation) -> figure.Html:
    """Task by task in sentences; whether each task separates; identical arms (A/A)."""
    parts = []
    for subject in (found := outcomes.subjects(study)):
        told = findings.by_task(findings.told_of(study, subject))
        items = [
            f"<li><b>{escape(task)}</b> {escape(words.removeprefix(task))}"
            f"<br>{escape(_checked(study, subject, task))}</li>"
            for task, words in told.items()
        ]
        parts += [f"<h3>{escape(subject.name)}</h3>"] * (len(found) > 1)
        parts.append(f"<ul>{''.join(items)}</ul>")
    return figure.Html(*(parts or [NOTHING]))


def _checked(study: Ablation, subject: Subject, task: str) -> str:
    """What the task asks, and whether it separates."""
    found = outcomes.separation(study, subject, task)
    about = f"{study.tasks[task].about.rstrip('.')}. ".lstrip(". ")
    return f"{about[:1].upper()}{about[1:]}Separation: {found.words}."


def forest(study: Ablation) -> figure.Html:
    """Differences to the reference with intervals and single seeds, a panel per task; over all."""
    parts = []
    for subject in (found := outcomes.subjects(study)):
        made = [one for one in findings.told_of(study, subject) if one.result is not None]
        panels = [_panel(own, task, subject.name) for task, own in by_task(made).items()]
        over = effects.overall(study, subject)
        if over:
            panels.append(_overall(over, subject.name))
        parts += [f"<h3>{escape(subject.name)}</h3>"] * (len(found) > 1)
        parts += [figure.row(panels), _numbers(made)]
    return figure.Html(*(parts or [NOTHING]))


def by_task(made: list[Contrast]) -> dict[str, list[Contrast]]:
    """The contrasts of each task, in their order."""
    out: dict[str, list[Contrast]] = {}
    for one in made:
        out.setdefault(one.arm.task.name, []).append(one)
    return out


def _numbers(made: list[Contrast]) -> str:
    """The table behind the panels."""
    rows = [
        {
            "task": one.arm.task.name,
            "arm": one.label,
            "family": one.kind,
            "seeds": str(one.result.n),
            "difference": findings.difference(one),
            "p": f"{one.result.p:.2g}",
            "corrected p": f"{one.p_adjusted:.2g}",
            "corrected p within ±1": f"{one.p_equivalent:.2g}",
            "better in": f"{100 * one.result.improved:.0f} % of seeds",
            "dz": "–" if one.result.dz is None else f"{one.result.dz:.2f}".replace("-", "−"),
            "verdict": one.verdict,
            "remarks": "; ".join(one.remarks) or "–",
        }
        for one in made
        if one.result is not None
    ]
    shown = tables.table(pd.DataFrame(rows), wide="remarks")
    return f"<details><summary>All contrasts in numbers</summary>{shown}</details>" * bool(rows)


def draw(axes: Axes, made: list[Contrast], title: str) -> None:
    """Contrasts from top to bottom: seeds, means, intervals, stars; ± MARGIN is shaded."""
    _band(axes, len(made))
    for place, one in enumerate(made):
        assert one.result is not None
        gaps = np.subtract(*outcomes.shared(one.arm.scores, one.reference.scores))
        colour = _colour(one.verdict)
        axes.scatter(gaps, np.full(len(gaps), place), s=9, color=colour, alpha=0.35, linewidths=0)
        result = Estimate(one.result.mean, *findings.reach(one))
        _mark(axes, place, result, colour, _shown(one))
    labels = [f"{'★ ' * _shown(one)}{one.label} {board.SIGNS.get(one.verdict, '')}" for one in made]
    _finish(axes, labels, title, "points above the reference")


def _panel(made: list[Contrast], task: str, who: str) -> str:
    with figure.drawing(3.75, 1.1 + 0.3 * len(made)) as canvas:
        draw(canvas.subplots(), made, task)
    told = listing([f"{one.label} {findings.difference(one)}, {one.verdict}" for one in made], 20)
    data = pd.DataFrame([_row(one) for one in made])
    words = f"{task}: difference to the reference in points: {told}."
    return figure.panel(canvas, figure.slug("forest", who, task), words, data)


def _overall(over: dict[str, tuple[Estimate, list[str]]], who: str) -> str:
    with figure.drawing(3.75, 1.1 + 0.3 * len(over)) as canvas:
        axes = canvas.subplots()
        _band(axes, len(over))
        for place, (found, _) in enumerate(over.values()):
            sure = math.isfinite(found.lo) and (found.lo > 0 or found.hi < 0)
            colour = figure.GREY if not sure else BLUE if found.value > 0 else RED
            _mark(axes, place, found, colour, True, "D")
        tasks = next(iter(over.values()))[1]
        _finish(
            axes,
            list(over),
            f"all {len(tasks)} tasks that separate",
            "difference of interquartile means",
        )
    told = [f"{k} {findings.signed(e.value)} {findings.bracketed(e)}" for k, (e, _) in over.items()]
    words = f"Interquartile mean over {listing(tasks)}, chance 0 and ceiling 100, minus that of "
    words += f"the reference, with paired bootstrap intervals: {listing(told, 20)}."
    rows = [{"arm": k, "points": e.value, "lo": e.lo, "hi": e.hi} for k, (e, _) in over.items()]
    return figure.panel(canvas, figure.slug("forest", who, "all"), words, pd.DataFrame(rows))


def _band(axes: Axes, count: int) -> None:
    axes.axvspan(-MARGIN, MARGIN, color=figure.GREY, alpha=0.18, linewidth=0)
    axes.axvline(0, color=figure.GREY, linewidth=1)
    axes.set_ylim(count - 0.5, -0.5)


def _mark(
    axes: Axes, place: int, found: Estimate, colour: str, full: bool, marker: str = "o"
) -> None:
    """An estimate with its interval; hollow where the adjusted test does not reject."""
    if math.isfinite(found.lo):
        axes.hlines(place, found.lo, found.hi, color=colour, linewidth=1.8)
    face = colour if full else "none"
    axes.scatter(found.value, place, s=38, marker=marker, facecolors=face, edgecolors=colour,
                 linewidths=1.4, zorder=3)  # fmt: skip


def _shown(one: Contrast) -> bool:
    """Whether a contrast is starred: rejected, on a task on which that says something."""
    return one.marked and one.verdict != UNINFORMATIVE


def _finish(axes: Axes, labels: list[str], title: str, across: str) -> None:
    axes.set_yticks(range(len(labels)), labels)
    axes.tick_params(axis="y", length=0)
    axes.set(title=title, xlabel=across, ylabel="")
    axes.grid(axis="x")


def _colour(verdict: str) -> str:
    higher, lower = (BETTER, LITTLE_BETTER), (WORSE, LITTLE_WORSE)
    return BLUE if verdict in higher else RED if verdict in lower else figure.GREY


def _row(one: Contrast) -> dict[str, object]:
    """A contrast as a line of the CSV."""
    found = one.result
    assert found is not None
    return {
        "task": one.arm.task.name, "arm": one.label, "kind": one.kind, "seeds": found.n,
        "score": one.arm.mean, "reference": one.reference.mean, "difference": found.mean,
        "lo": found.lo, "hi": found.hi, "p_sign_flip": found.p, "p_adjusted": one.p_adjusted,
        "p_equivalent": found.p_equivalent, "p_equivalent_adjusted": one.p_equivalent,
        "improved": found.improved, "dz": found.dz,
        "verdict": one.verdict, "remarks": "; ".join(one.remarks),
    }  # fmt: skip
