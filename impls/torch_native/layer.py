"""One QRNN layer in one direction on the CPU: products by torch, everything else compiled.

Time is cut into chunks whose gates stay in cache: the taps are laid side by side, multiplied by
all gates' weights at once, and pooled, before the next chunk overwrites the workspace.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from impls.torch_native.memory import result, workspace
from impls.torch_native.passes import Pass
from impls.torch_native.plan import STATE_OF, How, check_once


class Outputs(NamedTuple):
    """What the forward pass returns.

    y [T, B, H]; the final c [B, H]; the final window [K-1, B, C], None for K = 1; and if asked
    for, else None, the gate sums [T, B, G*H] without bias and the states at every `spacing`-th
    step.
    """

    y: Tensor
    c: Tensor
    window: Tensor | None
    pre: Tensor | None
    checkpoints: Tensor | None


def layer_forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    c: Tensor,
    window: Tensor | None,
    lengths: Tensor | None,
    rows: Tensor | None,
    t0: Tensor | None,
    how: Sequence[int],
    expectation: float,
    save: bool,
) -> Outputs:
    """The layer's outputs.

    Args:
        x: [T, B, C] in natural time; float32, bfloat16 or float64.
        weight: [K*C, G*H] of x's dtype, taps oldest first, gates in the order z f o i.
        bias: [G*H], float32 (float64 for float64), like c [B, H].
        window: [K-1, B, C] of x's dtype, oldest first in processing order; None for K = 1.
        lengths, rows, t0: [B] int64 or None; rows and t0 are needed where zoneout holds units.
        how: the integers of `How`.
        expectation: zoneout's probability where it acts in expectation.
        save: keep what the backward pass needs.

    Returns:
        See `Outputs`.

    Raises:
        TypeError, ValueError: see `impls.torch_native.plan.check`.
    """
    way = How(*how)
    sizes = check_once(x, weight, bias, c, window, lengths, rows, t0, way)
    work = Pass(sizes, way, expectation, x, window, bias, (lengths, rows, t0))
    call, batch, steps = work.call, sizes.batch, sizes.steps
    wide, io = STATE_OF[x.dtype], x.dtype
    y = result((steps, batch, sizes.hidden), io)
    c_last = c.clone(memory_format=torch.contiguous_format)
    call.y, call.y_time, call.y_batch = y.data_ptr(), batch * sizes.hidden, sizes.hidden
    call.c = c_last.data_ptr()
    every = checkpoints = None
    if save:
        every = result((steps * batch, sizes.width), io)
        checkpoints = result((sizes.segments, batch, sizes.hidden), wide)
        call.checkpoints = checkpoints.data_ptr()
    for begin, end in sizes.chunks(descending=bool(way.reverse)):
        taps = work.taps_of(begin, end)
        if every is not None:
            sums = every[begin * batch : end * batch]
        else:
            sums = workspace.matrix("sums", (end - begin) * batch, sizes.width, io)
        torch.mm(taps, weight, out=sums)
        call.pre = sums.data_ptr()
        work.kernels.pool_forward(work.argument)
    window_last = None
    if sizes.taps > 1:
        window_last = torch.empty((sizes.taps - 1, batch, sizes.features), dtype=io)
        call.window_last = window_last.data_ptr()
        work.kernels.final_window(work.argument)
    pre = None if every is None else every.view(steps, batch, sizes.width)
    return Outputs(y, c_last, window_last, pre, checkpoints)
