"""The pooling kernel alone, as a Run to be timed beside the whole layer.

What it is given and what it returns: `impls.parts`. Every buffer is made and touched before the
first call; a call allocates nothing.
"""

from __future__ import annotations

import ctypes

import numpy as np
import torch
from torch import Tensor

from impls import parts
from impls._torch.arrays import device_of, dtype_of, state_dtype, to_numpy, to_tensor
from impls.contract import Arrays, ModelSpec, Placement, Work
from impls.kernels.native import FORMATS, POOLINGS, SEGMENT, Call, kernels


class PoolingRun:
    """The pooling kernel over the whole sequence at once, on given gate sums."""

    def __init__(self, spec: ModelSpec, params: Arrays, placement: Placement, work: Work) -> None:
        device, io = device_of(placement), dtype_of(placement)
        wide = state_dtype(io)
        sums = to_tensor(parts.gate_sums(spec, work.x), io, device)
        bias = to_tensor(parts.bias(spec, params), wide, device)
        steps, batch, _ = sums.shape
        self._y = sums.new_zeros(steps, batch, spec.hidden_size)
        self._c = bias.new_zeros(batch, spec.hidden_size)
        self.call = Call(
            format=FORMATS[placement.dtype],
            pooling=POOLINGS[spec.pooling],
            keeps_state=1,
            threads=torch.get_num_threads(),
            steps=steps,
            batch=batch,
            features=spec.input_size,
            hidden=spec.hidden_size,
            taps=1,
            begin=0,
            end=steps,
            spacing=SEGMENT,
            pre=sums.data_ptr(),
            bias=bias.data_ptr(),
            c=self._c.data_ptr(),
            y=self._y.data_ptr(),
            y_time=batch * spec.hidden_size,
            y_batch=spec.hidden_size,
        )
        self._held = [sums, bias]  # the block holds addresses only
        self._argument, self._kernels = ctypes.byref(self.call), kernels()
        self._backward = work.kind == "backward"
        if self._backward:
            self._prepare_backward(sums, bias, work.dy)

    def _prepare_backward(self, sums: Tensor, bias: Tensor, gradient: np.ndarray | None) -> None:
        assert gradient is not None  # Work holds what its kind needs
        steps, batch, width = sums.shape
        dy = to_tensor(gradient, sums.dtype, sums.device)
        segments = -(-steps // SEGMENT)
        checkpoints = bias.new_zeros(segments, *self._c.shape)
        self._dc, self._dbias = torch.zeros_like(self._c), bias.new_zeros(batch, width)
        self._dsums = torch.zeros_like(sums)
        call = self.call
        call.dy, call.dy_time, call.dy_batch = dy.data_ptr(), dy.stride(0), dy.stride(1)
        call.checkpoints, call.dpre = checkpoints.data_ptr(), self._dsums.data_ptr()
        call.dc, call.dbias = self._dc.data_ptr(), self._dbias.data_ptr()
        self._held += [dy, checkpoints]

    def __call__(self) -> None:
        """From a zero state to the end, and back."""
        self._c.zero_()
        self._kernels.pool_forward(self._argument)
        if self._backward:
            self._dc.zero_()
            self._dbias.zero_()
            self._kernels.pool_backward(self._argument)
            self._kernels.sum_bias(self._argument)

    def wait(self) -> None:
        """Nothing: the kernel's threads are done when it returns."""

    def result(self) -> dict[str, np.ndarray]:
        """See `impls.parts`."""
        out = {"y": to_numpy(self._y), "state.c": to_numpy(self._c)}
        if self._backward:
            out |= {"grad.x": to_numpy(self._dsums), "grad.c": to_numpy(self._dc)}
            out["grad.bias"] = to_numpy(self._dbias[0])
        return out
