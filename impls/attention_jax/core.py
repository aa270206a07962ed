"""A layer of a causal pre-norm Transformer encoder around jax.nn.dot_product_attention.

What it computes, and from which papers: `impls.reference.attention`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from impls._jax import ops
from impls._jax.arrays import state_dtype
from impls._jax.stack import Mask, Tensors
from impls.contract import ModelSpec
from impls.params import NORM_EPSILON, ROTARY_BASE


def _angles(steps: int, size: int, dtype: np.dtype) -> tuple[jax.Array, jax.Array]:
    """cos and sin [T, 1, d/2]; by NumPy in float64: a float32 angle is off by 2e-4 at step 4096."""
    pairs = np.arange(0, size, 2)
    angles = np.arange(steps)[:, None, None] * ROTARY_BASE ** (-pairs / size)
    return jnp.asarray(np.cos(angles), dtype), jnp.asarray(np.sin(angles), dtype)


def _turned(array: jax.Array) -> jax.Array:
    """[B, T, N, d] with the pairs (i, i + d/2) of every step turned by its angles."""
    cos, sin = _angles(array.shape[1], array.shape[3], array.dtype)
    left, right = jnp.split(array, 2, axis=3)
    return jnp.concatenate([left * cos - right * sin, right * cos + left * sin], axis=3)


def _norm(params: Tensors, name: str, u: jax.Array) -> jax.Array:
    centred = u - jnp.mean(u, axis=-1, keepdims=True)
    rate = lax.rsqrt(jnp.mean(centred * centred, axis=-1, keepdims=True) + NORM_EPSILON)
    return centred * rate * params[f"{name}.scale"] + params[f"{name}.shift"]


def _product(params: Tensors, name: str, u: jax.Array) -> jax.Array:
    """u [T, B, N] times a weight [N, ...], plus its bias where there is one."""
    weight = params[f"{name}.weight"].astype(u.dtype)
    out = ops.matmul(u, weight.reshape(weight.shape[0], -1), ((2,), (0,)))
    return out + params[f"{name}.bias"] if f"{name}.bias" in params else out


def _plain(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """`jax.nn.dot_product_attention` of [B, T, N, d] in the dtype of its arguments, causal."""
    steps, size = q.shape[1], q.shape[3]
    scores = jnp.einsum("btnd,bsnd->bnts", q, k) / np.sqrt(size)
    scores = jnp.where(np.tri(steps, dtype=bool), scores, -jnp.inf)
    return jnp.einsum("bnts,bsnd->btnd", jax.nn.softmax(scores), v)


def _attend(spec: ModelSpec, qkv: jax.Array) -> jax.Array:
    """What each step gathers [T, B, H] from itself and the steps before, from [T, B, 3H]."""
    steps, batch, _ = qkv.shape
    # [T, B, 3, N, d] as three times [B, T, N, d]
    parts = qkv.reshape(steps, batch, 3, spec.heads, -1).transpose(2, 1, 0, 3, 4)
    q, k, v = _turned(parts[0]), _turned(parts[1]), parts[2]
    with jax.default_matmul_precision("highest"):  # else TF32 on a GPU
        # The library's softmax is in float32, whatever it is given.
        wide = q.dtype == jnp.float64
        out = _plain(q, k, v) if wide else jax.nn.dot_product_attention(q, k, v, is_causal=True)
    return out.swapaxes(0, 1).reshape(steps, batch, -1)


def core(
    spec: ModelSpec,
    params: Tensors,
    x: jax.Array,
    state: Tensors,
    lengths: jax.Array | None,
    mask: Mask | None,
    layer: int,
    direction: str,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """One layer; see `impls._jax.stack.Core`. There is neither state nor mask.

    bfloat16 inputs and weights are computed with in float32: rounding what enters each of its six
    products would add up to more than the 6e-3 that are allowed against float64.
    """
    wide = x.astype(state_dtype(x.dtype))
    u = _product(params, "input", wide) if "input.weight" in params else wide
    gathered = _attend(spec, _product(params, "qkv", _norm(params, "attention_norm", u)))
    u = u + _product(params, "out", gathered)
    inner = jax.nn.gelu(_product(params, "up", _norm(params, "inner_norm", u)), approximate=True)
    y = u + _product(params, "down", inner)
    if "final_norm.scale" in params:
        y = _norm(params, "final_norm", y)
    valid = None if lengths is None else ops.valid_steps(lengths, x.shape[0])
    return ops.gated_output(y, None, valid, x.dtype), {}
