"""What the stack sees of a batch: embedded tokens, dense features, or a hashed bottleneck."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from impls._jax.ops import matmul
from impls._jax.stack import Tensors
from impls.nets import NetSpec

LAYER_NORM_EPSILON = 1e-5


def embed(net: NetSpec, params: Tensors, inputs: jax.Array) -> jax.Array:
    """The first layer's input [T, B, C].

    Args:
        params: by canonical name, see `impls.net_params`.
        inputs: int32 [T, B] for "tokens", [T, B, F] in the weights' dtype otherwise; finite.
    """
    if net.inputs == "tokens":
        return params["embedding.weight"][inputs]
    if net.inputs == "hashed":
        return bottleneck(params, inputs)
    return inputs


def bottleneck(params: Tensors, features: jax.Array) -> jax.Array:
    """[T, B, C]: features [T, B, F] multiplied and layer-normalised over C, in their own dtype.

    pQRNN's bottleneck (seq_flow_lite in tensorflow/models) without its quantisation.
    """
    flat = matmul(features, params["bottleneck.weight"], ((2,), (0,)))
    pre = flat + params["bottleneck.bias"]
    centred = pre - jnp.mean(pre, axis=2, keepdims=True)
    variance = jnp.mean(centred * centred, axis=2, keepdims=True)
    normal = centred * lax.rsqrt(variance + LAYER_NORM_EPSILON)
    scaled = normal * params["bottleneck.scale"] + params["bottleneck.shift"]
    return scaled.astype(features.dtype)
