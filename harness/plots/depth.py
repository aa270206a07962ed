"""What dense connections cost by depth: counted exactly, and measured where depths were trained."""

from __future__ import annotations

from html import escape

import pandas as pd

from harness.ablation.accuracy import Ablation
from harness.analysis import findings, outcomes
from harness.analysis.outcomes import Arm, Subject
from harness.plots import figure, tables
from harness.plots.costs import COSTS
from harness.summary import listing, number


def by_depth(study: Ablation) -> figure.Html:
    """Exact parameters and FLOPs by number of layers, plain and dense; measured costs too."""
    return figure.Html(_exact(study), _measured(study))


def _exact(study: Ablation) -> str:
    """The table that no training is needed for; "" where the plan does not say the network."""
    from harness.analysis import depths  # what it counts by is the implementations' contract

    found = depths.counted(study)
    if found is None:
        return ""
    task, rows = found
    shown = pd.DataFrame(
        {
            "layers": [str(row.layers) for row in rows],
            "parameters, plain": [f"{row.plain_params:,}" for row in rows],
            "dense": [f"{row.dense_params:,}" for row in rows],
            "ratio": [number(row.dense_params / row.plain_params) for row in rows],
            "MFLOP per step, plain": [_mega(row.plain_flops) for row in rows],
            "dense ": [_mega(row.dense_flops) for row in rows],
            "ratio ": [_over(row.dense_flops, row.plain_flops) for row in rows],
        }
    )
    width = study.baseline.get("hidden_size")
    words = (
        f"Computed, not measured: the reference at its width of {width} units on {task}, embedding "
        "and head included; other tasks differ in these two alone, and in the steps of a batch."
    )
    link = figure.csv_link(pd.DataFrame([vars(row) for row in rows]), "dense-by-depth")
    return f"<p>{escape(words)}</p>{tables.table(shown)}{link}"


def _mega(flops: int | None) -> str:
    return "–" if flops is None else f"{flops / 1e6:,.0f}"


def _over(dense: int | None, plain: int | None) -> str:
    return number(dense / plain) if dense and plain else "–"


def _measured(study: Ablation) -> str:
    """CPU time and score by depth, where arms of several depths were trained."""
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
        return figure.legend(["dense", "plain"]) + "".join(parts)
    layers = study.baseline.get("layers")
    depth = f"All arms of this run have {layers} layers" if layers else "Every arm has one depth"
    return (
        f"<p>{depth}, so time and score of dense connections are known at that depth alone. Layer "
        "l of a dense stack reads the input and the outputs of all layers before it, so its size "
        "grows with the square of the depth; that of a plain one in proportion to it.</p>"
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
