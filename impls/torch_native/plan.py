"""How one call is laid out: its sizes, its chunks of time, and what it checks before it starts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from impls.kernels.native import SEGMENT

ROWS = 1024
"""Rows (steps times sequences) of a float32 chunk for torch.mm: enough for products at full rate
and few meetings of threads, few enough for the gates to stay in cache. Other dtypes: as many bytes.
The compiled products take half of it in every dtype."""
STATE_OF = {
    torch.float32: torch.float32,
    torch.bfloat16: torch.float32,
    torch.float64: torch.float64,
}
BY_TORCH = frozenset({torch.bfloat16})
"""Dtypes whose products torch.mm makes: where it is the faster way. On a CPU with AVX512-BF16 both
take the same time within a few per cent, on one with AMX torch.mm is several times faster, and
without either the compiled tiles would widen bfloat16 to float32. Both ways save the same for the
backward pass."""


class How(NamedTuple):
    """What of a spec the operator needs, as the integers that its schema carries."""

    pooling: int
    zone: int
    keeps_state: int
    reverse: int
    threshold: int
    seed: int
    layer: int
    stream: int


class Inputs(NamedTuple):
    """What both passes of a layer read, in the operators' order of arguments.

    x [T, B, C] in natural time, float32, bfloat16 or float64; weight [K*C, G*H] of x's dtype,
    taps oldest first, gates in the order z f o i; bias [G*H], float32 (float64 for float64);
    window [K-1, B, C] of x's dtype, oldest first in processing order, None for K = 1; lengths,
    rows, t0 [B] int64 or None (rows and t0 are needed where zoneout holds units); how: the
    integers of `How`; expectation: zoneout's probability where it acts in expectation.
    """

    x: Tensor
    weight: Tensor
    bias: Tensor
    window: Tensor | None
    lengths: Tensor | None
    rows: Tensor | None
    t0: Tensor | None
    how: How
    expectation: float


class Sizes(NamedTuple):
    """T, B, C, H, K, G*H of one call, and how its time is cut.

    `chunk` steps go through the products at once; `spacing` steps lie between two checkpoints
    of the state and divide `chunk`. `compiled`: one compiled call makes products and pooling.
    """

    steps: int
    batch: int
    features: int
    hidden: int
    taps: int
    width: int
    chunk: int
    spacing: int
    compiled: bool

    @property
    def segments(self) -> int:
        """Checkpoints of a whole sequence."""
        return -(-self.steps // self.spacing)

    def chunks(self, descending: bool) -> Iterator[tuple[int, int]]:
        """(begin, end) of every chunk in natural time."""
        starts = range(0, self.steps, self.chunk)
        for begin in reversed(starts) if descending else starts:
            yield begin, min(begin + self.chunk, self.steps)


def sizes_of(x: Tensor, weight: Tensor, pooling: int) -> Sizes:
    """Sizes of a call, from x [T, B, C] and weight [K*C, G*H]."""
    steps, batch, features = x.shape
    compiled = x.dtype not in BY_TORCH
    most = max(1, ROWS * 4 // x.element_size() // batch)
    spacing = min(SEGMENT, most)
    chunk = ROWS // 2 // batch if compiled else most
    rows, width = weight.shape
    return Sizes(
        steps=steps,
        batch=batch,
        features=features,
        hidden=width // (pooling + 2),
        taps=rows // features,
        width=width,
        chunk=max(spacing, chunk - chunk % spacing),
        spacing=spacing,
        compiled=compiled,
    )


def _expect(name: str, tensor: Tensor | None, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    if tensor is None:
        raise ValueError(f"{name} is missing: give {dtype} {list(shape)}")
    if tensor.dtype != dtype:
        raise TypeError(f"{name} has dtype {tensor.dtype}: give {dtype}")
    if tuple(tensor.shape) != shape:
        raise ValueError(f"{name} has shape {list(tensor.shape)}: give {list(shape)}")
    if tensor.device.type not in ("cpu", "meta"):
        raise ValueError(f"{name} is on {tensor.device}: give a CPU tensor")


def check(inputs: Inputs, c: Tensor) -> Sizes:
    """The sizes of a call whose arguments fit together.

    Raises:
        TypeError: a dtype that does not fit, or x of no floating dtype that the kernels know.
        ValueError: a shape or device that does not fit, or an argument that is missing.
    """
    x, weight, bias, window, lengths, rows, t0, how, _ = inputs
    if x.dtype not in STATE_OF:
        raise TypeError(f"x has dtype {x.dtype}: allowed are float32, bfloat16, float64")
    if x.dim() != 3 or min(x.shape) < 1:
        raise ValueError(f"x has shape {list(x.shape)}: give [T, B, C], each at least 1")
    gates = how.pooling + 2
    if weight.dim() != 2 or weight.shape[0] % x.shape[2] or weight.shape[1] % gates:
        raise ValueError(
            f"weight has shape {list(weight.shape)}: give [K * {x.shape[2]}, {gates} * H]"
        )
    sizes, wide = sizes_of(x, weight, how.pooling), STATE_OF[x.dtype]
    _expect("x", x, tuple(x.shape), x.dtype)
    _expect("weight", weight, tuple(weight.shape), x.dtype)
    _expect("bias", bias, (sizes.width,), wide)
    _expect("c", c, (sizes.batch, sizes.hidden), wide)
    if sizes.taps > 1:
        _expect("window", window, (sizes.taps - 1, sizes.batch, sizes.features), x.dtype)
    elif window is not None:
        raise ValueError("a kernel of width 1 has no window: give None")
    if lengths is not None:
        _expect("lengths", lengths, (sizes.batch,), torch.int64)
    if rows is not None or t0 is not None or how.zone == 1:
        _expect("rows", rows, (sizes.batch,), torch.int64)
        _expect("t0", t0, (sizes.batch,), torch.int64)
    return sizes


def _look(tensor: Tensor | None) -> tuple[object, ...] | None:
    return None if tensor is None else (tensor.shape, tensor.dtype, tensor.is_cpu)


_fitting: dict[tuple[object, ...], Sizes] = {}
MOST_REMEMBERED = 512


def check_once(inputs: Inputs, c: Tensor) -> Sizes:
    """`check`, remembered by what it looks at: it costs as much as a small product.

    Raises:
        TypeError, ValueError: see `check`.
    """
    x, weight, bias, window, lengths, rows, t0, how, _ = inputs
    key = (
        *(
            ROWS,
            x.dtype in BY_TORCH,
            how.pooling,
            how.zone,
            _look(x),
            _look(weight),
            _look(bias),
            _look(c),
        ),
        *(_look(window), _look(lengths), _look(rows), _look(t0)),
    )
    sizes = _fitting.get(key)
    if sizes is None:
        if len(_fitting) >= MOST_REMEMBERED:
            _fitting.clear()
        sizes = _fitting[key] = check(inputs, c)
    return sizes
