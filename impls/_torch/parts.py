"""The products of a layer alone, as a Run to be timed beside the whole layer; on any device.

What it is given and what it returns: `impls.parts`. Every buffer is made and touched before the
first call; a call allocates nothing.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from impls import parts
from impls._torch.arrays import device_of, dtype_of, synchronize, to_numpy, to_tensor
from impls.contract import Arrays, ModelSpec, Placement, Work


class GemmRun:
    """The products of one layer, each one `torch.mm(out=)` of contiguous matrices.

    Forward: [M, K*C] @ [K*C, G*H], M = T*B. Backward: that, [M, G*H] @ [G*H, K*C] and
    [K*C, M] @ [M, G*H].
    """

    def __init__(self, spec: ModelSpec, params: Arrays, placement: Placement, work: Work) -> None:
        device, dtype = device_of(placement), dtype_of(placement)
        self._steps = len(work.x)
        self._taps = to_tensor(parts.taps(spec, work.x), dtype, device)
        self._weight = to_tensor(parts.weight(spec, params), dtype, device)
        self._sums = self._taps.new_zeros(len(self._taps), self._weight.shape[1])
        self._dsums: Tensor | None = None
        if work.kind == "backward":
            assert work.dy is not None  # Work holds what its kind needs
            dsums = to_tensor(parts.gate_sums(spec, work.dy), dtype, device)
            self._dsums = dsums.view_as(self._sums)
            self._dtaps = torch.zeros_like(self._taps)
            self._dweight = torch.zeros_like(self._weight)

    def __call__(self) -> None:
        """Every product once more."""
        with torch.inference_mode():
            torch.mm(self._taps, self._weight, out=self._sums)
            if self._dsums is not None:
                torch.mm(self._dsums, self._weight.t(), out=self._dtaps)
                torch.mm(self._taps.t(), self._dsums, out=self._dweight)

    def wait(self) -> None:
        """Return when every product is done."""
        synchronize(self._taps.device)

    def result(self) -> dict[str, np.ndarray]:
        """See `impls.parts`."""
        out = {"y": self._by_step(self._sums)}
        if self._dsums is not None:
            out |= {"grad.x": self._by_step(self._dtaps), "grad.weight": to_numpy(self._dweight)}
        return out

    def _by_step(self, matrix: Tensor) -> np.ndarray:
        return to_numpy(matrix.view(self._steps, -1, matrix.shape[1]))
