"""What the kernels must reach, and whether a run reached it: ratios of times, limits, verdicts.

Works on the tables of `harness.results`; draws nothing. A ratio counts by the smallest sample of
each side, which is the steadiest figure of interleaved samples; the median over rounds and its
interval stand beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from harness.speed.modes import named
from harness.speed.stats import paired_ratio
from harness.speed.targets import (
    ENOUGH,
    FLAT,
    FLAT_MEMORY,
    FLAT_MEMORY_SLACK,
    GEMM,
    LAYER,
    NAMES,
    POOLING,
    SERIES,
    Arm,
    Target,
    Where,
)
from harness.summary import SEED, bracket, count, number


def ratios(frame: pd.DataFrame, rounds: pd.DataFrame, over: Arm, under: Arm) -> pd.DataFrame:
    """Every cell where both were timed, with the ratio of their times, `over` / `under`.

    Args:
        frame: `results.load(folder, parts=True)`; rounds: `results.load_samples(folder)`.

    Returns:
        the rows of `under` with `ratio` (of the smallest samples), `median`, `lo`, `hi` (paired by
        round) and `samples` (interleaved ones: the rounds of the one with fewer).
    """
    own = _timed(frame)
    sides = [own[(own["impl"] == impl) & (own["mode"] == mode)] for impl, mode in (over, under)]
    keys = ["point_id", "sitting_id"]
    both = sides[1].merge(
        sides[0][[*keys, "cell_id", "min_ns", "n", "rounds"]], on=keys, suffixes=("", "_o")
    )
    cells = {*both["cell_id"], *both["cell_id_o"]}
    walls = {
        cell: group.sort_values("round")
        for cell, group in rounds[rounds["cell_id"].isin(cells)].groupby("cell_id")
    }
    paired = [_paired(walls, row) for row in both.to_dict("records")]
    middle = pd.DataFrame(paired, columns=["median", "lo", "hi"], index=both.index, dtype=float)
    # Samples of one block follow each other: interleaved are the rounds.
    fewest = both[["n", "n_o", "rounds", "rounds_o"]].min(axis=1)
    return both.assign(ratio=both["min_ns_o"] / both["min_ns"], samples=fewest).join(middle)


def _timed(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[(frame["status"] == "ok") & ~frame["twin"] & frame["min_ns"].notna()]


def _paired(walls: Mapping[str, pd.DataFrame], row: Mapping[str, Any]) -> tuple[float, ...]:
    """The median over rounds of over / under, with its interval; unknown without samples."""
    column = "cpu_ns" if row["clock"] == "cpu" else "wall_ns"
    found = [walls.get(row[cell]) for cell in ("cell_id_o", "cell_id")]
    if found[0] is None or found[1] is None:
        return (np.nan,) * 3
    both = found[0].merge(found[1], on=["sitting_id", "round"])
    both = both[both["sitting_id"] == row["sitting_id"]]
    if both.empty:
        return (np.nan,) * 3
    over, under = (both[f"{column}_{side}"].to_numpy()[:, None] for side in "xy")
    ratio = paired_ratio(over, under, SEED)
    return ratio.value, ratio.lo, ratio.hi


def select(frame: pd.DataFrame, where: Where) -> pd.DataFrame:
    """The rows whose fields have one of the values given for them."""
    for name, values in where.items():
        frame = frame[frame[name].isin(values)]
    return frame


def table(frame: pd.DataFrame, rounds: pd.DataFrame, targets: tuple[Target, ...]) -> pd.DataFrame:
    """One line per target: what, target, verdict, reached, medians over rounds, cells, remarks."""
    return pd.DataFrame([_judged(frame, rounds, target) for target in targets])


def _judged(frame: pd.DataFrame, rounds: pd.DataFrame, target: Target) -> dict[str, str]:
    line = {"what": target.what, "target": target.limits}
    found = ratios(select(frame, target.where), rounds, target.over, target.under)
    if found.empty:
        why = _absence(frame, target)
        return line | _outcome(f"0 of {target.cells}", "–", "–", f"not measured: {why}", "")
    value = {
        "median": float(found["ratio"].median()),
        "worst": float(found["ratio"].max() if target.most else found["ratio"].min()),
        "best": float(found["ratio"].max()),
    }
    at = {"worst": found["ratio"].idxmax() if target.most else found["ratio"].idxmin()}
    at["best"] = found["ratio"].idxmax()
    missed = [f"{name} {number(value[name])}" for name, most in target.most.items()
              if value[name] > most]  # fmt: skip
    missed += [f"{name} {number(value[name])}" for name, least in target.least.items()
               if value[name] < least]  # fmt: skip
    remarks = list(_remarks(found, target))
    verdict = f"missed: {', '.join(missed)}" if missed else "open" if remarks else "met"
    shown = found.loc[at["best" if "best" in target.least else "worst"]]
    if target.cells == 1:
        reached, middle = number(shown["ratio"]), _interval(shown)
        verdict = "missed" if missed else verdict
    else:
        word = "best" if "best" in target.least else "worst"
        reached = f"median {number(value['median'])}, {word} {number(value[word])} "
        reached += f"({_place(shown, target)})"
        middle = f"median {number(found['median'].median())}, {word} {_interval(shown)}"
    remarks += _ceiling(frame, rounds, target)
    cells = f"{len(found)} of {target.cells}"
    return line | _outcome(cells, reached, middle, verdict, "; ".join(remarks))


def _outcome(cells: str, reached: str, middle: str, verdict: str, remarks: str) -> dict[str, str]:
    return {
        "verdict": verdict,
        "reached": reached,
        "medians": middle,
        "cells": cells,
        "remarks": remarks,
    }


def _place(row: Any, target: Target) -> str:
    """The cell in the words that tell it from the target's others."""
    usual = ("kind", "dtype", "batch", "steps")
    words = [name for name in usual if len(target.where.get(name, ())) > 1]
    plain = ("kind", "dtype")
    return ", ".join(str(row[n]) if n in plain else f"{n} {row[n]}" for n in words)


def _interval(row: Any) -> str:
    return bracket(row["median"], row["lo"], row["hi"])


def _remarks(found: pd.DataFrame, target: Target) -> Iterator[str]:
    """What keeps a line that misses nothing from being called met."""
    if len(found) < target.cells and "best" not in target.least:
        yield f"{count(target.cells - len(found), 'cell')} not measured"
    if (fewest := int(found["samples"].min())) < ENOUGH:
        yield f"a ratio of only {fewest} samples, {ENOUGH} are asked for"


def _ceiling(frame: pd.DataFrame, rounds: pd.DataFrame, target: Target) -> list[str]:
    """What the ratio would be if the layer took no longer than its products."""
    if target.ceiling is None:
        return []
    found = ratios(select(frame, target.where), rounds, target.over, target.ceiling)
    if found.empty:
        return []
    best = "best" in target.least
    least, value = next(iter(target.least.values())), found["ratio"].max()
    value = value if best else found["ratio"].min()
    over = NAMES.get(target.over, target.over[0])
    text = f"ceiling {over} / {NAMES[target.ceiling]}: {'' if best else 'smallest '}{number(value)}"
    return [text if value >= least else f"{text}, which forbids {least:g}"]


def _absence(frame: pd.DataFrame, target: Target) -> str:
    """Why there is no number for a target."""
    for impl, mode in (target.over, target.under):
        own = frame[(frame["impl"] == impl) & (frame["mode"] == mode)]
        name = named(impl, mode)
        if own.empty:
            return f"{name} is no contender of this run"
        own = select(own, target.where)
        if not own.empty and not (own["status"] == "ok").any():
            row = own.iloc[0]
            return f"{name} is {row['status']}" + f" ({row['reason']})" * bool(row["reason"])
    return "its cells are not in this run"


def series(frame: pd.DataFrame) -> pd.DataFrame:
    """The cost of one step of the layer and its parts by length: `SERIES`, ns, one row a length."""
    own = select(_timed(frame), SERIES)
    modes = [mode for _, mode in (LAYER, GEMM, POOLING)]
    own = own[(own["impl"] == LAYER[0]) & own["mode"].isin(modes)]
    own = own.assign(step_ns=own["min_ns"] / own["steps"])
    return own.pivot_table(index="steps", columns="mode", values="step_ns", aggfunc="min")


def flat_cost(frame: pd.DataFrame) -> dict[str, str]:
    """The line of the table about the cost per step."""
    wanted = SERIES["steps"]
    line = {
        "what": f"cost per step of torch_native, T = {wanted[0]} to {wanted[-1]}, float32",
        "target": f"dearest at most {FLAT:g} times the cheapest",
    }
    found = series(frame).get(LAYER[1], pd.Series(dtype=float)).dropna()
    cells = f"{len(found)} of {len(wanted)}"
    if len(found) < 2:
        return line | _outcome(cells, "–", "–", "not measured: fewer than two lengths", "")
    spread = float(found.max() / found.min())
    middle = _timed(select(frame, SERIES))
    middle = middle[(middle["impl"] == LAYER[0]) & (middle["mode"] == LAYER[1])]
    middle = middle["median_ns"] / middle["steps"]
    reached = f"{number(spread)} (dearest at steps {found.idxmax()}, cheapest at {found.idxmin()})"
    verdict = "missed" if spread > FLAT else "met" if len(found) == len(wanted) else "open"
    return line | _outcome(cells, reached, number(middle.max() / middle.min()), verdict, "")


def flat_memory(memory: pd.DataFrame) -> dict[str, str]:
    """The line of the table about the memory beyond inputs, weights and outputs."""
    line = {
        "what": "memory of a forward of torch_native beyond inputs, weights and outputs",
        "target": "constant in T",
    }
    own = memory[(memory["impl"] == LAYER[0]) & (memory["status"] == "ok")]
    own = own.groupby("steps")["extra_bytes"].median()
    if len(own) < 2:
        return line | _outcome(f"{len(own)}", "–", "–", "not measured: fewer than two lengths", "")
    first, last = own.index.min(), own.index.max()
    words = ", ".join(f"{number(value / 2**20)} MiB at {steps}" for steps, value in own.items())
    limit = FLAT_MEMORY * own.min() + FLAT_MEMORY_SLACK
    verdict = "missed" if own.max() > limit else "met"
    if verdict == "met" and not set(SERIES["steps"]) <= set(own.index):
        verdict = "open"
    times = f"{number((own[last] - own[first]) / 2**20)} MiB more at steps {last} than at {first}"
    return line | _outcome(f"{len(own)}", words, "–", verdict, times)
