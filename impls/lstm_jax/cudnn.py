"""The LSTM layer through cuDNN (`jax.experimental.rnn`): CUDA and float32 only."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import rnn

from impls._jax import ops
from impls._jax.stack import Mask, Tensors
from impls.contract import ModelSpec


def packed(params: Tensors) -> jax.Array:
    """The layer's parameters in cuDNN's order: both weights as [4H, in], then both biases.

    cuDNN's gates are i f g o too; it has two biases, of which the second is zero here.
    """
    weights = (
        params[name].reshape(params[name].shape[0], -1).T for name in ("weight", "recurrent")
    )
    bias = params["bias"].reshape(-1)
    return jnp.concatenate([*(w.reshape(-1) for w in weights), bias, jnp.zeros_like(bias)])


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
    """One layer in one direction; see `impls._jax.stack.Core`. An LSTM reads no mask."""
    steps, batch, features = x.shape
    valid = None if lengths is None else ops.valid_steps(lengths, steps)
    ordered = ops.reverse_valid(x, lengths) if direction == "rev" else x
    ends = jnp.full((batch,), steps, jnp.int32) if lengths is None else lengths
    y, hidden, cell = rnn.lstm(
        jnp.swapaxes(ordered, 0, 1),
        state["h"][None],
        state["c"][None],
        packed(params),
        ends,
        features,
        spec.hidden_size,
        1,
        0.0,
        False,
        lax.Precision.HIGHEST,
    )
    y = ops.where_valid(valid, jnp.swapaxes(y, 0, 1))
    if direction == "rev":
        y = ops.reverse_valid(y, lengths)
    return y, {"h": hidden[0], "c": cell[0]}
