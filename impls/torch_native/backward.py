"""The gradients of one QRNN layer on the CPU, chunk by chunk from the sequence's end.

The gate sums that the forward pass saved are read once; the gradients by them stay in cache, go
into the products for inputs and weight, and are overwritten by the next chunk's: all in one
compiled call, or where torch multiplies, with a call and two products for each chunk.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from impls.torch_native.memory import result, workspace
from impls.torch_native.passes import Pass, address, dense, per_gate
from impls.torch_native.plan import STATE_OF, Inputs, sizes_of


class Flow(NamedTuple):
    """Gradients of the loss by y [T, B, H], of any strides, by the final c and window; None: 0."""

    dy: Tensor | None
    dc: Tensor | None
    dwindow: Tensor | None


class Gradients(NamedTuple):
    """Gradients by the layer's arguments, in their order; None where not wanted."""

    x: Tensor | None
    weight: Tensor | None
    bias: Tensor
    c: Tensor
    window: Tensor | None


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
    """The weight's gradient, summed over chunks in float32 at least."""

    def __init__(self, weight: Tensor, chunks: int) -> None:
        self._weight, self._chunks, self._done = weight, chunks, 0
        self._exact = chunks == 1 or weight.dtype == STATE_OF[weight.dtype]
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
            if self._done:
                self._total.add_(self._part)
            else:
                self._total.copy_(self._part)
        elif self._done:
            self._total.addmm_(taps.t(), dsums)
        else:
            torch.mm(taps.t(), dsums, out=self._total)
        self._done += 1

    def total(self) -> Tensor:
        """[K*C, G*H] in the weight's dtype."""
        return self._total if self._exact else self._total.to(self._weight.dtype)


class BackwardPass(Pass):
    """The gradients that one backward pass collects, and the steps of its chunks."""

    def __init__(
        self, flow: Flow, inputs: Inputs, pre: Tensor, checkpoints: Tensor, for_inputs: bool
    ) -> None:
        sizes = sizes_of(inputs.x, inputs.weight, inputs.how.pooling)
        super().__init__(inputs, sizes)
        call, io, wide = self.call, inputs.x.dtype, checkpoints.dtype
        window = (sizes.taps - 1, sizes.batch, sizes.features)
        dy, call.dy_time, call.dy_batch = _strided(flow.dy, inputs.x, sizes.hidden)
        dwindow, self.dx, self.dwindow, carry = dense(flow.dwindow), None, None, None
        if flow.dc is None:
            self.dc = torch.zeros((sizes.batch, sizes.hidden), dtype=wide)
        else:
            self.dc = flow.dc.clone(memory_format=torch.contiguous_format)
        if for_inputs:
            self.dx = result(tuple(inputs.x.shape), io)
        if for_inputs and sizes.taps > 1:
            self.dwindow = torch.zeros(window, dtype=io)
            if not sizes.compiled:
                carry = torch.zeros(window, dtype=wide)
        self._alive = dy, dwindow, carry, pre, checkpoints
        self._back = inputs.weight.t()
        self._pre, self._row = pre.data_ptr(), sizes.width * pre.element_size()
        call.dy, call.dwindow_last = dy.data_ptr(), address(dwindow)
        call.dc, call.pre = self.dc.data_ptr(), self._pre
        call.checkpoints, call.dx = checkpoints.data_ptr(), address(self.dx)
        call.carry, call.dwindow = address(carry), address(self.dwindow)

    def compiled(self, for_weight: bool) -> Gradients:
        """Everything in one compiled call."""
        sizes, weight, block = self.sizes, None, self.block
        dbias = torch.empty(sizes.width, dtype=self.dc.dtype)
        block.dbias = per_gate(dbias, sizes)
        if for_weight:
            weight = result((sizes.taps * sizes.features, sizes.width), self.x.dtype)
            block.dweight = per_gate(weight, sizes)
        self.whole(self.kernels.layer_backward)
        return Gradients(self.dx, weight, dbias, self.dc, self.dwindow)

    def chunk_by_chunk(self, weight: Tensor | None) -> Gradients:
        """With torch's products; `weight` is given where its gradient is wanted."""
        sizes = self.sizes
        self.dbias = torch.zeros((sizes.batch, sizes.width), dtype=self.dc.dtype)
        self.call.dbias = self.dbias.data_ptr()
        chunks = list(sizes.chunks(descending=not self.call.reverse))
        dweight = None if weight is None else WeightGradient(weight, len(chunks))
        for begin, end in chunks:
            dsums = self.pool(begin, end)
            if self.dx is not None:
                self.inputs_of(begin, end, dsums)
            if dweight is not None:
                dweight.add(self.taps_of(begin, end), dsums)
        total = None if dweight is None else dweight.total()
        return Gradients(self.dx, total, self.bias(), self.dc, self.dwindow)

    def pool(self, begin: int, end: int) -> Tensor:
        """Gradients by the gate sums of one chunk, [rows, G*H]; the next chunk overwrites them."""
        sizes, call = self.sizes, self.call
        dsums = workspace.matrix("sums", (end - begin) * sizes.batch, sizes.width, self.x.dtype)
        call.begin, call.end = begin, end
        call.pre, call.dpre = self._pre + begin * sizes.batch * self._row, dsums.data_ptr()
        self.kernels.pool_backward(self.argument)
        return dsums

    def inputs_of(self, begin: int, end: int, dsums: Tensor) -> None:
        """Gradients of the inputs that one chunk has seen, into dx."""
        sizes = self.sizes
        if sizes.taps == 1:
            assert self.dx is not None  # asked for only where wanted
            rows = self.dx.view(-1, sizes.features)[begin * sizes.batch : end * sizes.batch]
            torch.mm(dsums, self._back, out=rows)
            return
        columns = sizes.taps * sizes.features
        dtaps = workspace.matrix("taps", len(dsums), columns, dsums.dtype)
        torch.mm(dsums, self._back, out=dtaps)
        self.call.dunfolded = dtaps.data_ptr()
        self.kernels.fold(self.argument)

    def bias(self) -> Tensor:
        """[G*H]: the bias's gradient, summed over the sequences."""
        if self.sizes.batch == 1:
            return self.dbias[0]
        self.kernels.sum_bias(self.argument)
        return self.dbias[0].clone()  # alone, not with the memory of all sequences


def layer_backward(
    flow: Flow,
    inputs: Inputs,
    pre: Tensor,
    checkpoints: Tensor,
    for_inputs: bool,
    for_weight: bool,
) -> Gradients:
    """Gradients of `layer_forward`.

    Args:
        pre, checkpoints: what the forward pass saved; both are only read.
        for_inputs: wanted are the gradients of x and window.
        for_weight: wanted is the gradient of the weight.

    Raises:
        RuntimeError: the forward pass saved nothing.
    """
    if not pre.shape[0]:
        raise RuntimeError("the forward pass saved nothing: call it with save=True")
    work = BackwardPass(flow, inputs, pre, checkpoints, for_inputs)
    if work.sizes.compiled:
        return work.compiled(for_weight)
    return work.chunk_by_chunk(inputs.weight if for_weight else None)
