"""What must be reached, line by line: which ratio of times, over which cells, within which limits.

A ratio counts by the smallest sample of each side.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Arm = tuple[str, str]
"""(implementation, mode)."""

LAYER: Arm = ("torch_native", "default")
GEMM: Arm = ("torch_native", "gemm")
POOLING: Arm = ("torch_native", "pooling")
LSTM: Arm = ("lstm_torch", "default")
EAGER: Arm = ("torch_eager", "default")
JAX_SCAN: Arm = ("jax_scan", "default")
JAX_NATIVE: Arm = ("jax_native", "default")
NAMES = {GEMM: "its GEMMs", LSTM: "nn.LSTM"}
ENOUGH = 12
"""Samples on each side of a ratio."""
FLAT = 1.10
"""The dearest step of a series may cost this many times the cheapest."""
FLAT_MEMORY = 1.10
"""The largest extra memory of a series may be this many times the smallest."""

FLAT_MEMORY_SLACK = 1 << 20
"""Bytes that do not count: pages that the allocator happens to touch."""

Where = Mapping[str, tuple[Any, ...]]
PLAIN: Where = {
    "kernel_width": (2,),
    "pooling": ("fo",),
    "layers": (1,),
    "zoneout": (0.0,),
    "bidirectional": (False,),
    "ragged": (False,),
    "repeat": (0,),
}
"""What no line of the table varies."""
WIDE: Where = {**PLAIN, "input_size": (320,), "hidden_size": (320,)}
FAR: Where = {**WIDE, "batch": (1, 8, 32), "steps": (128, 512)}
GRID: Where = {**FAR, "steps": (32, 128, 512)}
SERIES: Where = {
    **WIDE,
    "kind": ("forward",),
    "dtype": ("float32",),
    "batch": (8,),
    "steps": (128, 512, 2048, 8192),
}


@dataclass(frozen=True)
class Target:
    """One line of the table: a ratio of times over some cells, and its limits.

    Attributes:
        over, under: the ratio is the time of `over` by the time of `under`.
        where: field -> values; the cells are their product.
        most: statistic -> largest value, of "median" and "worst"; least: smallest value, of
            "worst" and "best".
        ceiling: whose time in place of `under`'s nothing can beat, or None.
    """

    what: str
    over: Arm
    under: Arm
    where: Where
    most: Mapping[str, float] = field(default_factory=dict)
    least: Mapping[str, float] = field(default_factory=dict)
    ceiling: Arm | None = None

    @property
    def cells(self) -> int:
        """How many cells it is about."""
        return math.prod(len(values) for values in self.where.values())

    @property
    def limits(self) -> str:
        """The limits in words."""
        words = [f"{name} at most {value:g}" for name, value in self.most.items()]
        words += [f"{name} at least {value:g}" for name, value in self.least.items()]
        one = self.cells == 1
        return ", ".join(word.removeprefix("worst ") if one else word for word in words)


def _cell(where: Where, kind: str, dtype: str = "float32", **fixed: int) -> Where:
    some = {name: (value,) for name, value in fixed.items()}
    return {**where, "kind": (kind,), "dtype": (dtype,), **some}


TARGETS = (
    Target("float32 forward / its GEMM alone", LAYER, GEMM, _cell(FAR, "forward"),
           {"median": 1.10, "worst": 1.2}),
    Target("bfloat16 forward / its GEMM alone", LAYER, GEMM, _cell(FAR, "forward", "bfloat16"),
           {"median": 1.4, "worst": 2.0}),
    Target("float32 forward + backward / its three GEMMs", LAYER, GEMM, _cell(FAR, "backward"),
           {"median": 1.2, "worst": 1.3}),
    Target("nn.LSTM / torch_native, bfloat16 forward", LSTM, LAYER,
           _cell(FAR, "forward", "bfloat16", batch=1, steps=512), {}, {"worst": 10}, GEMM),
    Target("nn.LSTM / torch_native, float32 forward + backward", LSTM, LAYER,
           _cell(FAR, "backward", batch=8, steps=512), {}, {"worst": 1.7}, GEMM),
    Target("torch_eager / torch_native, float32 forward", EAGER, LAYER,
           _cell(PLAIN, "forward", batch=20, steps=105, input_size=256, hidden_size=256),
           {}, {"worst": 1.6}, GEMM),
    Target("nn.LSTM / torch_native, default grid, float32", LSTM, LAYER,
           {**GRID, "kind": ("forward", "backward"), "dtype": ("float32",)},
           {}, {"worst": 1}, GEMM),
    Target("nn.LSTM / torch_native, default grid, bfloat16", LSTM, LAYER,
           {**_cell(GRID, "forward", "bfloat16"), "batch": (1, 8)}, {}, {"worst": 1}, GEMM),
    Target("nn.LSTM / torch_native, default grid, bfloat16 forward + backward", LSTM, LAYER,
           {**_cell(GRID, "backward", "bfloat16"), "batch": (1, 8), "steps": (32, 128)},
           {}, {"worst": 1}, GEMM),
    Target("jax_native / torch_native, float32 forward", JAX_NATIVE, LAYER,
           _cell(GRID, "forward"), {"median": 1.3}),
    Target("jax_scan / jax_native, float32 forward", JAX_SCAN, JAX_NATIVE,
           _cell(GRID, "forward"), {}, {"worst": 1}),
)  # fmt: skip
AIMS = (
    Target("float32 forward / its GEMM alone", LAYER, GEMM, _cell(FAR, "forward"),
           {"median": 1.05}),
    Target("bfloat16 forward / its GEMM alone", LAYER, GEMM, _cell(FAR, "forward", "bfloat16"),
           {"median": 1.25}),
    Target("nn.LSTM / torch_native, anywhere", LSTM, LAYER,
           {**FAR, "kind": ("forward", "backward"), "dtype": ("float32", "bfloat16")},
           {}, {"best": 16.9}, GEMM),
)  # fmt: skip
"""Beyond what must be reached."""
