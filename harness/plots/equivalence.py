"""Is it the same mathematics? Errors against the float64 oracle, per contender, check and dtype."""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from harness import facts, summary
from harness.plots import figure, tables
from harness.summary import number

LEAST = 1e-4
"""Shares of the tolerance below this look alike."""


def proof(frame: pd.DataFrame) -> figure.Html:
    """What the checks prove, in words."""
    first, *rest = facts.proof(frame)
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in frame.attrs.get("notes", []))
    return figure.Html(
        f'<p class="lead">{escape(first)}</p>', f"<p>{escape(' '.join(rest))}</p>", notes
    )


def error_maps(frame: pd.DataFrame) -> figure.Html:
    """One map per dtype: the largest error as a share of its tolerance, checks down."""
    frame = frame[frame["check"].notna()]
    if frame.empty:
        return figure.Html("<p>No conformance run is recorded in this folder.</p>")
    panels = [_map(group, str(dtype)) for dtype, group in frame.groupby("dtype", sort=False)]
    return figure.Html(figure.row(panels), _worst_table(frame))


def failed_claims(frame: pd.DataFrame) -> figure.Html:
    """Every claim that failed, in its own words, with the worst case."""
    failed = frame[frame["status"] == "failed"]
    if failed.empty:
        return figure.Html("<p>No claim failed.</p>")
    items = []
    for (impl, check, dtype), group in failed.groupby(["impl", "check", "dtype"], dropna=False):
        worst = group.loc[_share(group).fillna(np.inf).idxmax()]
        spread = summary.count(len(group), "case")
        who = ", ".join(word for word in (impl, dtype) if isinstance(word, str))
        at = f"{check}, {spread}" if isinstance(check, str) else spread
        text = f"{who}: it does not hold that “{worst['claim']}” ({at})."
        items.append(f"<li>{escape(text)}<br>{escape(_detail(worst))}</li>")
    return figure.Html(f'<ul class="failed">{"".join(items)}</ul>')


def claims(frame: pd.DataFrame) -> figure.Html:
    """The list of claims, and how many cases of each passed."""
    frame = frame[frame["check"].notna()]
    if frame.empty:
        return figure.Html("<p>No conformance run is recorded in this folder.</p>")
    rows = [
        {
            "check": check,
            "claim": group["claim"].iloc[0],
            "passed": int((group["status"] == "passed").sum()),
            "failed": int((group["status"] == "failed").sum()),
            "not applicable": int((~group["status"].isin(["passed", "failed"])).sum()),
        }
        for check, group in frame.groupby("check", sort=False)
    ]
    return figure.Html(tables.table(pd.DataFrame(rows), wide="claim"))


def gate(frame: pd.DataFrame) -> figure.Html:
    """The gate in front of the clock: worst error of each contender in the timed cells."""
    own = frame[~frame["twin"] & frame["gate_error"].notna()]
    if own.empty:
        return figure.Html("<p>No timed cell recorded a gate.</p>")
    rows = []
    for (name, kind, dtype), group in own.groupby(["contender", "kind", "dtype"]):
        worst = group.loc[(group["gate_error"] / group["gate_tolerance"]).idxmax()]
        rows.append(
            {
                "contender": name,
                "kind": kind,
                "dtype": dtype,
                "cells": len(group),
                "largest error": f"{worst['gate_error']:.1e}",
                "tolerance": f"{worst['gate_tolerance']:.0e}",
                "in": str(worst["gate_worst"]),
                "passed": "yes" if worst["gate_error"] <= worst["gate_tolerance"] else "no",
            }
        )
    return figure.Html(tables.table(pd.DataFrame(rows)))


def _share(frame: pd.DataFrame) -> pd.Series:
    """Error as a share of its tolerance; a claim without a number counts as 0 or infinite."""
    share = frame["error"].astype(float) / frame["tolerance"].astype(float)
    share = share.where(frame["tolerance"].astype(float) > 0)
    failed = frame["status"] == "failed"
    return share.where(~(failed & ~(share > 1)), np.inf)


def _worst(group: pd.DataFrame) -> pd.Series:
    """One check of one contender: its worst status and its largest share of the tolerance."""
    order = ["failed", "passed", "missing", "unsupported", "skipped"]
    status = next((word for word in order if (group["status"] == word).any()), "skipped")
    share = group.loc[group["status"] == status, "share"].max()
    return pd.Series({"status": status, "share": share})


def _map(group: pd.DataFrame, dtype: str) -> str:
    group = group.assign(share=_share(group))
    worst = group.groupby(["check", "impl"], sort=False).apply(_worst, include_groups=False)
    share = worst["share"].astype(float).unstack()
    status = worst["status"].unstack()
    share, status = share.sort_index(axis=1), status.sort_index(axis=1)
    width = 1.2 + 0.075 * max(map(len, share.index)) + 0.52 * share.shape[1]
    with figure.drawing(width, 1.5 + 0.23 * share.shape[0]) as canvas:
        axes = canvas.subplots()
        passed = share.where(status == "passed").clip(lower=LEAST)
        sns.heatmap(
            np.log10(passed), ax=axes, cmap="crest", vmin=np.log10(LEAST), vmax=0, cbar=False,
            annot=passed.map(_percent).to_numpy(), fmt="", annot_kws={"size": 7.5},
            linewidths=1, linecolor=(0, 0, 0, 0),
        )  # fmt: skip
        figure.readable(axes)
        _others(axes, status, passed)
        axes.set(title=f"{dtype}: largest error, % of tolerance", xlabel="", ylabel="")
        axes.tick_params(length=0)
        axes.tick_params(axis="x", labelrotation=40)
        for label in axes.get_xticklabels():
            label.set_horizontalalignment("right")
            label.set_rotation_mode("anchor")
    words = f"{dtype}: largest error of every check and contender as a share of its tolerance; "
    words += "the table below holds the numbers."
    data = worst.reset_index().assign(dtype=dtype)
    return figure.panel(canvas, figure.slug("errors", dtype), words, data)


def _others(axes: Axes, status: pd.DataFrame, passed: pd.DataFrame) -> None:
    """Failed cells red and crossed, cells without a number in words, absent ones hatched."""
    short = {"unsupported": "n/a", "missing": "absent", "skipped": "skipped", "passed": "holds"}
    for (down, across), word in np.ndenumerate(status.to_numpy()):
        if not np.isnan(passed.iloc[down, across]):
            continue
        if word == "failed":
            axes.add_patch(Rectangle((across, down), 1, 1, color="#b2182b", linewidth=0))
            axes.text(across + 0.5, down + 0.5, "FAILED", ha="center", va="center", size=7,
                      color="#ffffff", weight="bold")  # fmt: skip
            continue
        box: dict[str, Any] = {"color": "#d9ead3", "linewidth": 0}
        if word != "passed":
            box = {"fill": False, "hatch": "////", "edgecolor": figure.GREY, "linewidth": 0}
        axes.add_patch(Rectangle((across + 0.03, down + 0.03), 0.94, 0.94, **box))
        text = short.get(str(word), "") if isinstance(word, str) else ""
        colour = "#1b1b1b" if word == "passed" else "black"
        axes.text(across + 0.5, down + 0.5, text, ha="center", va="center", size=7, color=colour)


def _percent(share: float) -> str:
    if np.isnan(share):
        return ""
    return "<0.1" if share <= 1e-3 else number(100 * share, 2)


def _worst_table(frame: pd.DataFrame) -> str:
    measured = frame[frame["error"].notna() & frame["tolerance"].notna()]
    measured = measured.assign(share=_share(measured)).dropna(subset="share")
    if measured.empty:
        return ""
    at = measured.groupby(["impl", "dtype", "check"], sort=False)["share"].idxmax()
    rows = [
        {
            "contender": row.impl,
            "dtype": row.dtype,
            "check": row.check,
            "status": row.status,
            "largest error": f"{row.error:.1e}",
            "tolerance": f"{row.tolerance:.0e}",
            "in": row.quantity,
            "case": row.spec,
        }
        for row in measured.loc[at].itertuples()
    ]
    shown = tables.table(pd.DataFrame(rows), wide="case")
    return f"<details><summary>The numbers behind the maps</summary>{shown}</details>"


def _detail(row: pd.Series) -> str:
    parts = [f"case {row['spec']}"] if isinstance(row["spec"], str) else []
    if pd.notna(row["error"]):
        at = f" in {row['quantity']}" if isinstance(row["quantity"], str) else ""
        parts.append(f"relative error {row['error']:.2g}{at}, allowed {row['tolerance']:.0e}")
    if isinstance(row["message"], str) and row["message"]:
        parts.append(row["message"])
    return "; ".join(parts)
