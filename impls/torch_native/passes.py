"""What the forward and the backward pass share: the argument block, and the taps of a chunk."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from impls.kernels.native import FORMATS, Call, kernels
from impls.torch_native.memory import workspace
from impls.torch_native.plan import How, Sizes

_FORMAT = {getattr(torch, name): number for name, number in FORMATS.items()}


def address(tensor: Tensor | None) -> int | None:
    """Where the tensor's first element lies; None for None."""
    return None if tensor is None else tensor.data_ptr()


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
            lengths=address(lengths),
            rows=address(rows),
            t0=address(t0),
            seed=how.seed % (1 << 64),
            threshold=how.threshold,
            layer=how.layer,
            stream=how.stream,
            expectation=expectation,
            x=x.data_ptr(),
            x_time=x.stride(0),
            x_batch=x.stride(1),
            window=address(window),
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
        taps = workspace.matrix("taps", rows, sizes.taps * sizes.features, self.x.dtype)
        call.unfolded = taps.data_ptr()
        self.kernels.unfold(self.argument)
        return taps
