"""How near parts and layers come to the machine's measured rates: bandwidth, products, floor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from harness.plots import figure, tables
from harness.speed.device_targets import pooling_rates
from harness.summary import number

FIELDS = ["kind", "dtype", "batch", "steps", "hidden_size"]


def part_rates(frame: pd.DataFrame, manifest: Mapping[str, Any]) -> figure.Html:
    """By cell and implementation: pooling GB/s beside a copy's, products' rate, layer x floor."""
    own = frame[(frame["status"] == "ok") & ~frame["twin"]]
    pooled = own[own["mode"] == "pooling"]
    if pooled["bytes"].isna().all():
        return figure.Html("<p>No pooling alone was timed in this run.</p>")
    ceilings = manifest.get("ceilings") or {}
    copy = ceilings.get("copy_bytes")
    cells = pooled.assign(rate=pooling_rates(pooled)).dropna(subset=["rate"])
    cells = cells.drop_duplicates(["point_id", "impl"]).sort_values(["impl", *FIELDS])
    shown = cells[["impl", *FIELDS]].rename(columns={"impl": "implementation"})
    shown = shown.rename(columns={"hidden_size": "units"})
    shown["traffic, MB"] = (cells["bytes"] * 1e-6).map(number)
    shown["pooling, GB/s"] = (cells["rate"] * 1e-9).map(number)
    if copy:
        shown["of a copy, %"] = (100 * cells["rate"] / copy).map(number)
    products = _beside(own[own["mode"] == "gemm"], cells)
    rates = products["tflops"] * products["median_ns"] / products["min_ns"]
    most = cells["dtype"].map(ceilings.get("gemm_flops") or {}).to_numpy(dtype=float)
    shown["products, TFLOP/s"] = rates.map(number).to_numpy()
    shown["of the matrix rate, %"] = pd.Series(1e14 * rates.to_numpy() / most).map(number).array
    for mode, name in (("default", "layer × floor"), ("graph", "replayed layer × floor")):
        layer = _beside(own[own["mode"] == mode], cells)
        times = layer["min_ns"] * 1e-9 / layer["floor_s"]
        if times.notna().any():
            shown[name] = times.map(number).to_numpy()
    told = "" if not copy else f"A copy moves {number(copy * 1e-9)} GB/s on this machine. "
    words = f"<p>{told}Rates are those of the smallest samples.</p>"
    return figure.Html(words, tables.table(shown), figure.csv_link(shown, "part-rates"))


def _beside(rows: pd.DataFrame, cells: pd.DataFrame) -> pd.DataFrame:
    """The rows of the same points and implementations, in the order of `cells`."""
    keys = ["point_id", "impl"]
    one = rows.drop_duplicates(keys).set_index(keys)
    return one.reindex(pd.MultiIndex.from_frame(cells[keys]))
