"""What an arm costs beside what it scores: time per step, parameters, memory, and by depth."""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np
import pandas as pd

from harness import findings, outcomes
from harness.accuracy import Ablation
from harness.contrasts import ENOUGH, paired
from harness.outcomes import Arm, Subject
from harness.plots import figure, tables
from harness.plots.ablation import BLUE, NOTHING
from harness.plots.labels import label
from harness.plots.lines import _plain_log
from harness.stats import geometric_mean
from harness.summary import SEED, bracket, count, listing, number

COSTS = {
    "ms_per_step": ("ms per training step", 1.0),
    "params": ("thousand parameters", 1e-3),
    "peak_bytes": ("peak MiB", 2.0**-20),
}
"""Columns of cost: words and factor of their unit."""


def score_and_cost(study: Ablation) -> figure.Html:
    """Score against milliseconds per step, parameters and memory, one sign per arm."""
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
    known = [(arm, cost * unit) for arm in own if (cost := findings.median_of(arm, column))]
    if not known:
        return ""
    rows = [_scored(arm, cost, words) for arm, cost in known]
    frame = pd.DataFrame(rows)
    with figure.drawing(3.75, 2.9) as canvas:
        axes = canvas.subplots()
        for (arm, cost), row in zip(known, rows, strict=True):
            colour = figure.GREY if arm.kind == "reference" else BLUE
            if len(arm.scores) > 1:
                axes.vlines(cost, row["lo"], row["hi"], color=colour, linewidth=1.1, alpha=0.6)
            marker = "s" if findings.is_lstm(arm) else "o"
            axes.scatter(cost, row["points"], s=30, color=colour, marker=marker, lw=0, zorder=3)
        axes.set_xscale("log")
        _plain_log(axes, "x", frame[words])
        axes.margins(y=0.12)
        axes.set(title=task, xlabel=words, ylabel="points")
        axes.grid(axis="both")
        label(axes, frame[words].to_list(), frame["points"].to_list(), frame["arm"].to_list())
    told = listing([f"{r['arm']} {r['points']:.1f} at {number(r[words])}" for r in rows], 20)
    alt = f"{task}: mean points against {words}: {told}."
    return figure.panel(canvas, figure.slug("cost", subject.name, task, column), alt, frame)


def _scored(arm: Arm, cost: float, words: str) -> dict[str, Any]:
    """An arm's cost and its mean score with Student's interval, below 8 seeds their span."""
    found = paired(list(arm.scores.values()), [0.0] * len(arm.scores))
    low, high = sorted((arm.task.points(arm.task.ceiling), min(0.0, arm.task.chance_points)))
    row = {"task": arm.task.name, "arm": arm.name, words: cost, "points": found.mean}
    if len(arm.scores) < ENOUGH:
        return row | {"lo": min(arm.scores.values()), "hi": max(arm.scores.values())}
    return row | {"lo": max(found.lo, low), "hi": min(found.hi, high)}


def by_depth(study: Ablation) -> figure.Html:
    """Time, parameters and memory by number of layers, with and without dense connections."""
    parts = []
    for subject in outcomes.subjects(study):
        arms = [arm for arm in outcomes.arms(study, subject).values() if arm.mode == "as_is"]
        frame = pd.DataFrame([row for arm in arms if (row := _depth(study, arm)) is not None])
        if frame.empty or frame["layers"].nunique() < 2:
            continue
        frame = frame.drop_duplicates(["task", "kind", "layers"])
        for task, own in frame.groupby("task", sort=False):
            columns = (*COSTS, "points")
            shown = [_depth_panel(own, column, str(task), subject) for column in columns]
            parts.append(f"<h3>{escape(str(task))}</h3>{figure.row(shown)}")
    if parts:
        return figure.Html(figure.legend(["dense", "plain"]), *parts)
    layers = study.baseline.get("layers")
    depth = f"All arms of this run have {layers} layers" if layers else "Every arm has one depth"
    return figure.Html(
        f"<p>{depth}, so the cost of dense connections is known at that depth alone. Layer l of a "
        "dense stack reads the input and the outputs of all layers before it, so its parameters "
        "and its time grow with the square of the depth; plain ones grow in proportion to it.</p>"
    )


def _depth(study: Ablation, arm: Arm) -> dict[str, object] | None:
    """The arm as a point of the depth series; None where it changes something else too."""
    changes = dict(next(iter(arm.rows.values())).get("changes") or {})
    baseline = study.baseline
    if set(changes) - {"layers", "dense"} or arm.kind == "control":
        return None
    fields = {"layers": baseline.get("layers"), "dense": baseline.get("dense", False), **changes}
    if fields["layers"] is None:
        return None
    known = {column: findings.median_of(arm, column) for column in COSTS}
    what = {"task": arm.task.name, "arm": arm.name, "points": arm.mean}
    return {**fields, **what, **known, "kind": "dense" if fields["dense"] else "plain"}


def _depth_panel(own: pd.DataFrame, column: str, task: str, subject: Subject) -> str:
    words, unit = COSTS.get(column, ("points", 1.0))
    looks = figure.palette(["dense", "plain"])
    own = own.dropna(subset=column).sort_values("layers")
    with figure.drawing(2.7, 2.1) as canvas:
        axes = canvas.subplots()
        for kind, group in own.groupby("kind"):
            colour, marker = looks[str(kind)]
            axes.plot(group["layers"], group[column].astype(float) * unit, color=colour,
                      marker=marker, linewidth=1.4, markersize=5)  # fmt: skip
        axes.set_xticks(sorted(own["layers"].unique()))
        if column != "points":
            axes.set_ylim(bottom=0)
        axes.set(title=words, xlabel="layers", ylabel="")
        axes.grid(axis="y")
    told = listing([f"{row.kind} {row.layers} layers {number(getattr(row, column) * unit)}"
                    for row in own.itertuples()], 20)  # fmt: skip
    alt = f"{task}: {words} by number of layers: {told}."
    name = figure.slug("depth", subject.name, task, column)
    return figure.panel(canvas, name, alt, own[["task", "kind", "layers", column]])


def step_times(study: Ablation, cells: pd.DataFrame) -> figure.Html:
    """Time per training step of every arm, and what the folder's own speed grid says."""
    rows = []
    for subject in outcomes.subjects(study):
        arms = outcomes.arms(study, subject)
        for (task, _, mode), arm in arms.items():
            references = [a for a in arms.values() if a.task.name == task and a.kind == "reference"]
            rows.append(_speed(arm, references[0] if references else None, mode))
    if not rows:
        return figure.Html(NOTHING)
    data = pd.DataFrame(rows)
    words = "".join(f"<p>{escape(text)}</p>" for text in _grid_says(study, cells))
    return figure.Html(words, tables.table(data), figure.csv_link(data, "arms-cost"))


def _speed(arm: Arm, reference: Arm | None, mode: str) -> dict[str, object]:
    rows = list(arm.rows.values())
    times = [float(row["ms_per_step"]) for row in rows if row.get("ms_per_step") is not None]
    ratio = findings.slower(arm, reference) if reference is not None else None
    params, memory = (findings.median_of(arm, column) for column in ("params", "peak_bytes"))
    cpu = [1e3 * row["cpu_s"] / row["steps_done"] for row in rows
           if row.get("cpu_s") is not None and row.get("steps_done")]  # fmt: skip
    span = f"{number(min(times))} – {number(max(times))}" if times else "–"
    return {
        "task": arm.task.name,
        "arm": arm.name if mode == "as_is" else f"{arm.name} ({mode})",
        "points": "–" if np.isnan(arm.mean) else f"{arm.mean:.1f}",
        "ms per step, median": number(findings.median_of(arm, "ms_per_step")),
        "least – most": span,
        "CPU ms per step": number(float(np.median(cpu))) if cpu else "–",
        "× reference": number(ratio),
        "parameters": "–" if params is None else f"{params:,.0f}",
        "peak MiB": "–" if memory is None else number(memory / 2**20),
        "implementation": str(rows[0]["impl"]),
        "threads": str(rows[0].get("threads") or "–"),
    }


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
