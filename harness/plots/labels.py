"""Names beside the points of a scatter plot, placed so that they cover neither points nor names."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

SIZE = 7.0
"""Points of the font."""
PLACES = ((5, 0), (-5, 0), (0, 7), (0, -7), (5, 7), (5, -7), (-5, 7), (-5, -7), (5, 14), (5, -14),
          (-5, 14), (-5, -14), (0, 21), (0, -21))  # fmt: skip
"""Offsets that are tried, in points, the nearest first."""
Box = tuple[float, float, float, float]


def label(
    axes: Axes,
    across: Sequence[float],
    up: Sequence[float],
    names: Sequence[str],
    bars: Sequence[tuple[float, float]] = (),
) -> None:
    """Write a name beside every point; scales, limits and titles must be final.

    Args:
        bars: left and right end of each point's horizontal bar, which names do not cover either.
    """
    figure = axes.get_figure()
    figure.draw_without_rendering()  # type: ignore[union-attr]
    scale = figure.dpi / 72  # type: ignore[union-attr]
    at = axes.transData.transform(np.column_stack([across, up])) / scale
    low, high = axes.bbox.get_points() / scale
    taken: list[Box] = [(x - 3, y - 3, x + 3, y + 3) for x, y in at]
    for ends, (_, y) in zip(bars, at, strict=False):
        reach = axes.transData.transform([(end, up[0]) for end in ends])[:, 0] / scale
        taken.append((reach[0], y - 1, reach[1], y + 1))
    for number in np.argsort(at[:, 1]):
        x, y = at[number]
        boxes = [_box(x + dx, y + dy, dx, names[number]) for dx, dy in PLACES]
        free = [
            n for n, box in enumerate(boxes) if not _hits(box, taken) and _inside(box, low, high)
        ]
        chosen = free[0] if free else 0
        dx, dy = PLACES[chosen]
        taken.append(boxes[chosen])
        axes.annotate(
            names[number], (across[number], up[number]), (dx, dy), textcoords="offset points",
            size=SIZE, va="center", ha="left" if dx > 0 else "right" if dx < 0 else "center",
        )  # fmt: skip


def _box(x: float, y: float, dx: float, name: str) -> Box:
    """Where a name would stand, from an average width of its letters."""
    width, half = 0.56 * SIZE * len(name), 0.55 * SIZE
    left = x if dx > 0 else x - width if dx < 0 else x - width / 2
    return left, y - half, left + width, y + half


def _hits(box: Box, taken: Sequence[Box]) -> bool:
    return any(
        box[0] < other[2] and other[0] < box[2] and box[1] < other[3] and other[1] < box[3]
        for other in taken
    )


def _inside(box: Box, low: np.ndarray, high: np.ndarray) -> bool:
    """Within the axes, with a little room to the right of them."""
    return bool(
        box[0] >= low[0] and box[2] <= high[0] + 8 and low[1] <= box[1] and box[3] <= high[1]
    )
