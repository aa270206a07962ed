"""The learning rate of an arm: the best of a grid on tuning seeds, and where a grid must grow."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

RULE = (
    "highest mean score on the tuning set over the tuning seeds, a failed run scoring chance; "
    "ties by the area under the tuning curve, then the smaller rate; one further rate beyond an "
    "edge that wins; where runoff seeds are given, the two best run on these too, and all of their "
    "seeds decide"
)
"""What `ranked` and `extended` do, in words: part of the plan's hash."""
FINALISTS = 2
"""Rates of a runoff. Two seeds cannot tell neighbours of a grid apart; on selective_copy the wrong
one cost the reference five points, and with it every contrast of that task."""
Tried = Sequence[tuple[float, Mapping[str, Any]]]


def ranked(tried: Tried, chance: float, higher_is_better: bool) -> tuple[float, ...]:
    """The rates, the winner by RULE first; no row's test metric is looked at.

    Args:
        tried: (rate, its row) of every tuning run.
    """
    sign = 1.0 if higher_is_better else -1.0

    def merit(rate: float) -> tuple[float, float, float]:
        rows = [row for other, row in tried if other == rate]
        scores = [sign * _score(row, "validation", chance) for row in rows]
        areas = [sign * _score(row, "auc", chance) for row in rows]
        return statistics.fmean(scores), statistics.fmean(areas), -rate

    return tuple(sorted({rate for rate, _ in tried}, key=merit, reverse=True))


def _score(row: Mapping[str, Any], column: str, chance: float) -> float:
    found = row.get(column)
    return chance if row["status"] != "ok" or found is None else float(found)


def extended(grid: Sequence[float], winner: float) -> tuple[float, ...]:
    """The grid with one further rate beyond the edge where the winner lies, if it lies at one."""
    if winner == grid[0]:
        return (_rounded(grid[0] * grid[0] / grid[1]), *grid)
    if winner == grid[-1]:
        return (*grid, _rounded(grid[-1] * grid[-1] / grid[-2]))
    return tuple(grid)


def _rounded(rate: float) -> float:
    """Six significant digits, so that the rate reads and hashes the same everywhere."""
    return float(f"{rate:.6g}")
