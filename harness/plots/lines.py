"""Times: how far from the machine's floor, how they grow with length, and every round of them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from harness.plots import figure
from harness.summary import count, duration, labelled, number


def floor(frame: pd.DataFrame) -> figure.Html:
    """Dots: median time over the analytic floor, one row per grid point, one sign a contender."""
    timed = labelled(_timed(frame))
    timed = timed[timed["x_of_floor"].notna()]
    if timed.empty:
        return figure.Html("<p>No floor is known for the timed cells (no ceilings measured).</p>")
    names = sorted(timed["contender"].unique())
    panels = []
    for (scene, kind), group in timed.groupby(["scene", "kind"], sort=False):
        title = f"{kind}, {scene}" if scene else str(kind)
        panels.append(_floor_panel(group, title, names))
    return figure.Html(figure.legend(names), figure.row(panels))


def times(frame: pd.DataFrame) -> figure.Html:
    """Median time against steps with its interval, one panel per kind and batch."""
    timed = labelled(_timed(frame))
    if timed.empty:
        return figure.Html("<p>No cell was timed.</p>")
    names = sorted(timed["contender"].unique())
    panels = []
    for (scene, kind, batch), group in timed.groupby(["scene", "kind", "batch"], sort=False):
        title = f"{kind}, batch {batch}" + (f", {scene}" if scene else "")
        panels.append(_times_panel(group, title, names))
    return figure.Html(figure.legend(names), figure.row(panels))


def samples(frame: pd.DataFrame, rounds: pd.DataFrame) -> figure.Html:
    """Every round of every cell as one mark: its time over the cell's median."""
    own = labelled(frame[frame["status"] == "ok"])
    keys = ["sitting_id", "cell_id"]
    place = ["scene", "kind", "batch", "steps", "contender"]
    facts = own[[*keys, *place, "twin", "median_ns", "clock"]]
    marks = facts.merge(rounds, on=keys)
    marks["ns"] = marks["wall_ns"].where(marks["clock"] != "cpu", marks["cpu_ns"])
    if marks.empty:
        return figure.Html("<p>This folder holds no single samples.</p>")
    dpi = figure.RASTER_DPI if len(marks) > figure.RASTER_MARKS else None
    dpi = figure.COARSE_DPI if len(marks) > figure.COARSE_MARKS else dpi
    names = sorted(marks["contender"].unique())
    panels = []
    for (scene, kind, batch), group in marks.groupby(["scene", "kind", "batch"], sort=False):
        title = f"{kind}, batch {batch}" + (f", {scene}" if scene else "")
        panels.append(_samples_panel(group, title, names, dpi))
    return figure.Html(figure.row(panels))


def _timed(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[(frame["status"] == "ok") & ~frame["twin"] & frame["median_ns"].notna()]


def _floor_panel(group: pd.DataFrame, title: str, names: list[str]) -> str:
    places = group[["batch", "steps"]].drop_duplicates().sort_values(["batch", "steps"])
    rank = {place: i for i, place in enumerate(places.itertuples(index=False, name=None))}
    heights = [rank[place] for place in zip(group["batch"], group["steps"], strict=True)]
    with figure.drawing(3.9, 0.85 + 0.24 * len(rank)) as canvas:
        axes = canvas.subplots()
        _marks(axes, group["x_of_floor"], np.asarray(heights), group["contender"], names)
        axes.set_yticks(list(rank.values()), [f"{b} × {t}" for b, t in rank])
        axes.set(title=title, xlabel="times the floor", ylabel="batch × steps")
        axes.set_xscale("log")
        axes.set_ylim(len(rank) - 0.5, -0.5)
        _plain_log(axes, "x", group["x_of_floor"])
        axes.grid(axis="both")
    low, high = group["x_of_floor"].min(), group["x_of_floor"].max()
    words = (
        f"{title}: median time as a multiple of the analytic floor, from {number(low)} to "
        f"{number(high)}, for {count(len(rank), 'grid point')}."
    )
    columns = ["kind", "batch", "steps", "contender", "median_ns", "x_of_floor", "x_of_staged"]
    return figure.panel(canvas, figure.slug("floor", title), words, group[columns])


def _times_panel(group: pd.DataFrame, title: str, names: list[str]) -> str:
    looks = figure.palette(names)
    with figure.drawing(3.1, 2.6) as canvas:
        axes = canvas.subplots()
        sns.lineplot(
            data=group.assign(ms=group["median_ns"] / 1e6), x="steps", y="ms", hue="contender",
            style="contender", markers={n: m for n, (_, m) in looks.items()}, dashes=False,
            palette={n: c for n, (c, _) in looks.items()}, ax=axes, legend=False, errorbar=None,
            linewidth=1.2, markersize=5.5,
        )  # fmt: skip
        for row in group.dropna(subset=["ci_lo_ns", "ci_hi_ns"]).itertuples():
            axes.vlines(row.steps, row.ci_lo_ns / 1e6, row.ci_hi_ns / 1e6,
                        color=looks[row.contender][0], linewidth=1)  # fmt: skip
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        steps = sorted(group["steps"].unique())
        axes.set_xticks(steps, [str(value) for value in steps])
        axes.xaxis.set_minor_locator(NullLocator())
        _plain_log(axes, "y", group["median_ns"] / 1e6)
        axes.set(title=title, xlabel="steps", ylabel="median ms")
        axes.grid(axis="both")
    quickest = group.loc[group.groupby("steps")["median_ns"].idxmin()]
    words = f"{title}: median time of one call by steps; quickest " + ", ".join(
        f"at {row.steps} {row.contender} with {duration(row.median_ns)}"
        for row in quickest.itertuples()
    )
    columns = ["kind", "batch", "steps", "contender", "median_ns", "ci_lo_ns", "ci_hi_ns"]
    return figure.panel(canvas, figure.slug("times", title), words + ".", group[columns])


def _samples_panel(group: pd.DataFrame, title: str, names: list[str], dpi: int | None) -> str:
    group = group.assign(
        who=group["contender"] + np.where(group["twin"], " (twin)", ""),
        relative=group["ns"] / group["median_ns"],
    )
    rows = group.groupby(["steps", "who"])["median_ns"].median().reset_index()
    order = list(rows[["steps", "who"]].itertuples(index=False, name=None))
    gap = {steps: 0.6 * i for i, steps in enumerate(sorted(rows["steps"].unique()))}
    height = {key: i + gap[key[0]] for i, key in enumerate(order)}
    base = np.array([height[key] for key in zip(group["steps"], group["who"], strict=True)])
    jitter = np.random.default_rng(0).uniform(-0.28, 0.28, len(base))
    with figure.drawing(4.3, 0.9 + 0.185 * (max(height.values()) + 1), dpi or 72) as canvas:
        axes = canvas.subplots()
        axes.axvline(1, color=figure.GREY, linewidth=1)
        who = group["contender"]
        _marks(axes, group["relative"], base + jitter, who, names, 7, 0.7, dpi is not None)
        labels = [f"{row.who} {row.steps} · {duration(row.median_ns)}" for row in rows.itertuples()]
        axes.set_yticks(list(height.values()), labels)
        axes.tick_params(axis="y", labelsize=8)
        axes.set(title=title, xlabel="round ÷ median of its cell", ylabel="")
        axes.set_ylim(max(height.values()) + 0.7, -0.7)
        axes.set_xscale("log")
        _plain_log(axes, "x", group["relative"])
        axes.grid(axis="x")
    table = group.groupby(["kind", "batch", "steps", "who"])["ns"].describe(
        percentiles=[0.05, 0.25, 0.5, 0.75, 0.95]
    )
    words = (
        f"{title}: time of every round over its cell's median, {len(group)} marks, by contender "
        f"and steps; they lie between {number(group['relative'].min())} and "
        f"{number(group['relative'].max())}."
    )
    return figure.panel(canvas, figure.slug("samples", title), words, table.reset_index())


def _marks(
    axes: Axes, across: pd.Series, down: np.ndarray, impl: pd.Series, names: list[str],
    size: float = 30, alpha: float = 0.85, raster: bool = False,
) -> None:  # fmt: skip
    for name, (colour, marker) in figure.palette(names).items():
        own = (impl == name).to_numpy()
        dots = axes.scatter(
            across[own], down[own], s=size, color=colour, marker=marker, alpha=alpha, linewidths=0
        )
        dots.set_rasterized(raster)


def _plain_log(axes: Axes, which: str, values: pd.Series) -> None:
    """Ticks of a logarithmic axis as plain numbers, 1-2-5 where the span is short."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    low, high = np.log10(values.min()), np.log10(values.max())
    signs = (1, 2, 5) if high - low < 2.2 else (1,)
    decades = range(int(np.floor(low)) - 1, int(np.ceil(high)) + 2)
    margin = max(0.04, 0.06 * (high - low))
    ticks = [m * 10.0**d for d in decades for m in signs]
    ticks = [t for t in ticks if low - margin <= np.log10(t) <= high + margin]
    if len(ticks) < 2:
        ticks = list(MaxNLocator(4).tick_values(10 ** (low - margin), 10 ** (high + margin)))
    axis.set_ticks(ticks)
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())
    limits = 10 ** (low - margin), 10 ** (high + margin)
    axes.set_xlim(*limits) if which == "x" else axes.set_ylim(*limits)
