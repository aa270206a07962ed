"""What a CUDA run must reach, and whether it did: bandwidth of pooling, floor, the paper's cells.

Works on the table of `results.load(folder, parts=True)`. Times are those of the smallest samples;
a layer's are of its CUDA-graph replay where one was timed.
"""

from __future__ import annotations

import pandas as pd

from harness.results import PAPER_SPEEDUPS
from harness.speed.targets import ENOUGH
from harness.summary import interval, number

LAYER = "torch_cupy"
LARGE_BYTES, COPY_SHARE = 64e6, 0.85
MANY_TOKENS, FLOOR_TIMES = 8192, 1.2
PAPER_UNITS = 320


def table(frame: pd.DataFrame, copy_bytes: float | None) -> pd.DataFrame:
    """One line per target, with the columns of `harness.speed.reached.table`.

    Args:
        copy_bytes: measured copy bandwidth, bytes/s; None where no ceilings were measured.
    """
    own = frame[(frame["status"] == "ok") & ~frame["twin"] & (frame["impl"] == LAYER)]
    return pd.DataFrame([_bandwidth(own, copy_bytes), _floor(own), _paper(own)])


def pooling_rates(own: pd.DataFrame) -> pd.Series:
    """Bytes/s of the smallest sample of rows of mode "pooling"."""
    return own["bytes"] / own["min_ns"] * 1e9


def _line(
    words: tuple[str, str], shares: pd.Series, cells: pd.DataFrame, good: bool
) -> dict[str, str]:
    """One line; `shares` begins with the worst, `cells` are the rows that it was made of."""
    what, target = words
    verdict, reached, remarks = "not measured: its cells are not in this run", "–", ""
    if len(shares):
        verdict = "met" if good else "missed"
        reached = f"worst {number(shares.iloc[0])}, median {number(shares.median())}"
        fewest = int(cells.loc[shares.index, ["n", "rounds"]].min(axis=None))
        if fewest < ENOUGH:
            remarks = f"a figure of only {fewest} samples, {ENOUGH} are asked for"
            verdict = "open" if good else verdict
    line = {"what": what, "target": target, "verdict": verdict, "reached": reached}
    return line | {"medians": "–", "cells": str(len(shares)), "remarks": remarks}


def _bandwidth(own: pd.DataFrame, copy_bytes: float | None) -> dict[str, str]:
    some = own[(own["mode"] == "pooling") & (own["bytes"] >= LARGE_BYTES)]
    shares = (pooling_rates(some) / (copy_bytes or float("nan"))).dropna().sort_values()
    what = f"{LAYER}'s pooling alone / measured copy bandwidth, at 64 MB and more"
    good = bool((shares >= COPY_SHARE).all())
    return _line((what, f"at least {COPY_SHARE:g}"), shares, some, good)


def _floor(own: pd.DataFrame) -> dict[str, str]:
    some = _quickest(own[(own["dtype"] == "bfloat16") & own["floor_s"].notna()])
    some = some[some["batch"] * some["steps"] >= MANY_TOKENS]
    times = (some["min_ns"] * 1e-9 / some["floor_s"]).sort_values(ascending=False)
    what = f"{LAYER} / its floor, bfloat16, batch x steps of {MANY_TOKENS} and more"
    good = bool((times <= FLOOR_TIMES).all())
    return _line((what, f"at most {FLOOR_TIMES:g}"), times, some, good)


def _paper(own: pd.DataFrame) -> dict[str, str]:
    """The paper's 30 cells: every one at or above its ratio, replay against replay."""
    some = own[(own["mode"] == "graph") & (own["kind"] == "forward")]
    some = some[(some["dtype"] == "float32") & (some["hidden_size"] == PAPER_UNITS)]
    some = some.drop_duplicates(["batch", "steps"])
    published = PAPER_SPEEDUPS.stack().rename("paper").reset_index()
    both = some.merge(published, on=["batch", "steps"]).dropna(subset=["speedup"])
    shares = (both["speedup"] / both["paper"]).sort_values()
    enough = len(both) == len(published)
    what = f"{LAYER} replayed / the paper's speedup, float32 forward"
    line = _line((what, "at least 1"), shares, both, bool((shares >= 1).all()))
    line["cells"] = f"{len(both)} of {len(published)}"
    if len(both):
        row = both.loc[shares.index[0]]
        line["medians"] = f"{interval(row)} where the paper has {number(row['paper'])}"
        told = [f"{int((shares >= 1).sum())} cells reach it", line["remarks"]]
        line["remarks"] = "; ".join(filter(None, told))
        if not enough and line["verdict"] == "met":
            line["verdict"] = "open"
    return line


def _quickest(own: pd.DataFrame) -> pd.DataFrame:
    """Whole layers alone: of every point its replay, or the plain calls where there is none."""
    own = own[own["mode"].isin(["default", "graph"])]
    return own.sort_values("mode").drop_duplicates("point_id", keep="last")
