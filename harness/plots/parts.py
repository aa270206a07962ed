"""The page `floor`: a layer beside its products, its pooling and its floors; what was reached."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

import pandas as pd

from harness.plots import figure, tables
from harness.plots.lines import _marks, _plain_log
from harness.speed import device_targets
from harness.speed import reached as figures
from harness.speed.targets import (
    AIMS,
    EAGER,
    GEMM,
    JAX_NATIVE,
    JAX_SCAN,
    LAYER,
    LSTM,
    POOLING,
    TARGETS,
    Arm,
)
from harness.summary import bracket, count, duration, labelled, number

NOTHING = figure.Html("<p>No part of torch_native was timed in this run.</p>")
COLUMNS: dict[str, Arm] = {
    "layer": LAYER,
    "GEMMs alone": GEMM,
    "pooling alone": POOLING,
    "nn.LSTM": LSTM,
}
RATIOS: dict[str, tuple[Arm, Arm]] = {
    "layer / GEMMs": (LAYER, GEMM),
    "nn.LSTM / layer": (LSTM, LAYER),
    "nn.LSTM / GEMMs (ceiling)": (LSTM, GEMM),
    "torch_eager / layer": (EAGER, LAYER),
    "jax_scan / layer": (JAX_SCAN, LAYER),
    "jax_native / layer": (JAX_NATIVE, LAYER),
}
STAGED = "no-fusion floor"
MARKS = {"met": "✓", "missed": "✗"}


def reached(
    frame: pd.DataFrame, rounds: pd.DataFrame, memory: pd.DataFrame, manifest: Mapping[str, Any]
) -> figure.Html:
    """The table of what must be reached: cells, target, reached, verdict; and the aims beyond."""
    if set(frame["device"]) == {"cuda"}:
        ceilings = manifest.get("ceilings") or {}
        return _told(device_targets.table(frame, ceilings.get("copy_bytes")), frame)
    must = figures.table(frame, rounds, TARGETS)
    must = pd.concat([must, pd.DataFrame([figures.flat_cost(frame), figures.flat_memory(memory)])])
    beyond = _verdicts(figures.table(frame, rounds, AIMS))
    return _told(must, frame, "<h3>Beyond it</h3>", beyond)


def _told(must: pd.DataFrame, frame: pd.DataFrame, *beyond: str) -> figure.Html:
    words = [word.partition(":")[0] for word in must["verdict"]]
    amounts = {word: words.count(word) for word in ("met", "missed", "open", "not measured")}
    lead = ", ".join(f"{amount} {word}" for word, amount in amounts.items() if amount)
    noisy = frame.loc[frame["noisy"], "point_id"].nunique()
    note = (
        f"The machine was busy, or identical code differed, at {count(noisy, 'grid point')} of "
        f"{frame['point_id'].nunique()}; their figures are in the table like all others."
    )
    return figure.Html(
        f'<p class="lead">{escape(f"Of {len(must)} lines: {lead}.")}</p>',
        f'<p class="note">{escape(note)}</p>' * bool(noisy),
        _verdicts(must),
        *beyond,
    )


def _verdicts(lines: pd.DataFrame) -> str:
    signs = [MARKS.get(word.partition(":")[0], "·") for word in lines["verdict"]]
    told = [f"{sign} {word}" for sign, word in zip(signs, lines["verdict"], strict=True)]
    shown = lines.assign(verdict=told)
    order = ["verdict", "what", "reached", "target", "remarks", "medians", "cells"]
    text = tables.table(shown[order], wide=" ".join(order[:-1]))
    return f'<div class="lines">{text}</div>'


def part_times(frame: pd.DataFrame) -> figure.Html:
    """Smallest and median time of the layer, its parts and nn.LSTM in every cell, and the floor."""
    cells = _cells(frame)
    if cells.empty:
        return NOTHING
    shown = _places(cells)
    for name in (name for name in COLUMNS if name in cells):
        shown[name] = [
            f"{duration(row[name])} ({duration(row[f'{name} median'])})"
            if pd.notna(row[name]) else "–"
            for row in cells.to_dict("records")
        ]  # fmt: skip
    if STAGED in cells:
        shown[STAGED] = cells[STAGED].map(duration)
    shown["cost per step"] = (cells["layer"] / cells["steps"]).map(duration)
    return figure.Html(tables.table(shown), figure.csv_link(cells, "part-times"))


def part_ratios(frame: pd.DataFrame, rounds: pd.DataFrame) -> figure.Html:
    """The ratios in every cell: of the smallest samples, and the median over rounds beside it."""
    cells = _cells(frame)
    if cells.empty:
        return NOTHING
    shown, data = _places(cells), cells[["kind", "dtype", "batch", "steps", "hidden_size"]]
    for name, (over, under) in RATIOS.items():
        found = figures.ratios(frame, rounds, over, under).drop_duplicates("point_id")
        if found.empty:
            continue
        found = found.set_index("point_id").reindex(cells["point_id"])
        shown[name] = [
            f"{number(row.ratio)} · {bracket(row.median, row.lo, row.hi)}"
            if pd.notna(row.ratio) else "–"
            for row in found.itertuples()
        ]  # fmt: skip
        data = data.assign(**{name: found["ratio"].to_numpy()})
    words = (
        "In each cell the ratio of the smallest samples, then the median over rounds with its 95 % "
        "interval. A ratio of two times: above 1 the second is faster."
    )
    return figure.Html(f"<p>{words}</p>", tables.table(shown), figure.csv_link(data, "part-ratios"))


def part_dots(frame: pd.DataFrame) -> figure.Html:
    """Dots: layer, pooling, nn.LSTM and the no-fusion floor as multiples of the GEMMs alone."""
    cells = _cells(frame)
    names = [name for name in (*COLUMNS, STAGED) if name in cells]
    if "GEMMs alone" not in names:
        return NOTHING
    panels = [
        _panel(group, ", ".join(filter(None, title)), names)
        for title, group in cells.groupby(["kind", "dtype"], sort=False)
    ]
    return figure.Html(figure.legend(names), figure.row(panels))


def _panel(group: pd.DataFrame, title: str, names: list[str]) -> str:
    usual = group["hidden_size"].mode()[0]
    places = [
        f"{b} × {t}" + f", {h} units" * bool(h != usual)
        for b, t, h in group[["batch", "steps", "hidden_size"]].itertuples(index=False)
    ]
    times = group[names].div(group["GEMMs alone"], axis=0)
    long = times.assign(place=range(len(times))).melt("place", var_name="what").dropna()
    with figure.drawing(3.9, 0.85 + 0.24 * len(places)) as canvas:
        axes = canvas.subplots()
        axes.axvline(1, color=figure.GREY, linewidth=1)
        _marks(axes, long["value"], long["place"].to_numpy(), long["what"], names)
        axes.set_yticks(range(len(places)), places)
        axes.set(title=title, xlabel="times its GEMMs alone", ylabel="batch × steps")
        axes.set_xscale("log")
        axes.set_ylim(len(places) - 0.5, -0.5)
        _plain_log(axes, "x", long["value"])
        axes.grid(axis="both")
    layer = times["layer"] if "layer" in times else pd.Series(dtype=float)
    words = (
        f"{title}: smallest time as a multiple of the GEMMs alone for {', '.join(names)}; the "
        f"layer lies between {number(layer.min())} and {number(layer.max())} in "
        f"{count(len(places), 'cell')}."
    )
    data = group[["kind", "dtype", "batch", "steps"]].join(times)
    return figure.panel(canvas, figure.slug("parts", title), words, data)


def step_costs(frame: pd.DataFrame) -> figure.Html:
    """The cost of one step by length, of the layer and its parts."""
    found = figures.series(frame)
    if found.empty:
        return figure.Html("<p>No series of lengths was timed in this run.</p>")
    names = {"default": "layer", "gemm": "GEMMs alone", "pooling": "pooling alone"}
    shown = pd.DataFrame({"steps": found.index})
    for mode, name in names.items():
        if mode in found:
            shown[name] = found[mode].map(duration).to_numpy()
    return figure.Html(tables.table(shown), figure.csv_link(found.reset_index(), "cost-per-step"))


def memory(frame: pd.DataFrame) -> figure.Html:
    """Peak memory of one call beyond inputs, weights and outputs, by contender and length."""
    if frame.empty:
        return figure.Html("<p>This run measured no memory.</p>")
    good = frame[frame["status"] == "ok"]
    if good.empty:
        return figure.Html("<p>The memory of no contender could be measured.</p>")
    wide = good.pivot_table(index="steps", columns="impl", values="extra_bytes", aggfunc="median")
    shown = pd.DataFrame({"steps": wide.index})
    for name in wide:
        shown[name] = [_mebi(value) for value in wide[name]]
    outputs = good.groupby("steps")["output_bytes"].median().reindex(wide.index)
    shown["outputs alone"] = [_mebi(value) for value in outputs]
    methods = "; ".join(sorted(good["mem_method"].unique()))
    return figure.Html(
        tables.table(shown), f"<p>{escape(methods)}.</p>", figure.csv_link(good, "memory")
    )


def _mebi(value: float) -> str:
    return "–" if pd.isna(value) else f"{number(value / 2**20)} MiB"


def _cells(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per grid point that has parts: its fields, and by name the smallest time in ns."""
    own = labelled(frame[(frame["status"] == "ok") & ~frame["twin"]])
    fields = ["point_id", "kind", "dtype", "batch", "steps", "hidden_size", "scene"]
    out = pd.DataFrame()
    for name, (impl, mode) in COLUMNS.items():
        some = own[(own["impl"] == impl) & (own["mode"] == mode)].drop_duplicates("point_id")
        if some.empty:
            continue
        some = some.rename(columns={"min_ns": name, "median_ns": f"{name} median"})
        times = some[["point_id", name, f"{name} median"]]
        if name == "layer":
            staged = some.assign(**{STAGED: some["staged_floor_s"] * 1e9})
            out = staged[[*fields, name, f"{name} median", STAGED]]
        elif not out.empty:
            out = out.merge(times, on="point_id", how="left")
    if not {"GEMMs alone", "pooling alone"} & set(out):
        return pd.DataFrame()
    out = out.dropna(axis=1, how="all")
    kinds = {"forward": 0, "backward": 1}
    order = out.assign(_kind=out["kind"].map(kinds), _dtype=out["dtype"] != "float32")
    by = ["_kind", "_dtype", "hidden_size", "batch", "steps"]
    order = order.sort_values(by, ascending=[True, True, False, True, True])
    return order.drop(columns=["_kind", "_dtype"]).reset_index(drop=True)


def _places(cells: pd.DataFrame) -> pd.DataFrame:
    own = cells[["kind", "dtype", "batch", "steps"]].copy()
    if cells["hidden_size"].nunique() > 1:
        own["units"] = cells["hidden_size"]
    return own
