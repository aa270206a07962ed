"""The gradients of one QRNN layer on the CPU, chunk by chunk from the sequence's end.

The gate sums that the forward pass saved are read once; the gradients by them stay in cache, go
into the products for inputs and weight, and are overwritten by the next chunk's.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from impls.torch_native.memory import result, workspace
from impls.torch_native.passes import Pass, address
from impls.torch_native.plan import STATE_OF, How, sizes_of


def _strided(dy: Tensor | None, like: Tensor, hidden: int) -> tuple[Tensor, int, int]:
    """dy with adjacent channels, and its strides over time and batch; 0 where it is expanded.

    A broadcast gradient (of `y.sum()`, say) is never written out over time and batch.
    """
    if dy is None:
        dy = like.new_zeros(1, 1, 1).expand(*like.shape[:2], hidden)
    if dy.stride(2) == 1 or hidden == 1:
        return dy, dy.stride(0), dy.stride(1)
    repeated = [dy.stride(dim) == 0 for dim in (0, 1)]
    for dim in (0, 1):
        if repeated[dim]:
            dy = dy.narrow(dim, 0, 1)
    dy = dy.contiguous()
    return dy, *(0 if repeated[dim] else dy.stride(dim) for dim in (0, 1))


class WeightGradient:
    """The weight's gradient summed over chunks, in float32 at least."""

    def __init__(self, weight: Tensor) -> None:
        self._weight, self._started = weight, False
        self._exact = weight.dtype == STATE_OF[weight.dtype]
        rows, columns = weight.shape
        if self._exact:
            self._total = result((rows, columns), weight.dtype)
        else:
            self._total = workspace.matrix("dweight", rows, columns, STATE_OF[weight.dtype])
            self._part = workspace.matrix("dweight part", rows, columns, weight.dtype)

    def add(self, taps: Tensor, dsums: Tensor) -> None:
        """One chunk: taps [rows, K*C], dsums [rows, G*H]."""
        if not self._exact:
            torch.mm(taps.t(), dsums, out=self._part)
            if self._started:
                self._total.add_(self._part)
            else:
                self._total.copy_(self._part)
        elif self._started:
            self._total.addmm_(taps.t(), dsums)
        else:
            torch.mm(taps.t(), dsums, out=self._total)
        self._started = True

    def total(self) -> Tensor:
        """[K*C, G*H] in the weight's dtype."""
        return self._total if self._exact else self._total.to(self._weight.dtype)


def layer_backward(
    dy: Tensor | None,
    dc: Tensor | None,
    dwindow: Tensor | None,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    window: Tensor | None,
    lengths: Tensor | None,
    rows: Tensor | None,
    t0: Tensor | None,
    pre: Tensor,
    checkpoints: Tensor,
    how: Sequence[int],
    expectation: float,
    for_inputs: bool,
    for_weight: bool,
) -> tuple[Tensor, ...]:
    """Gradients of `layer_forward` from those of y, the final c and the final window.

    Args:
        dy: [T, B, H] of any strides; None is zero, as for dc and dwindow.
        pre, checkpoints: what the forward pass saved; both are only read.
        for_inputs: wanted are the gradients of x and window.
        for_weight: wanted is the gradient of the weight.

    Returns:
        Gradients of x, weight, bias, c and window; empty where not wanted.

    Raises:
        RuntimeError: the forward pass saved nothing.
    """
    if pre.shape[0] != x.shape[0]:
        raise RuntimeError("the forward pass saved nothing: call it with save=True")
    way = How(*how)
    sizes = sizes_of(x, weight, way.pooling)
    work = Pass(sizes, way, expectation, x, window, bias, (lengths, rows, t0))
    call, batch, wide, io = work.call, sizes.batch, STATE_OF[x.dtype], x.dtype
    dy, call.dy_time, call.dy_batch = _strided(dy, x, sizes.hidden)
    dwindow = None if dwindow is None else dwindow.contiguous()
    dstate = checkpoints.new_zeros(batch, sizes.hidden)
    if dc is not None:
        dstate.copy_(dc)
    dbias = checkpoints.new_zeros(batch, sizes.width)
    taps_carried = sizes.taps - 1 if for_inputs else 0
    dx = result(tuple(x.shape) if for_inputs else (0,), io)
    dfirst = x.new_zeros(taps_carried, batch, sizes.features)
    carry = dfirst.new_zeros(dfirst.shape, dtype=wide)
    dweight = WeightGradient(weight) if for_weight else None
    call.dy, call.dwindow_last = dy.data_ptr(), address(dwindow)
    call.dc, call.dbias = dstate.data_ptr(), dbias.data_ptr()
    call.checkpoints, call.dx = checkpoints.data_ptr(), dx.data_ptr()
    call.carry, call.dwindow = carry.data_ptr(), dfirst.data_ptr()
    every, back = pre.view(-1, sizes.width), weight.t()
    for begin, end in sizes.chunks(descending=not way.reverse):
        call.begin, call.end = begin, end
        span = slice(begin * batch, end * batch)
        dsums = workspace.matrix("sums", (end - begin) * batch, sizes.width, io)
        call.pre, call.dpre = every[span].data_ptr(), dsums.data_ptr()
        work.kernels.pool_backward(work.argument)
        if for_inputs:
            _inputs(work, dsums, back, dx, span)
        if dweight is not None:
            dweight.add(work.taps_of(begin, end), dsums)
    work.kernels.sum_bias(work.argument)
    return (
        dx,
        dweight.total() if dweight is not None else weight.new_empty(0),
        dbias[0].clone(),
        dstate,
        dfirst,
    )


def _inputs(work: Pass, dsums: Tensor, back: Tensor, dx: Tensor, span: slice) -> None:
    """Gradients of the inputs that one chunk has seen."""
    sizes = work.sizes
    if sizes.taps == 1:
        torch.mm(dsums, back, out=dx.view(-1, sizes.features)[span])
        return
    columns = sizes.taps * sizes.features
    dtaps = workspace.matrix("taps", len(dsums), columns, dsums.dtype)
    torch.mm(dsums, back, out=dtaps)
    work.call.dunfolded = dtaps.data_ptr()
    work.kernels.fold(work.argument)
