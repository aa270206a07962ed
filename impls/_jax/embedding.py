"""What goes into the stack: an embedding of tokens, dense features, or a bottleneck of hashes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from impls._jax import ops
from impls._jax.arrays import state_dtype
from impls._jax.stack import Tensors
from impls.nets import NetSpec

EPSILON = 1e-5
"""Added to the variance in the bottleneck's layer normalisation."""


def embed(net: NetSpec, params: Tensors, inputs: jax.Array, valid: jax.Array | None) -> jax.Array:
    """The stack's input x [T, B, C].

    Args:
        inputs: int32 [T, B] of "tokens", else [T, B, F]; padded steps may hold anything.
        valid: bool [T, B, 1], or None where every step is valid.
    """
    if net.inputs == "tokens":
        known = inputs if valid is None else jnp.where(valid[..., 0], inputs, 0)
        return params["embedding.weight"][known]
    features = ops.where_valid(valid, inputs)
    return features if net.inputs == "dense" else bottleneck(params, features)


def bottleneck(params: Tensors, features: jax.Array) -> jax.Array:
    """pQRNN's bottleneck: [T, B, F] -> [T, B, C], a product and layer normalisation over C."""
    weight = params["bottleneck.weight"]
    total = ops.matmul(features.astype(weight.dtype), weight, ((2,), (0,)))
    total = total + params["bottleneck.bias"]
    centred = total - jnp.mean(total, axis=2, keepdims=True)
    variance = jnp.mean(centred * centred, axis=2, keepdims=True)
    normal = centred * lax.rsqrt(variance + jnp.asarray(EPSILON, state_dtype(total.dtype)))
    scaled = normal * params["bottleneck.scale"] + params["bottleneck.shift"]
    return scaled.astype(weight.dtype)
