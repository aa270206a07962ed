"""A run as one picture, for a README: speedups to the LSTM, or accuracies to the reference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import seaborn as sns

from harness.ablation.accuracy import Ablation
from harness.analysis import findings, outcomes
from harness.errors import UsageError
from harness.plots import ablation, figure
from harness.plots.grids import COLOURS, _scale
from harness.summary import arms, labelled, number

CELL = (0.78, 0.42)
DPI = 144


def picture(frame: pd.DataFrame, path: str | Path) -> None:
    """Write a PNG: one heat map of batch x steps per kind and dtype (down), contender (across).

    A number is the speedup to the fastest LSTM of the cell; a noisy cell is marked with "~".

    Raises:
        UsageError: no ratio to an LSTM was measured.
    """
    rows = arms(labelled(frame))
    rows = rows[rows["speedup"].notna() & (rows["contender"] != rows["yardstick"])]
    if rows.empty:
        raise UsageError("--picture: this run has no ratio to an LSTM: put one in its contenders")
    places, names = rows[["kind", "dtype"]].drop_duplicates(), sorted(rows["contender"].unique())
    kinds = list(places.itertuples(index=False, name=None))
    grid = {"index": sorted(rows["batch"].unique()), "columns": sorted(rows["steps"].unique())}
    several = places["dtype"].nunique() > 1
    size = rows["steps"].nunique() * CELL[0], rows["batch"].nunique() * CELL[1]
    width, height = len(names) * size[0] + 1.2, len(kinds) * (size[1] + 0.55) + 0.5
    scale = _scale(rows["speedup"])
    with figure.drawing(width, height) as canvas:
        axes = canvas.subplots(len(kinds), len(names), squeeze=False, sharex=True, sharey=True)
        for place, axis in np.ndenumerate(axes):
            (kind, dtype), name = kinds[place[0]], names[place[1]]
            some = rows[(rows["kind"] == kind) & (rows["dtype"] == dtype)]
            some = some[some["contender"] == name]
            cell = some.groupby(["batch", "steps"])
            table = cell["speedup"].mean().unstack().reindex(**grid)
            noisy = cell["noisy"].any().unstack().reindex(**grid).eq(True)
            words = table.map(lambda value: number(value, 2)) + noisy.map(lambda n: " ~" * bool(n))
            sns.heatmap(
                np.log2(table), ax=axis, cmap=COLOURS, vmin=-scale, vmax=scale, cbar=False,
                annot=words.to_numpy(), fmt="", linewidths=1.5, linecolor="white",
            )  # fmt: skip
            figure.readable(axis)
            axis.set_title(f"{name}, {kind}" + f", {dtype}" * several)
            axis.set(xlabel="steps" * (place[0] == len(kinds) - 1), ylabel="batch" * (not place[1]))
            axis.tick_params(length=0, labelrotation=0)
        canvas.savefig(path, format="png", dpi=DPI, facecolor="white", transparent=False)


def forest(study: Ablation, path: str | Path) -> None:
    """Write a PNG: the forest plot of the first implementation, a panel per task.

    Raises:
        UsageError: no arm can be compared with the reference yet.
    """
    first = outcomes.subjects(study)[0] if study.rows else None
    told = findings.told_of(study, first) if first else []
    panels = ablation.by_task([one for one in told if one.result is not None])
    if not panels:
        raise UsageError(
            "--picture: neither speedups nor arms beside a reference are recorded here"
        )
    longest = max(map(len, panels.values()))
    with figure.drawing(3.75 * len(panels), 1.1 + 0.3 * longest) as canvas:
        every = canvas.subplots(1, len(panels), squeeze=False)[0]
        for axes, (task, made) in zip(every, panels.items(), strict=True):
            ablation.draw(axes, made, f"{task}, {first.name}" if first else task)
        canvas.savefig(path, format="png", dpi=DPI, facecolor="white", transparent=False)
