"""What the forward and the backward pass share: the argument block, and the taps of a chunk."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from impls.kernels.native import FORMATS, Call, LayerCall, PerGate, kernels
from impls.torch_native.memory import workspace
from impls.torch_native.plan import Inputs, Sizes

_FORMAT = {getattr(torch, name): number for name, number in FORMATS.items()}


def address(tensor: Tensor | None) -> int | None:
    """Where the tensor's first element lies; None for None."""
    return None if tensor is None else tensor.data_ptr()


def dense(tensor: Tensor | None) -> Tensor | None:
    """The tensor with adjacent elements, itself if it has them; None for None."""
    return None if tensor is None else tensor.contiguous()


@lru_cache(maxsize=512)
def _block(
    sizes: Sizes,
    dtype: torch.dtype,
    pooling: int,
    zone: int,
    keeps_state: int,
    reverse: int,
    threshold: int,
) -> LayerCall:
    """The fields that calls of equal sizes share: a copy is quicker than filling them in."""
    call = Call(
        format=_FORMAT[dtype],
        pooling=pooling,
        zone=zone,
        keeps_state=keeps_state,
        reverse=reverse,
        steps=sizes.steps,
        batch=sizes.batch,
        features=sizes.features,
        hidden=sizes.hidden,
        taps=sizes.taps,
        spacing=sizes.spacing,
        threshold=threshold,
    )
    return LayerCall(call=call, chunk=sizes.chunk, dweight_row=sizes.width)


def per_gate(tensor: Tensor, sizes: Sizes) -> ctypes.Array[ctypes.c_void_p]:
    """Where each gate's columns of a fused weight or bias begin."""
    apart = sizes.hidden * tensor.element_size()
    at = tensor.data_ptr()
    return PerGate(*range(at, at + sizes.width * tensor.element_size(), apart))


class Pass:
    """What both passes share: the argument block, and the taps of one chunk."""

    def __init__(self, inputs: Inputs, sizes: Sizes) -> None:
        x, weight, bias, window, lengths, rows, t0, how, expectation = inputs
        if x.stride(2) != 1 or (sizes.taps == 1 and not sizes.compiled):
            x = x.contiguous()
        if sizes.compiled and weight.stride(1) != 1:
            weight = weight.contiguous()
        window, bias = dense(window), bias.contiguous()
        lengths, rows, t0 = dense(lengths), dense(rows), dense(t0)
        # The block holds addresses only; these references keep the memory alive.
        self._held = x, weight, window, bias, lengths, rows, t0
        self.sizes, self.x, self.kernels = sizes, x, kernels()
        self.block = block = LayerCall.from_buffer_copy(_block(sizes, x.dtype, *how[:5]))
        self.call = call = block.call
        call.threads = torch.get_num_threads()
        call.seed, call.layer, call.stream = how.seed % (1 << 64), how.layer, how.stream
        call.expectation = expectation
        call.lengths, call.rows, call.t0 = address(lengths), address(rows), address(t0)
        call.x, call.x_time, call.x_batch = x.data_ptr(), x.stride(0), x.stride(1)
        call.window, call.bias = address(window), bias.data_ptr()
        self.argument = ctypes.byref(block)  # it begins with the call
        if sizes.compiled:
            block.weight, block.weight_row = per_gate(weight, sizes), weight.stride(0)

    def whole(self, function: Callable[[object], int]) -> None:
        """The pass in one compiled call.

        Raises:
            MemoryError: there is none for the scratch area.
        """
        if function(self.argument):
            raise MemoryError("no memory for the scratch area of a QRNN layer on the CPU")

    def taps_of(self, begin: int, end: int) -> Tensor:
        """[rows, K*C] of the chunk: for every step and sequence its K inputs side by side."""
        sizes, call = self.sizes, self.call
        call.begin, call.end = begin, end
        if sizes.taps == 1:
            return self.x.view(-1, sizes.features)[begin * sizes.batch : end * sizes.batch]
        rows = (end - begin) * sizes.batch
        taps = workspace.matrix("taps", rows, sizes.taps * sizes.features, self.x.dtype)
        call.unfolded = taps.data_ptr()
        self.kernels.unfold(self.argument)
        return taps
