"""What an arm costs beside what it scores: CPU time per step, parameters, memory."""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np
import pandas as pd

from harness.ablation.accuracy import Ablation
from harness.analysis import findings, outcomes
from harness.analysis.contrasts import ENOUGH, paired
from harness.analysis.outcomes import Arm, Subject
from harness.plots import figure, tables
from harness.plots.ablation import BLUE, NOTHING
from harness.plots.labels import label
from harness.plots.lines import _plain_log
from harness.speed.stats import geometric_mean
from harness.summary import SEED, bracket, count, listing, number

COSTS = {
    "cpu_ms": ("CPU ms per step, with evaluations", 1.0),
    "params": ("thousand parameters", 1e-3),
}
"""Columns of cost: words and factor of their unit."""


def score_and_cost(study: Ablation) -> figure.Html:
    """Score against CPU milliseconds per step and against parameters, one sign per arm."""
    parts = []
    for subject in (found := outcomes.subjects(study)):
        arms = [arm for arm in outcomes.arms(study, subject).values() if arm.kind != "control"]
        arms = [arm for arm in arms if arm.mode == "as_is" and arm.scores]
        parts += [f"<h3>{escape(subject.name)}</h3>"] * (len(found) > 1)
        for task in dict.fromkeys(arm.task.name for arm in arms):
            own = [arm for arm in arms if arm.task.name == task]
            panels = [_panel(own, column, subject) for column in COSTS]
            parts.append(figure.row([panel for panel in panels if panel]))
    return figure.Html(*(parts or [NOTHING]))


def _panel(own: list[Arm], column: str, subject: Subject) -> str:
    """One cost of one task: across the cost, up the score with its interval."""
    (words, unit), task = COSTS[column], own[0].task.name
    found = [(arm, findings.values_of(arm, column)) for arm in own]
    known = [(arm, np.array(values) * unit) for arm, values in found if any(values)]
    if not known:
        return ""
    rows = [_scored(arm, values, words) for arm, values in known]
    frame = pd.DataFrame(rows)
    with figure.drawing(3.75, 2.9) as canvas:
        axes = canvas.subplots()
        for (arm, values), row in zip(known, rows, strict=True):
            colour, cost = figure.GREY if arm.kind == "reference" else BLUE, row[words]
            axes.hlines(row["points"], min(values), max(values), color=colour, lw=1.1, alpha=0.6)
            if len(arm.scores) > 1:
                axes.vlines(cost, row["lo"], row["hi"], color=colour, linewidth=1.1, alpha=0.6)
            marker = "s" if findings.is_lstm(arm) else "o"
            axes.scatter(cost, row["points"], s=30, color=colour, marker=marker, lw=0, zorder=3)
        axes.set_xscale("log")
        _plain_log(axes, "x", frame[words])
        axes.margins(y=0.12)
        axes.set(title=task, xlabel=words, ylabel="points")
        axes.grid(axis="both")
        bars = list(zip(frame["least cost"], frame["most cost"], strict=True))
        label(axes, frame[words].to_list(), frame["points"].to_list(), frame["arm"].to_list(), bars)
    told = listing([f"{r['arm']} {r['points']:.1f} at {number(r[words])}" for r in rows], 20)
    alt = f"{task}: mean points against {words}: {told}."
    return figure.panel(canvas, figure.slug("cost", subject.name, task, column), alt, frame)


def _scored(arm: Arm, values: np.ndarray, words: str) -> dict[str, Any]:
    """An arm's cost and its mean score with Student's interval, below 8 seeds their span."""
    cost = float(np.median(values))
    found = paired(list(arm.scores.values()), [0.0] * len(arm.scores))
    low, high = sorted((arm.task.points(arm.task.ceiling), min(0.0, arm.task.chance_points)))
    row = {"task": arm.task.name, "arm": arm.name, words: cost, "points": found.mean}
    row |= {"least cost": float(values.min()), "most cost": float(values.max())}
    if len(arm.scores) < ENOUGH:
        return row | {"lo": min(arm.scores.values()), "hi": max(arm.scores.values())}
    return row | {"lo": max(found.lo, low), "hi": min(found.hi, high)}


ORDER = (
    "Trainings run one after another in each worker, as a rule two at a time, and the arms are not "
    "interleaved: these times and their spread over seeds are indicative. "
)


def step_times(study: Ablation, cells: pd.DataFrame) -> figure.Html:
    """CPU time per step and memory of every arm, and where speed was measured properly."""
    rows = []
    for subject in outcomes.subjects(study):
        rows += [_cost(arm) for arm in outcomes.arms(study, subject).values()]
    if not rows:
        return figure.Html(NOTHING)
    data = pd.DataFrame(rows)
    timed = not cells.empty and bool((cells["status"] == "ok").any())
    where = (
        'The page <a href="speed.html">speed</a> of this folder times interleaved contenders.'
        if timed
        else "This folder holds no interleaved timings; <code>quasibench speed</code> makes them."
    )
    words = "".join(f"<p>{escape(text)}</p>" for text in _grid_says(study, cells))
    return figure.Html(
        f"<p>{ORDER}For how fast an arm is: {where[0].lower()}{where[1:]}</p>",
        words, tables.table(data), figure.csv_link(data, "arms-cost"),
    )  # fmt: skip


def _cost(arm: Arm) -> dict[str, object]:
    rows = list(arm.rows.values())
    params = findings.median_of(arm, "params")
    return {
        "task": arm.task.name,
        "arm": arm.label,
        "points": "–" if np.isnan(arm.mean) else f"{arm.mean:.1f}",
        "parameters": "–" if params is None else f"{params:,.0f}",
        "CPU ms per step, with evaluations": _spread(findings.values_of(arm, "cpu_ms"), 1.0),
        "memory rise, MiB": _spread(findings.values_of(arm, "peak_bytes"), 2.0**-20),
        "implementation": str(rows[0]["impl"]),
        "threads": str(rows[0].get("threads") or "–"),
    }


def _spread(values: list[float], unit: float) -> str:
    """ "12.1 (11.8 – 13.0)": the median, the least and the most over seeds."""
    if not values:
        return "–"
    middle, least, most = (number(unit * float(f(values))) for f in (np.median, np.min, np.max))
    return f"{middle} ({least} – {most})"


def _grid_says(study: Ablation, cells: pd.DataFrame) -> list[str]:
    """The speedup of the trained implementations to the LSTM in the folder's speed rows."""
    out = []
    for subject in outcomes.subjects(study):
        own = cells[(cells["impl"] == subject.impl) & (cells["dtype"] == subject.dtype)]
        own = own[(own["device"] == subject.device) & own["speedup"].notna()]
        for kind, group in own.groupby("kind"):
            mean = geometric_mean(group["speedup"].to_list(), SEED)
            out.append(
                f"The speed grid of this folder, same machine and implementation: "
                f"{subject.impl}, {kind}, {bracket(mean.value, mean.lo, mean.hi)} times as fast "
                f"as the LSTM (geometric mean over {count(len(group), 'grid point')})."
            )
    return out
