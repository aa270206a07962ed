"""The gated causal convolution: the K taps of each step side by side, then one matrix product.

One product per tap takes as long, and so does torch's conv1d, which wants time last and whose
gradients take longer (one thread of a CPU, 320 to 320 units, K = 2, variants timed in turn).
"""

from __future__ import annotations

import torch
from torch import Tensor

from impls._torch import ops
from impls._torch.arrays import state_dtype
from impls._torch.stack import Mask, Tensors
from impls.contract import ModelSpec


def _sums(spec: ModelSpec, params: Tensors, line: Tensor, dilation: int) -> Tensor:
    """[T, B, 2H]: what enters tanh and the logistic function.

    Where gradients are recorded, bfloat16 numbers are multiplied as float32: torch would round the
    gradient of each tap to bfloat16 before it adds them up, which puts gradients of two small
    layers 6.6e-3 from float64 where 6e-3 is allowed.
    """
    joined = ops.fuse(spec, params)
    if torch.is_grad_enabled() and joined.weight.dtype != joined.bias.dtype:
        wide = state_dtype(line.dtype)
        joined, line = ops.Fused(spec, joined.weight.to(wide), joined.bias), line.to(wide)
    return ops.pre_activations(spec, joined, line, dilation)


def core(
    spec: ModelSpec,
    params: Tensors,
    x: Tensor,
    state: Tensors,
    lengths: Tensor | None,
    mask: Mask | None,
    layer: int,
    direction: str,
) -> tuple[Tensor, dict[str, Tensor]]:
    """One layer in one direction; see `impls._torch.stack.Core`. It reads no mask."""
    valid = None if lengths is None else ops.valid_steps(lengths, x.shape[0])
    ordered = ops.reverse_valid(x, lengths) if direction == "rev" else x
    line, dilation = ops.window_of(ordered, state.get("window")), spec.dilation(layer)
    z, o = _sums(spec, params, line, dilation).chunk(2, dim=-1)
    y = ops.gated_output(torch.tanh(z), torch.sigmoid(o), valid, x.dtype)
    final = {}
    if spec.kernel_width > 1:
        final["window"] = ops.final_window(line, spec.kernel_width, lengths, dilation)
    return (ops.reverse_valid(y, lengths) if direction == "rev" else y), final
