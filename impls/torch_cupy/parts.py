"""The pooling kernels alone, as a Run to be timed beside the whole layer.

What it is given and what it returns: `impls.parts`. Outputs come from torch's caching allocator in
every call, as inside the layer.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from impls import parts
from impls._torch.arrays import (
    device_of,
    dtype_of,
    state_dtype,
    synchronize,
    to_numpy,
    to_tensor,
)
from impls.contract import Arrays, ModelSpec, Placement, Work
from impls.torch_cupy import library

pool, pool_backward = library.pool, library.pool_backward  # the import registers the operators


class PoolingRun:
    """The pooling operator on given gate sums [T, B, G*H], from a zero state, and its gradients."""

    def __init__(self, spec: ModelSpec, params: Arrays, placement: Placement, work: Work) -> None:
        device, io = device_of(placement), dtype_of(placement)
        self._sums = to_tensor(parts.gate_sums(spec, work.x), io, device)
        self._bias = to_tensor(parts.bias(spec, params), state_dtype(io), device)
        self._zero = self._bias.new_zeros(work.x.shape[1], spec.hidden_size)
        self._dy = None if work.kind == "forward" else to_tensor(_given(work.dy), io, device)
        # No lengths, no mask: full sequences without zoneout, forwards in time.
        self._what = (None,) * 4 + (spec.pooling, "none", True, 0.0, 0, False, False)
        self._out: tuple[Tensor, ...] = ()

    def __call__(self) -> None:
        """From a zero state to the end, and back."""
        self._out = ()  # so that its memory can be used again
        ops = torch.ops.quasibench_cuda
        with torch.inference_mode():
            record = self._dy is not None
            own = self._sums, self._bias
            y, c, checkpoints = ops.pool(*own, self._zero, *self._what, record)
            self._out = y, c
            if self._dy is not None:
                self._out += ops.pool_backward(*own, checkpoints, self._dy, self._zero, *self._what)

    def wait(self) -> None:
        """Return when the kernels are done."""
        synchronize(self._sums.device)

    def result(self) -> dict[str, np.ndarray]:
        """See `impls.parts`."""
        names = ("y", "state.c", "grad.x", "grad.bias", "grad.c")
        return {name: to_numpy(tensor) for name, tensor in zip(names, self._out, strict=False)}


def _given(gradient: np.ndarray | None) -> np.ndarray:
    assert gradient is not None  # Work holds what its kind needs
    return gradient
