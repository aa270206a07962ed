"""The LSTM layer as one differentiable function on torch's fused kernel, padding included.

nn.LSTM takes lengths as packed sequences, which leave oneDNN on a CPU. Here a padded step saturates
its gates instead (f = 1, i = 0): an input feature that is 1 on padded steps enters f with a large
positive weight and i with a large negative one, so that c is handed on as it is, and its gradient
with it.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from impls._torch import ops
from impls._torch.arrays import state_dtype
from impls._torch.stack import Mask, Tensors
from impls.contract import ModelSpec

SATURATION = 1e4
"""Far beyond any gate sum; the logistic function is 0 and 1 there in every dtype."""


def _layout(params: Tensors, dtype: torch.dtype, padded: bool) -> list[Tensor]:
    """nn.LSTM's weights [4H, C] and [4H, H] and its two biases [4H], gates i f g o.

    `padded` adds the row of the feature that marks padded steps.
    """
    weight, recurrent = (params[name].to(dtype) for name in ("weight", "recurrent"))
    hidden = recurrent.shape[0]
    if padded:
        mark = weight.new_zeros(4, hidden)
        mark[0], mark[1] = -SATURATION, SATURATION
        weight = torch.cat([weight, mark[None]])
    bias = params["bias"].reshape(-1).to(dtype)
    matrices = [matrix.reshape(-1, 4 * hidden).t().contiguous() for matrix in (weight, recurrent)]
    return [*matrices, bias, torch.zeros_like(bias)]


def _fused(
    x: Tensor, weights: list[Tensor], hidden: Tensor, cell: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """All h_t [T, B, H] and the last h and c [B, H], by oneDNN, cuDNN or ATen."""
    # With the flag, oneDNN and cuDNN write what a backward pass would read.
    training = torch.is_grad_enabled()
    with warnings.catch_warnings():
        # The weights are joined in every call on CUDA: they come as the caller keeps them.
        warnings.filterwarnings("ignore", message="RNN module weights are not part of single")
        y, h, c = torch._VF.lstm(  # type: ignore[attr-defined]
            x, (hidden[None], cell[None]), weights, True, 1, 0.0, training, False, False
        )
    return y, h[0], c[0]


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
    """One layer in one direction; see `impls._torch.stack.Core`. An LSTM reads no mask.

    On a CPU bfloat16 numbers are computed with in float32: oneDNN hands dh on in bfloat16, which
    puts gradients of small layers 9e-3 from float64 where 6e-3 is allowed.
    """
    wide = state_dtype(x.dtype)
    dtype = wide if x.device.type == "cpu" else x.dtype
    ordered = (ops.reverse_valid(x, lengths) if direction == "rev" else x).to(dtype)
    valid = None if lengths is None else ops.valid_steps(lengths, x.shape[0])
    if valid is not None:
        ordered = torch.cat([ordered, (~valid).expand(-1, -1, 1).to(dtype)], dim=2)
    weights = _layout(params, dtype, valid is not None)
    y, hidden, cell = _fused(ordered, weights, state["h"].to(dtype), state["c"].to(dtype))
    if lengths is not None and valid is not None:
        last = (lengths - 1)[None, :, None].expand(1, -1, y.shape[2])
        hidden = y.gather(0, last)[0]
        y = y.masked_fill(~valid, 0.0)
    y = y.to(x.dtype)
    if direction == "rev":
        y = ops.reverse_valid(y, lengths)
    return y, {"h": hidden.to(wide), "c": cell.to(wide)}
