"""One QRNN layer in one direction on the CPU: one compiled call, or products by torch.

Time is cut into chunks whose gates stay in cache. The compiled call does that by itself; where
torch multiplies, the taps are laid side by side, multiplied by all gates' weights at once, and
pooled, before the next chunk overwrites the workspace.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from impls.torch_native.memory import result, workspace
from impls.torch_native.passes import Pass, address
from impls.torch_native.plan import STATE_OF, Inputs, check_once


class Outputs(NamedTuple):
    """What the forward pass returns.

    y [T, B, H]; the final c [B, H]; the final window [K-1, B, C], None for K = 1; and if asked
    for, else None, the gate sums [T*B, G*H] without bias and the states at every `spacing`-th
    step.
    """

    y: Tensor
    c: Tensor
    window: Tensor | None
    pre: Tensor | None
    checkpoints: Tensor | None


def layer_forward(inputs: Inputs, c: Tensor, save: bool) -> Outputs:
    """The layer's outputs from the initial state c [B, H], of bias's dtype.

    `save` keeps what the backward pass needs.

    Raises:
        TypeError, ValueError: see `impls.torch_native.plan.check`.
    """
    sizes = check_once(inputs, c)
    work, batch, io = Pass(inputs, sizes), sizes.batch, inputs.x.dtype
    call = work.call
    y = result((sizes.steps, batch, sizes.hidden), io)
    c_last = c.clone(memory_format=torch.contiguous_format)
    call.y, call.y_time, call.y_batch = y.data_ptr(), batch * sizes.hidden, sizes.hidden
    call.c = c_last.data_ptr()
    pre = checkpoints = window_last = None
    if save:
        pre = result((sizes.steps * batch, sizes.width), io)
        checkpoints = result((sizes.segments, batch, sizes.hidden), STATE_OF[io])
        call.checkpoints = checkpoints.data_ptr()
    if sizes.taps > 1:
        window_last = torch.empty((sizes.taps - 1, batch, sizes.features), dtype=io)
        call.window_last = window_last.data_ptr()
    if sizes.compiled:
        call.pre = address(pre)
        work.whole(work.kernels.layer_forward)
    else:
        _chunk_by_chunk(work, inputs, pre)
    return Outputs(y, c_last, window_last, pre, checkpoints)


def _chunk_by_chunk(work: Pass, inputs: Inputs, pre: Tensor | None) -> None:
    """The forward pass with torch's products; gate sums go to `pre` [T*B, G*H] if given."""
    sizes, batch = work.sizes, work.sizes.batch
    for begin, end in sizes.chunks(descending=bool(inputs.how.reverse)):
        taps = work.taps_of(begin, end)
        if pre is not None:
            sums = pre[begin * batch : end * batch]
        else:
            sums = workspace.matrix("sums", (end - begin) * batch, sizes.width, inputs.x.dtype)
        torch.mm(taps, inputs.weight, out=sums)
        work.call.pre = sums.data_ptr()
        work.kernels.pool_forward(work.argument)
    if sizes.taps > 1:
        work.kernels.final_window(work.argument)
