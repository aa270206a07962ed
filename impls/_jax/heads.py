"""What comes out of a network: readouts of a sequence, the linear head, losses.

Shapes: T steps, B sequences, D directions, H hidden units, O outputs.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from impls._jax.arrays import state_dtype
from impls._jax.ops import matmul, valid_steps
from impls._jax.stack import Tensors
from impls.nets import NetSpec


def readout(net: NetSpec, params: Tensors, y: jax.Array, lengths: jax.Array | None) -> jax.Array:
    """One vector per sequence, [B, D*H], as `net.readout` says.

    Args:
        y: [T, B, D*H], the last layer's output, zero on padded steps.
        lengths: [B] int32, or None where every sequence is T long.
    """
    if net.readout == "last":
        return last(net, y, lengths)
    if net.readout == "mean":
        return mean(y, lengths)
    return attention(params["readout.weight"], y, lengths)


def last(net: NetSpec, y: jax.Array, lengths: jax.Array | None) -> jax.Array:
    """[B, D*H]: the last valid step; of the reverse direction its own last, which is step 0."""
    if lengths is None:
        ends = y[-1]
    else:
        ends = jnp.take_along_axis(y, (lengths - 1)[None, :, None], axis=0)[0]
    if not net.core.bidirectional:
        return ends
    hidden = net.core.hidden_size
    return jnp.concatenate([ends[:, :hidden], y[0, :, hidden:]], axis=1)


def mean(y: jax.Array, lengths: jax.Array | None) -> jax.Array:
    """[B, D*H]: the mean over valid steps."""
    wide = y.astype(state_dtype(y.dtype))
    if lengths is None:
        return jnp.mean(wide, axis=0).astype(y.dtype)
    return (jnp.sum(wide, axis=0) / lengths[:, None].astype(wide.dtype)).astype(y.dtype)


def attention(weight: jax.Array, y: jax.Array, lengths: jax.Array | None) -> jax.Array:
    """[B, D*H]: steps weighted by the softmax over valid steps of y . weight [D*H] (1703.03130)."""
    scores = matmul(y, weight, ((2,), (0,)))
    if lengths is not None:
        valid = valid_steps(lengths, y.shape[0])[..., 0]
        scores = jnp.where(valid, scores, -jnp.inf)
    shares = jax.nn.softmax(scores, axis=0)
    return jnp.sum(shares[..., None] * y, axis=0).astype(y.dtype)


def head(net: NetSpec, params: Tensors, features: jax.Array) -> jax.Array:
    """Logits or values [..., O] from features [..., D*H], in the bias's dtype."""
    weight, over = (params["embedding.weight"], 1) if net.tied else (params["head.weight"], 0)
    return matmul(features, weight, ((features.ndim - 1,), (over,))) + params["head.bias"]


def loss(
    net: NetSpec, outputs: jax.Array, targets: jax.Array, weights: jax.Array | None
) -> jax.Array:
    """Mean loss over what counts, a scalar.

    Args:
        outputs: [..., O] from `head`.
        targets: int32 [...] for cross-entropy, [..., O] for the squared error; finite everywhere.
        weights: [...] with zeros where an element does not count, or None where all do; the mean
            divides by their sum (squared: times O).
    """
    if net.loss == "cross_entropy":
        return cross_entropy(outputs, targets, weights)
    return squared(outputs, targets, weights)


def cross_entropy(logits: jax.Array, targets: jax.Array, weights: jax.Array | None) -> jax.Array:
    """Weighted mean of -log softmax(logits)[target]."""
    shares = jax.nn.log_softmax(logits, axis=-1)
    each = -jnp.take_along_axis(shares, targets[..., None], axis=-1)[..., 0]
    return jnp.mean(each) if weights is None else jnp.sum(each * weights) / jnp.sum(weights)


def squared(values: jax.Array, targets: jax.Array, weights: jax.Array | None) -> jax.Array:
    """Weighted mean of 0.5 (value - target)^2."""
    each = jnp.square(values - targets)
    if weights is None:
        return 0.5 * jnp.mean(each)
    return 0.5 * jnp.sum(each * weights[..., None]) / (jnp.sum(weights) * values.shape[-1])
