"""What comes out of a network: readouts of the stack, the head, and the losses.

Shapes: T steps, B sequences, D directions, H hidden units, O outputs.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from impls._jax import ops
from impls._jax.arrays import state_dtype
from impls._jax.stack import Tensors
from impls.nets import NetSpec


def readout(
    net: NetSpec,
    params: Tensors,
    y: jax.Array,
    lengths: jax.Array | None,
    valid: jax.Array | None,
) -> jax.Array:
    """One vector per sequence, [B, D*H], from y [T, B, D*H], which is zero on padded steps."""
    if net.readout == "last":
        return _last(net, y, lengths)
    if net.readout == "mean":
        count = y.shape[0] if lengths is None else lengths[:, None]
        wide = y.astype(state_dtype(y.dtype))
        return (jnp.sum(wide, axis=0) / jnp.asarray(count, wide.dtype)).astype(y.dtype)
    scores = ops.matmul(y, params["readout.weight"], ((2,), (0,)))
    if valid is not None:
        scores = jnp.where(valid[..., 0], scores, -jnp.inf)
    shares = jax.nn.softmax(scores, axis=0)
    return jnp.sum(shares[..., None] * y, axis=0).astype(y.dtype)


def _last(net: NetSpec, y: jax.Array, lengths: jax.Array | None) -> jax.Array:
    """The last valid step; of the reverse direction the first, where it has read everything."""
    if lengths is None:
        last = y[-1]
    else:
        last = jnp.take_along_axis(y, (lengths - 1)[None, :, None], axis=0)[0]
    if not net.core.bidirectional:
        return last
    hidden = net.core.hidden_size
    return jnp.concatenate([last[:, :hidden], y[0, :, hidden:]], axis=1)


def head(net: NetSpec, params: Tensors, features: jax.Array) -> jax.Array:
    """[..., O] logits or values in float32 at least, from [..., D*H]."""
    last = features.ndim - 1
    if net.tied:
        total = ops.matmul(features, params["embedding.weight"], ((last,), (1,)))
    else:
        total = ops.matmul(features, params["head.weight"], ((last,), (0,)))
    return total + params["head.bias"]


def loss(
    net: NetSpec, outputs: jax.Array, targets: jax.Array, weights: jax.Array | None
) -> jax.Array:
    """Mean loss over what counts.

    Args:
        outputs: [B, O] or [T, B, O].
        targets: int32 [B] or [T, B] for "cross_entropy", else of the outputs' shape; where the
            weight is 0 they may hold anything.
        weights: [B] or [T, B], how much each target counts; None = all alike.
    """
    counts = None if weights is None else weights > 0
    if net.loss == "cross_entropy":
        known = targets if counts is None else jnp.where(counts, targets, 0)
        shares = jax.nn.log_softmax(outputs, axis=-1)
        each = -jnp.take_along_axis(shares, known[..., None], axis=-1)[..., 0]
    else:
        wanted = targets if counts is None else jnp.where(counts[..., None], targets, 0.0)
        each = jnp.mean(0.5 * (outputs - wanted) ** 2, axis=-1)
    if weights is None:
        return jnp.mean(each)
    return jnp.sum(each * weights) / jnp.sum(weights)
