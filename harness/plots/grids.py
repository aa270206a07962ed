"""Heat maps of batch x steps: the speedup to the LSTM, and the paper's figure 4 beside ours."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle

from harness.plots import figure, tables
from harness.summary import arms, labelled, listing, number

MARKS = {"FASTER": "▲", "SLOWER": "▼", "SAME": "="}
COLOURS = "vlag_r"
UNMEASURED = "·"
PLACES = {"cpu": "a CPU", "cuda": "a GPU"}
LEAST_SCALE, LARGEST_SCALE = 1.0, 5.0


def speedup_maps(frame: pd.DataFrame) -> figure.Html:
    """One heat map per kind and contender: the ratio to the LSTM, its interval and its mark."""
    frame = labelled(frame[~frame["twin"]])
    if frame["speedup"].notna().sum() == 0:
        return figure.Html("<p>No ratio to an LSTM was measured in this run.</p>")
    scale, parts = _scale(frame["speedup"]), []
    frame, absent = _without_absent(frame)
    for (scene, kind), group in frame.groupby(["scene", "kind"], sort=False):
        maps = [
            _map(own, f"{name}", figure.slug("speedup", kind, name, scene), scale)
            for name, own in group.groupby("contender")
            if not _only_baseline(own)
        ]
        heading = f"{kind}, {scene}" if scene else str(kind)
        parts += [f"<h3>{escape(heading)}</h3>", figure.row(maps)]
    return figure.Html(_key(scale), *parts, absent)


def paper(frame: pd.DataFrame, published: pd.DataFrame) -> figure.Html:
    """The paper's inference speedups beside the fastest QRNN of this run, on one grid.

    Of a run in several number formats only float32 is shown, of one with CUDA-graph replays only
    those, so that the cells are comparable.
    """
    ours = arms(labelled(frame))
    ours = ours[(ours["kind"] == "forward") & (ours["family"] == "qrnn")]
    if (ours["dtype"] == "float32").any():
        ours = ours[ours["dtype"] == "float32"]
    replays = bool((ours["mode"] == "graph").any())
    if replays:
        ours = ours[ours["mode"] == "graph"]
    if ours.empty:
        return figure.Html("<p>This run timed no forward cell of a QRNN, so nothing compares.</p>")
    best = ours.loc[ours.groupby(["batch", "steps"])["speedup"].idxmax()]
    wide = best.pivot(index="batch", columns="steps", values="speedup")
    rows = wide.index.union(published.index)
    columns = wide.columns.union(published.columns)
    mine, theirs = (t.reindex(index=rows, columns=columns) for t in (wide, published))
    scale = _scale(np.append(wide.to_numpy(), published.to_numpy()))
    ratio = ["speedup", "speedup_lo", "speedup_hi", "contender"]
    both = (
        theirs.stack()
        .rename("paper")
        .to_frame()
        .join(best.set_index(["batch", "steps"])[ratio], how="outer")
    )
    both = both.reset_index().sort_values(["batch", "steps"])
    title = "this run (fastest QRNN" + ", graph replays" * replays + ")"
    panels = [
        _plain_map(theirs, "the paper (GPU, cuDNN LSTM)", "paper-figure-4", scale),
        _plain_map(mine, title, "paper-ours", scale),
    ]
    words = f"<p>{escape(_against_paper(both.dropna(subset=['paper', 'speedup']), ours))}</p>"
    return figure.Html(
        _key(scale),
        figure.row(panels),
        figure.csv_link(both, "paper-beside-ours"),
        words,
        tables.paper_table(both),
    )


def _against_paper(both: pd.DataFrame, ours: pd.DataFrame) -> str:
    places = [PLACES.get(device, device) for device in sorted(ours["device"].unique())]
    sizes = [str(v) for v in sorted(ours["hidden_size"].unique())]
    text = (
        "The paper timed one 320-unit layer on a GPU against NVIDIA's cuDNN LSTM and does not "
        f"state the precision or the kernel width; this run has {listing(sizes)} units in "
        f"{listing(sorted(ours['dtype'].unique()))} on {listing(places)}. "
        "The two tables are not the same experiment: "
    )
    if both.empty:
        return text + "and they share no batch x steps cell."
    ratio = (both["speedup"] / both["paper"]).to_numpy()
    return text + (
        f"in the {len(both)} cells they share, ours is between {number(ratio.min())} and "
        f"{number(ratio.max())} times the published speedup."
    )


def _without_absent(frame: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """The frame without contenders that could not run at all, and a sentence that names them."""
    absent = frame.groupby("contender")["status"].transform(
        lambda words: words.isin(["missing", "unsupported", "skipped"]).all()
    )
    names = frame[absent].groupby("contender")["status"].first()
    if names.empty:
        return frame, ""
    who = listing([f"{name} ({word})" for name, word in names.items()])
    return frame[~absent], f"<p>Without a map, because it ran in no cell: {escape(who)}.</p>"


def _only_baseline(contender: pd.DataFrame) -> bool:
    return bool((contender["contender"] == contender["yardstick"]).all())


def _scale(values: Sequence[float] | pd.Series | np.ndarray) -> float:
    """Largest |log2 ratio| that the colours tell apart."""
    logs = np.abs(np.log2(pd.Series(values).dropna().to_numpy(dtype=float)))
    return float(np.clip(logs.max(initial=0), LEAST_SCALE, LARGEST_SCALE))


def _map(contender: pd.DataFrame, title: str, name: str, scale: float) -> str:
    """The heat map of one contender; repeated points show their mean and widest interval."""
    points = contender.groupby(["batch", "steps"]).apply(_merge, include_groups=False)
    logs = np.log2(points["speedup"].astype(float)).unstack()
    words = points["text"].unstack().fillna("")
    width = 0.75 + 0.86 * logs.shape[1]
    with figure.drawing(width, 0.75 + 0.5 * logs.shape[0]) as canvas:
        axes = canvas.subplots()
        _heat(axes, logs, words, scale)
        axes.set_title(title)
    told = f"Speedup of {title} to the LSTM, batch down, steps across: " + "; ".join(
        f"{batch} x {steps}: {' '.join(text.split())}"
        for (batch, steps), text in points["text"].items()
    )
    columns = ["kind", "contender", "batch", "steps", "status", "speedup", "speedup_lo"]
    more = ["speedup_hi", "verdict", "yardstick"]
    return figure.panel(canvas, name, told, contender[[*columns, *more]])


def _merge(point: pd.DataFrame) -> pd.Series:
    """One cell of the map from the repeats of one point (mostly one row)."""
    good = point[(point["status"] == "ok") & point["speedup"].notna()]
    if len(good) < len(point) or good.empty:
        status = point.loc[~point.index.isin(good.index), "status"].iloc[0]
        return pd.Series({"speedup": np.nan, "text": "no ratio" if status == "ok" else status})
    if (point["contender"] == point["yardstick"]).all():
        return pd.Series({"speedup": 1.0, "text": "yardstick"})
    speedup = float(np.exp(np.log(good["speedup"]).mean()))
    verdicts = set(good["verdict"].dropna()) if good["verdict"].notna().all() else set()
    mark = MARKS.get(verdicts.pop(), "") if len(verdicts) == 1 else ""
    span = f"{number(good['speedup_lo'].min())}–{number(good['speedup_hi'].max())}"
    mark = "noisy" if good["noisy"].any() else mark
    return pd.Series({"speedup": speedup, "text": f"{number(speedup)} {mark}\n{span}"})


def _heat(axes: Axes, logs: pd.DataFrame, words: pd.DataFrame, scale: float) -> None:
    """Coloured cells with text; where there is no number, a hatched one with its reason."""
    sns.heatmap(
        logs.astype(float), ax=axes, cmap=COLOURS, vmin=-scale, vmax=scale, cbar=False,
        annot=words.where(logs.notna(), "").to_numpy(), fmt="", annot_kws={"size": 8.5},
        linewidths=1.5, linecolor=(0, 0, 0, 0),
    )  # fmt: skip
    figure.readable(axes)
    for (down, across), value in np.ndenumerate(logs.to_numpy()):
        word = words.iloc[down, across]
        if not np.isnan(value) or not word:
            continue
        if word != UNMEASURED:
            box = Rectangle((across + 0.02, down + 0.02), 0.96, 0.96, fill=False, hatch="////",
                            edgecolor=figure.GREY, linewidth=0.6)  # fmt: skip
            axes.add_patch(box)
        axes.text(across + 0.5, down + 0.5, word, ha="center", va="center", size=8.5)
    axes.set(xlabel="steps", ylabel="batch")
    axes.tick_params(length=0, labelrotation=0)


def _plain_map(table: pd.DataFrame, title: str, name: str, scale: float) -> str:
    words = table.map(lambda value: UNMEASURED if np.isnan(value) else _short(value))
    with figure.drawing(0.75 + 0.58 * table.shape[1], 0.75 + 0.34 * table.shape[0]) as canvas:
        axes = canvas.subplots()
        _heat(axes, np.log2(table), words, scale)
        axes.set_title(title)
    told = f"Inference speedup to the LSTM, {title}; the table below holds the numbers."
    return figure.panel(canvas, name, told)


def _short(value: float) -> str:
    return f"{value:.1f}" if value >= 1 else number(value, 2)


def _key(scale: float) -> str:
    """Swatches from "LSTM faster" to "QRNN faster", and what the signs mean."""
    stops = np.linspace(-scale, scale, 7)
    colours = sns.color_palette(COLOURS, as_cmap=True)
    swatches = ""
    for stop in stops:
        colour = colours((stop + scale) / (2 * scale))
        style = f"background:{to_hex(colour)};color:{figure.ink(colour)}"
        swatches += f'<span style="{style}">{number(2.0**stop, 2)}</span>'
    return (
        f'<div class="key"><span>LSTM faster</span><span class="swatches">{swatches}</span>'
        "<span>contender faster</span></div>"
    )
