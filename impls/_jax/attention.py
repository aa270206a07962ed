"""Attention of the decoder's last layer over the encoder's outputs (arXiv 1611.01576, eq. 7-9).

Shapes: T source steps, U target steps, B sequences, H hidden units.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from impls._jax.arrays import state_dtype
from impls._jax.ops import matmul, valid_steps
from impls._jax.stack import Tensors


class Memory(NamedTuple):
    """What is attended to.

    values [B, T, H]: the encoder's last outputs, finite on padded steps; padded bool [B, 1, T], or
    None where every step is valid.
    """

    values: jax.Array
    padded: jax.Array | None


def memory_of(y: jax.Array, lengths: jax.Array | None) -> Memory:
    """The memory of the encoder's last outputs y [T, B, H], zero on padded steps."""
    padded = None
    if lengths is not None:
        padded = ~jnp.transpose(valid_steps(lengths, y.shape[0]), (1, 2, 0))
    return Memory(jnp.swapaxes(y, 0, 1), padded)


def shares(cells: jax.Array, memory: Memory) -> jax.Array:
    """alpha [B, U, T]: softmax over valid source steps of c_t . h~_s; exactly 0 on padded ones.

    Args:
        cells: [U, B, H], the decoder's un-gated states.
    """
    scores = _products(jnp.swapaxes(cells, 0, 1), memory.values, 2)
    if memory.padded is not None:
        scores = jnp.where(memory.padded, -jnp.inf, scores)
    return jax.nn.softmax(scores, axis=2)


def _products(a: jax.Array, b: jax.Array, axis: int) -> jax.Array:
    """One product per sequence, [B, U, .], over the last axis of a and `axis` of b [B, T, H]."""
    exact = None if a.dtype == jnp.bfloat16 else lax.Precision.HIGHEST
    axes = (((2,), (axis,)), ((0,), (0,)))
    return lax.dot_general(a, b, axes, precision=exact, preferred_element_type=state_dtype(a.dtype))


def attended(cells: jax.Array, memory: Memory) -> jax.Array:
    """k_t [U, B, H]: the memory weighted by its shares."""
    weights = shares(cells, memory).astype(memory.values.dtype)
    mixed = _products(weights, memory.values, 1).astype(memory.values.dtype)
    return jnp.swapaxes(mixed, 0, 1)


def output(
    params: Tensors, cells: jax.Array, opened: jax.Array | None, memory: Memory
) -> jax.Array:
    """h_t [U, B, H] = o_t * (W_k k_t + W_c c_t).

    Args:
        params: "attention.context" (W_k) and "attention.cell" (W_c), both [H, H].
        opened: o [U, B, H]; None = 1, for f-pooling.
    """
    last = ((2,), (0,))
    mixed = matmul(attended(cells, memory), params["attention.context"], last)
    mixed = mixed + matmul(cells, params["attention.cell"], last)
    return (mixed if opened is None else opened * mixed).astype(cells.dtype)
