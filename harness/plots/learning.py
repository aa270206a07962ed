"""Learning curves with every seed, learning-rate curves with their edges, steps to the target."""

from __future__ import annotations

import math
from collections.abc import Callable
from html import escape
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullLocator

from harness.ablation.accuracy import Ablation, TaskFacts
from harness.analysis import outcomes
from harness.analysis.outcomes import Arm, Subject
from harness.files import Row
from harness.plots import figure, tables
from harness.plots.ablation import BLUE, NOTHING, RED
from harness.summary import count, listing, number

WIDTH, HEIGHT = 1.48, 1.5
"""Inches of a panel: two stand side by side on a phone, eight on a desk."""
Curve = tuple[np.ndarray, np.ndarray]
Draw = Callable[[Ablation, Subject, list[Arm]], str]


def learning_curves(study: Ablation) -> figure.Html:
    """Validation score by step, every seed a line, a panel per task and arm."""
    if not study.curves:
        return figure.Html("<p>No learning curve is recorded in this folder.</p>")
    return _by_task(study, _learning_task)


def learning_rates(study: Ablation) -> figure.Html:
    """Validation score of the tuning runs by learning rate, a panel per task, arm and budget."""
    if any(row["role"] == "tune" for row in study.rows):
        return _by_task(study, _rates_task, every_mode=True)
    used = sorted({row["learning_rate"] for row in study.rows if row["learning_rate"] is not None})
    told = listing([f"{rate:g}" for rate in used])
    return figure.Html(
        f"<p>This run tuned no learning rate: every arm trained with {told or 'an unknown one'}. "
        "An arm that needs another one looks worse than it is.</p>"
    )


def steps_to_target(study: Ablation) -> figure.Html:
    """Runs that reached the target, and the median of steps; one that never did is infinite."""
    lines: dict[tuple[str, str], dict[str, str]] = {}
    for subject in outcomes.subjects(study):
        for (task, _, _), arm in outcomes.arms(study, subject).items():
            facts, steps = study.tasks[task], arm.steps_to_target()
            if facts.target is None or not steps:
                continue
            middle, reached = float(np.median(steps)), sum(map(math.isfinite, steps))
            median = f", median {number(middle)}" if math.isfinite(middle) else ""
            line = lines.setdefault((subject.name, arm.label), {"arm": arm.label})
            column = f"{task}, target {facts.points(facts.target):.0f} points"
            line[column] = f"{reached} of {len(steps)}{median}"
    if not lines:
        return figure.Html(NOTHING)
    frame = pd.DataFrame(lines.values()).fillna("–")
    if len(names := [who for who, _ in lines]) and len(set(names)) > 1:
        frame.insert(0, "implementation", names)
    return figure.Html(tables.table(frame), figure.csv_link(frame, "steps-to-target"))


def _by_task(study: Ablation, draw: Draw, every_mode: bool = False) -> figure.Html:
    parts = []
    for subject in outcomes.subjects(study):
        found = outcomes.arms(study, subject)
        for task in dict.fromkeys(place[0] for place in found):
            own = [arm for arm in found.values() if arm.task.name == task]
            own = [arm for arm in own if every_mode or arm.mode == "as_is"]
            heading = f"{task}" if len(outcomes.subjects(study)) == 1 else f"{task}, {subject.name}"
            parts.append(f"<h3>{escape(heading)}</h3>{draw(study, subject, own)}")
    return figure.Html(*(parts or [NOTHING]))


def _learning_task(study: Ablation, subject: Subject, own: list[Arm]) -> str:
    lines = {arm.name: _curves(study, arm) for arm in own}
    own = [arm for arm in own if lines[arm.name] or arm.failed]
    if not own:
        return "<p>No run of this task has finished.</p>"
    reference = next((arm.name for arm in own if arm.kind == "reference"), None)
    panels: list[str] = []
    data: list[dict[str, Any]] = []
    low, high = _span(own[0].task, [curve for found in lines.values() for curve in found.values()])
    for arm in own:
        with figure.drawing(WIDTH, HEIGHT) as canvas:
            axes = canvas.subplots()
            if reference in lines and arm.name != reference:
                _lines(axes, lines[reference], figure.GREY)
            _lines(axes, lines[arm.name], BLUE)
            for seed, status in arm.failed.items():
                last = arm.rows[seed].get("steps_done") or 1
                axes.plot(max(1, last), arm.task.chance_points, "x", color=RED, markersize=6)
                data.append({"arm": arm.name, "seed": seed, "status": status})
            _levels(axes, arm.task)
            axes.set_ylim(low, high)
            _log_steps(axes)
            axes.set(title=arm.name, xlabel="", ylabel="")
        for seed, (steps, points) in lines[arm.name].items():
            data += [{"arm": arm.name, "seed": seed, "step": s, "points": round(float(p), 2)}
                     for s, p in zip(steps, points, strict=True)]  # fmt: skip
        failed = f"; {count(len(arm.failed), 'run')} failed" if arm.failed else ""
        words = f"{arm.task.name}, {arm.name}: points on the validation set by training step, "
        words += f"{count(len(lines[arm.name]), 'seed')}, {arm.mean:.1f} in the mean{failed}."
        name = figure.slug("curve", subject.name, arm.task.name, arm.name)
        panels.append(figure.panel(canvas, name, words))
    name = figure.slug("curves", subject.name, own[0].task.name)
    return _small(panels) + figure.csv_link(pd.DataFrame(data), name)


def _small(panels: list[str]) -> str:
    return figure.row(panels).replace('class="panels"', 'class="panels small"', 1)


def _curves(study: Ablation, arm: Arm) -> dict[int, Curve]:
    """(steps, validation points) by seed, for the runs that recorded a curve."""
    found = {}
    for seed, row in arm.rows.items():
        curve = study.curves.get(str(row["row_key"]))
        if curve is not None and row["status"] != "interrupted":
            both = zip(curve["steps"], curve["validation"], strict=False)
            pairs = [(step, value) for step, value in both if value is not None]
            if pairs:
                steps, values = zip(*pairs, strict=True)
                points = np.array([arm.task.points(value) for value in values])
                found[seed] = np.array(steps), points
    return found


def _lines(axes: Axes, found: dict[int, Curve], colour: str) -> None:
    """Every seed thin, their median thick; a run that stopped early keeps its last score."""
    for steps, points in found.values():
        axes.plot(steps, points, color=colour, linewidth=0.7, alpha=0.55)
    if len(found) > 2:
        every = np.unique(np.concatenate([steps for steps, _ in found.values()]))
        middle = np.median([np.interp(every, *curve) for curve in found.values()], axis=0)
        axes.plot(every, middle, color=colour, linewidth=2)


def _span(task: TaskFacts, found: list[Curve]) -> tuple[float, float]:
    """One scale for all arms of a task: from chance to the best score or the target."""
    values = np.concatenate([points for _, points in found]) if found else np.zeros(0)
    top = [task.points(task.target)] if task.target is not None else [100.0]
    low = min(task.chance_points, *values) if values.size else task.chance_points
    high = max([*top, *values])
    edge = 0.04 * (high - low)
    return low - edge, high + edge


def _levels(axes: Axes, task: TaskFacts) -> None:
    axes.axhline(task.chance_points, color=figure.GREY, linewidth=0.9, linestyle=":")
    if task.target is not None:
        axes.axhline(task.points(task.target), color=figure.GREY, linewidth=0.9, linestyle="--")


def _log_steps(axes: Axes) -> None:
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    ticks = [tick for tick in (1, 10, 100, 1000, 10_000, 100_000) if low <= tick <= high]
    axes.set_xticks(ticks)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.grid(axis="y")


def _rates_task(study: Ablation, subject: Subject, own: list[Arm]) -> str:
    tuned = [_tuning(study, arm) for arm in own]
    panels = []
    values = [float(row["points"]) for table in tuned for row in table]
    if not values:
        return "<p>No learning rate was tuned on this task.</p>"
    edge = 0.06 * (max(values) - min(values)) + 0.1
    for arm, table in zip(own, tuned, strict=True):
        if not table:
            continue
        frame = pd.DataFrame(table)
        chosen = {row["learning_rate"] for row in arm.rows.values()}
        at_edge = any(row.get("lr_edge") for row in arm.rows.values())
        with figure.drawing(WIDTH, HEIGHT) as canvas:
            axes = canvas.subplots()
            means = frame.groupby("learning_rate")["points"].mean()
            axes.plot(means.index, means, color=BLUE, linewidth=1.5)
            for ok, group in frame.groupby(frame["status"] == "ok"):
                axes.scatter(group["learning_rate"], group["points"], s=14, linewidths=1,
                             marker="o" if ok else "x", color=BLUE if ok else RED)  # fmt: skip
            for rate in chosen & set(means.index):
                axes.axvline(rate, color=figure.GREY, linewidth=5, alpha=0.35)
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.xaxis.set_minor_locator(NullLocator())
            axes.set_ylim(min(values) - edge, max(values) + edge)
            axes.set(
                title=f"{arm.label}: at the edge" if at_edge else arm.label, xlabel="", ylabel=""
            )
            axes.grid(axis="y")
        best = listing([f"{rate:g}" for rate in sorted(chosen)])
        words = f"{arm.task.name}, {arm.label}: points on the tuning set by learning rate; chosen: "
        words += f"{best}{', at the edge of the grid' if at_edge else ''}."
        name = figure.slug("rates", subject.name, arm.task.name, arm.label)
        panels.append(figure.panel(canvas, name, words))
    data = pd.DataFrame([row for table in tuned for row in table])
    name = figure.slug("rates", subject.name, own[0].task.name)
    return _small(panels) + figure.csv_link(data, name)


def _tuning(study: Ablation, arm: Arm) -> list[dict[str, Any]]:
    """Tuning runs of an arm; a failed one lies at chance."""
    final = next(iter(arm.rows.values()))
    same = ("task", "arm", "impl", "device", "dtype", "budget_mode")
    rows = [r for r in study.rows if r["role"] == "tune" and all(r[k] == final[k] for k in same)]
    return [
        {
            "arm": arm.label,
            "learning_rate": row["learning_rate"],
            "seed": row["seed"],
            "status": row["status"],
            "points": _tuning_points(arm.task, row),
        }
        for row in rows
        if row["status"] == "ok" or row["status"] in outcomes.FAILED
    ]


def _tuning_points(task: TaskFacts, row: Row) -> float:
    known = row["status"] == "ok" and row.get("validation") is not None
    return task.points(float(row["validation"])) if known else task.chance_points
