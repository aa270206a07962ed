"""What comes out of a network: readouts of a sequence, the linear head, losses.

Shapes: T steps, B sequences, D directions, H hidden units, O outputs.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from impls._torch.arrays import state_dtype
from impls._torch.ops import valid_steps
from impls._torch.stack import Tensors
from impls.nets import NetSpec


def readout(net: NetSpec, params: Tensors, y: Tensor, lengths: Tensor | None) -> Tensor:
    """One vector per sequence, [B, D*H], as `net.readout` says.

    Args:
        y: [T, B, D*H], the last layer's output, zero on padded steps.
        lengths: [B] int64, or None where every sequence is T long.
    """
    if net.readout == "last":
        return last(net, y, lengths)
    if net.readout == "mean":
        return mean(y, lengths)
    return attention(params["readout.weight"], y, lengths)


def last(net: NetSpec, y: Tensor, lengths: Tensor | None) -> Tensor:
    """[B, D*H]: the last valid step; of the reverse direction its own last, which is step 0."""
    rows = torch.arange(y.shape[1], device=y.device)
    ends = y[-1] if lengths is None else y[lengths - 1, rows]
    if not net.core.bidirectional:
        return ends
    hidden = net.core.hidden_size
    return torch.cat([ends[:, :hidden], y[0, :, hidden:]], dim=1)


def mean(y: Tensor, lengths: Tensor | None) -> Tensor:
    """[B, D*H]: the mean over valid steps."""
    wide = state_dtype(y.dtype)
    if lengths is None:
        return y.mean(0, dtype=wide).to(y.dtype)
    return (y.sum(0, dtype=wide) / lengths[:, None]).to(y.dtype)


def attention(weight: Tensor, y: Tensor, lengths: Tensor | None) -> Tensor:
    """[B, D*H]: steps weighted by the softmax over valid steps of y . weight [D*H] (1703.03130)."""
    wide = state_dtype(y.dtype)
    scores = y.to(wide) @ weight.to(wide)
    if lengths is not None:
        padded = ~valid_steps(lengths, y.shape[0]).squeeze(2)
        scores = scores.masked_fill(padded, float("-inf"))
    shares = torch.softmax(scores, dim=0)
    return (shares[..., None] * y).sum(0).to(y.dtype)


def head(net: NetSpec, params: Tensors, features: Tensor) -> Tensor:
    """Logits or values [..., O] from features [..., D*H], in the bias's dtype."""
    bias = params["head.bias"]
    weight = params["embedding.weight"].t() if net.tied else params["head.weight"]
    flat = features.reshape(-1, features.shape[-1])
    out = torch.addmm(bias, flat.to(bias.dtype), weight.to(bias.dtype))
    return out.reshape(*features.shape[:-1], net.outputs)


def loss(net: NetSpec, outputs: Tensor, targets: Tensor, weights: Tensor | None) -> Tensor:
    """Mean loss over what counts, a scalar.

    Args:
        outputs: [..., O] from `head`.
        targets: int64 [...] for cross-entropy, [..., O] for the squared error; finite everywhere.
        weights: [...] with zeros where an element does not count, or None where all do; the mean
            divides by their sum (squared: times O).
    """
    if net.loss == "cross_entropy":
        return cross_entropy(outputs, targets, weights)
    return squared(outputs, targets, weights)


def cross_entropy(logits: Tensor, targets: Tensor, weights: Tensor | None) -> Tensor:
    """Weighted mean of -log softmax(logits)[target]."""
    rows, symbols = logits.flatten(0, -2), targets.flatten()
    if weights is None:
        return functional.cross_entropy(rows, symbols)
    each = functional.cross_entropy(rows, symbols, reduction="none")
    return torch.dot(each, weights.flatten()) / weights.sum()


def squared(values: Tensor, targets: Tensor, weights: Tensor | None) -> Tensor:
    """Weighted mean of 0.5 (value - target)^2."""
    each = (values - targets).square()
    if weights is None:
        return 0.5 * each.mean()
    return 0.5 * (each * weights[..., None]).sum() / (weights.sum() * values.shape[-1])
