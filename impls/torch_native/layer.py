"""One QRNN layer in one direction on the CPU: products by torch, everything else compiled.

Time is cut into chunks whose gates stay in cache: the taps are laid side by side, multiplied by
all gates' weights at once, and pooled, before the next chunk overwrites the workspace.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from impls.kernels.native import FORMATS, Call, kernels
from impls.torch_native.memory import Workspace, result
from impls.torch_native.plan import STATE_OF, How, Sizes, check_once, sizes_of

_FORMAT = {getattr(torch, name): number for name, number in FORMATS.items()}
_workspace = Workspace()


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


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


class Pass:
    """What both passes share: the argument block, and the taps of one chunk."""

    def __init__(
        self,
        sizes: Sizes,
        how: How,
        expectation: float,
        x: Tensor,
        window: Tensor | None,
        bias: Tensor,
        sequences: tuple[Tensor | None, Tensor | None, Tensor | None],
    ) -> None:
        # The block holds addresses only; these references keep the memory alive.
        x = x.contiguous() if sizes.taps == 1 or x.stride(2) != 1 else x
        window = None if window is None else window.contiguous()
        bias = bias.contiguous()
        lengths, rows, t0 = (None if t is None else t.contiguous() for t in sequences)
        self._held = x, window, bias, lengths, rows, t0
        self.sizes, self.x = sizes, x
        self.call = Call(
            format=_FORMAT[x.dtype],
            pooling=how.pooling,
            zone=how.zone,
            keeps_state=how.keeps_state,
            reverse=how.reverse,
            threads=torch.get_num_threads(),
            steps=sizes.steps,
            batch=sizes.batch,
            features=sizes.features,
            hidden=sizes.hidden,
            taps=sizes.taps,
            spacing=sizes.spacing,
            lengths=_address(lengths),
            rows=_address(rows),
            t0=_address(t0),
            seed=how.seed % (1 << 64),
            threshold=how.threshold,
            layer=how.layer,
            stream=how.stream,
            expectation=expectation,
            x=x.data_ptr(),
            x_time=x.stride(0),
            x_batch=x.stride(1),
            window=_address(window),
            bias=bias.data_ptr(),
        )
        self.argument = ctypes.byref(self.call)
        self.kernels = kernels()

    def taps_of(self, begin: int, end: int) -> Tensor:
        """[rows, K*C] of the chunk: for every step and sequence its K inputs side by side."""
        sizes, call = self.sizes, self.call
        call.begin, call.end = begin, end
        if sizes.taps == 1:
            return self.x.view(-1, sizes.features)[begin * sizes.batch : end * sizes.batch]
        rows = (end - begin) * sizes.batch
        taps = _workspace.matrix("taps", rows, sizes.taps * sizes.features, self.x.dtype)
        call.unfolded = taps.data_ptr()
        self.kernels.unfold(self.argument)
        return taps


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
            sums = _workspace.matrix("sums", (end - begin) * batch, sizes.width, io)
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
            self._total = _workspace.matrix("dweight", rows, columns, STATE_OF[weight.dtype])
            self._part = _workspace.matrix("dweight part", rows, columns, weight.dtype)

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
    call.dy, call.dwindow_last = dy.data_ptr(), _address(dwindow)
    call.dc, call.dbias = dstate.data_ptr(), dbias.data_ptr()
    call.checkpoints, call.dx = checkpoints.data_ptr(), dx.data_ptr()
    call.carry, call.dwindow = carry.data_ptr(), dfirst.data_ptr()
    every, back = pre.view(-1, sizes.width), weight.t()
    for begin, end in sizes.chunks(descending=not way.reverse):
        call.begin, call.end = begin, end
        span = slice(begin * batch, end * batch)
        dsums = _workspace.matrix("sums", (end - begin) * batch, sizes.width, io)
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
    dtaps = _workspace.matrix("taps", len(dsums), columns, dsums.dtype)
    torch.mm(dsums, back, out=dtaps)
    work.call.dunfolded = dtaps.data_ptr()
    work.kernels.fold(work.argument)
