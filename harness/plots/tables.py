"""Words and tables of the reports as HTML: verdict, status strip, cells, failures, machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

import pandas as pd

from harness import facts, summary
from harness.plots import figure
from harness.summary import duration, interval, labelled, number

CSV_COLUMNS = (
    "kind batch steps contender median_ns ci_lo_ns ci_hi_ns speedup speedup_lo speedup_hi verdict "
    "yardstick graph_speedup graph_speedup_lo graph_speedup_hi tokens_per_s tflops x_of_floor "
    "x_of_staged"
).split()


def verdict(frame: pd.DataFrame) -> figure.Html:
    """The result in words, and remarks about the file where there are any."""
    first, *rest = summary.verdict(frame)
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in frame.attrs.get("notes", []))
    text = " ".join(rest)
    return figure.Html(f'<p class="lead">{escape(first)}</p>', f"<p>{escape(text)}</p>", notes)


def status(frame: pd.DataFrame, manifest: Mapping[str, Any]) -> figure.Html:
    """The strip of facts under the verdict."""
    return figure.Html(strip(facts.strip(frame, manifest)))


def strip(found: list[facts.Fact]) -> str:
    """Labelled facts that wrap: (label, value, tone), tone "good", "bad" or ""."""
    items = "".join(
        f'<div class="{tone}"><dt>{escape(label)}</dt><dd>{escape(value)}</dd></div>'
        for label, value, tone in found
    )
    return f'<dl class="strip">{items}</dl>'


def cells(frame: pd.DataFrame) -> figure.Html:
    """Every timed cell: time, interval, ratio, rates, distance to the floor."""
    own = labelled(frame[~frame["twin"] & (frame["status"] == "ok")])
    if own.empty:
        return figure.Html("<p>No cell was timed.</p>")
    own = own.sort_values(["scene", "kind", "batch", "steps", "median_ns"])
    shown = pd.DataFrame(
        {
            "kind": own["kind"],
            "batch": own["batch"],
            "steps": own["steps"],
            **({"also": own["scene"]} if own["scene"].any() else {}),
            "contender": own["contender"],
            "median": own["median_ns"].map(duration),
            "95 % interval": [
                f"{duration(lo)} – {duration(hi)}"
                for lo, hi in zip(own["ci_lo_ns"], own["ci_hi_ns"], strict=True)
            ],
            "speedup to the LSTM": [_ratio(row) for row in own.to_dict("records")],
            **_beside_replay(own),
            "verdict": [_verdict(row) for row in own.to_dict("records")],
            "tokens/s": own["tokens_per_s"].map(_thousands),
            "GFLOP/s": (own["tflops"].astype(float) * 1e3).map(number),
            "× floor": own["x_of_floor"].map(number),
            "× no-fusion floor": own["x_of_staged"].map(number),
        }
    )
    return figure.Html(table(shown), figure.csv_link(own[CSV_COLUMNS], "cells"))


def failures(frame: pd.DataFrame) -> figure.Html:
    """Cells that failed, were not run or are noisy: each reason once, with whom and where."""
    bad = summary.failures(frame)
    if bad.empty:
        return figure.Html("<p>Every planned cell was timed, and none was noisy.</p>")
    bad["reason"] = bad["reason"].fillna("no reason recorded")
    rows = [
        {
            "status": status,
            "contender": ", ".join(sorted(group["contender"].unique())),
            "reason": reason,
            "cells": _where(group),
        }
        for (status, reason), group in bad.groupby(["status", "reason"])
    ]
    return figure.Html(table(pd.DataFrame(rows), wide="contender reason cells"))


def environment(manifest: Mapping[str, Any]) -> figure.Html:
    """The machine and the software of the run, as its fingerprint recorded them."""
    found = [
        *_flat(manifest.get("machine") or {}),
        *_ceilings(manifest.get("ceilings") or {}),
    ]
    if not found:
        return figure.Html("<p>The manifest records no machine.</p>")
    return figure.Html(table(pd.DataFrame(found, columns=["what", "value"]), wide="value"))


def reproduce(manifest: Mapping[str, Any]) -> figure.Html:
    """The command that measures this grid again."""
    return figure.Html(f"<pre>{escape(facts.command(manifest))}</pre>")


def paper_table(both: pd.DataFrame) -> str:
    """The cells of the paper's figure 4 and ours in one table."""
    shown = pd.DataFrame(
        {
            "batch": both["batch"],
            "steps": both["steps"],
            "paper": both["paper"].map(lambda value: number(value, 3)),
            "this run": [
                interval(row) if pd.notna(row["speedup"]) else "not measured"
                for row in both.to_dict("records")
            ],
            "contender": both["contender"].fillna("–"),
        }
    )
    return f"<details><summary>The two tables in numbers</summary>{table(shown)}</details>"


def table(frame: pd.DataFrame, wide: str = "") -> str:
    """`frame` as a table that scrolls by itself; columns named in `wide` may wrap."""
    numeric = {name for name in frame if _looks_numeric(frame[name])}
    kinds = {
        name: "n" if name in numeric else "w" if name in wide.split() else "" for name in frame
    }

    def tag(name: str, kind: str, text: object) -> str:
        css = f' class="{kind}"' if kind else ""
        return f"<{name}{css}>{escape(str(text))}</{name}>"

    head = "".join(tag("th", kinds[name], name) for name in frame)
    body = "".join(
        "<tr>"
        + "".join(tag("td", k, v) for k, v in zip(kinds.values(), row, strict=True))
        + "</tr>"
        for row in frame.itertuples(index=False, name=None)
    )
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="table"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _looks_numeric(column: pd.Series) -> bool:
    texts = column.astype(str)
    return bool(texts.str.match(r"^(–|[\d.,]+(e[-+]?\d+)?( (ns|µs|ms|s))?)$").all())


def _ratio(row: dict[str, Any]) -> str:
    if row["contender"] == row["yardstick"]:
        return "yardstick"
    return interval(row) if pd.notna(row["speedup"]) else "–"


def _beside_replay(own: pd.DataFrame) -> dict[str, list[str]]:
    """A column for what is no replay in a run that has some: the ratio to the LSTM's replay."""
    if own["graph_speedup"].isna().all():
        return {}
    told = [
        interval(row, "graph_speedup") if pd.notna(row["graph_speedup"]) else "–"
        for row in own.to_dict("records")
    ]
    return {"to the LSTM's replay": told}


def _verdict(row: dict[str, Any]) -> str:
    words = [] if pd.isna(row["verdict"]) else [str(row["verdict"])]
    return " ".join([*words, *(["noisy"] if row["noisy"] else [])])


def _thousands(value: float) -> str:
    return "–" if pd.isna(value) else f"{value:,.0f}"


def _where(group: pd.DataFrame) -> str:
    """The cells of a group in words, or how many of which kinds where they are many."""
    places = group["cell"].drop_duplicates()
    if len(places) > 8:
        return f"{len(places)} cells ({', '.join(sorted(group['kind'].unique()))})"
    return "; ".join(places)


def _ceilings(measured: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The machine's measured limits in the units that people use."""
    for dtype, rate in (measured.get("gemm_flops") or {}).items():
        yield f"matrix product, {dtype}", f"{number(rate / 1e9)} GFLOP/s"
    units = {
        "copy_bytes": ("memory copy", 1e-9, "GB/s"),
        "exp_rate": ("exponentials", 1e-9, "G/s"),
        "dispatch_s": ("smallest call", 1e6, "µs"),
        "step_s": ("one step of an LSTM", 1e6, "µs"),
    }
    for name, (label, factor, unit) in units.items():
        if measured.get(name) is not None:
            yield label, f"{number(measured[name] * factor)} {unit}"
    if measured.get("source"):
        yield "limits measured with", str(measured["source"])


def _flat(nested: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested facts as (words, text), empty ones left out."""
    for name, value in nested.items():
        words = f"{prefix}{name}".replace("_", " ")
        if isinstance(value, Mapping):
            yield from _flat(value, "" if name in ("comparable", "recorded") else f"{words} ")
        elif isinstance(value, list | tuple) and any(isinstance(one, Mapping) for one in value):
            for number_, one in enumerate(value):
                yield from _flat(one, f"{words} {number_} ")
        elif isinstance(value, list | tuple):
            yield words, ", ".join(map(str, value)) or "none"
        elif value is not None and value != "":
            yield words, number(value, 4) if isinstance(value, float) else str(value)
