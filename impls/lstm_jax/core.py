"""The LSTM layer as one `lax.scan`: only the recurrent matrix product stays inside the loop."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from impls._jax import ops
from impls._jax.arrays import state_dtype
from impls._jax.stack import Mask, Tensors
from impls.contract import ModelSpec

Carry = tuple[jax.Array, jax.Array]


def _cell(
    total: jax.Array, carry: Carry, valid: jax.Array | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Activated gates [B, 4H] (i f g o) and the next h and c; a padded step keeps both."""
    hidden, cell = carry
    i, f, g, o = jnp.split(total, 4, axis=1)
    i, f, g, o = jax.nn.sigmoid(i), jax.nn.sigmoid(f), jnp.tanh(g), jax.nn.sigmoid(o)
    new_cell = f * cell + i * g
    new_hidden = o * jnp.tanh(new_cell)
    if valid is not None:
        new_cell = jnp.where(valid, new_cell, cell)
        new_hidden = jnp.where(valid, new_hidden, hidden)
    return jnp.concatenate([i, f, g, o], axis=1), new_hidden, new_cell


def _product(hidden: jax.Array, matrix: jax.Array) -> jax.Array:
    return ops.matmul(hidden.astype(matrix.dtype), matrix, ((1,), (0,)))


@jax.custom_vjp  # type: ignore[untyped-decorator]
def recurrence(
    entering: jax.Array,
    recurrent: jax.Array,
    hidden: jax.Array,
    cell: jax.Array,
    valid: jax.Array | None,
) -> tuple[jax.Array, jax.Array]:
    """All h_t [T, B, H] and the last c [B, H].

    Args:
        entering: [T, B, 4H], the input's share of the gates, biases included.
        recurrent: [H, 4H].
        hidden: initial h [B, H].
        cell: initial c [B, H].
        valid: bool [T, B, 1], or None where every step is valid.
    """

    def step(carry: Carry, at: tuple[Any, ...]) -> tuple[Carry, jax.Array]:
        total = at[0] + _product(carry[0], recurrent)
        _, new_hidden, new_cell = _cell(total, carry, at[1])
        return (new_hidden, new_cell), new_hidden

    (_, last), hiddens = lax.scan(step, (hidden, cell), (entering, valid))
    return hiddens, last


def _forward(
    entering: jax.Array,
    recurrent: jax.Array,
    hidden: jax.Array,
    cell: jax.Array,
    valid: jax.Array | None,
) -> tuple[tuple[jax.Array, jax.Array], tuple[Any, ...]]:
    def step(carry: Carry, at: tuple[Any, ...]) -> tuple[Carry, tuple[Any, ...]]:
        total = at[0] + _product(carry[0], recurrent)
        gates, new_hidden, new_cell = _cell(total, carry, at[1])
        return (new_hidden, new_cell), (gates, new_hidden, new_cell)

    (_, last), (gates, hiddens, cells) = lax.scan(step, (hidden, cell), (entering, valid))
    return (hiddens, last), (gates, hiddens, cells, recurrent, hidden, cell, valid)


def _backward(saved: tuple[Any, ...], dresults: tuple[jax.Array, jax.Array]) -> tuple[Any, ...]:
    # By hand: autodiff would add up the recurrent weight's gradient step by step, which is one
    # product over all steps here.
    gates, hiddens, cells, recurrent, hidden, cell, valid = saved
    dhiddens, dlast = dresults
    transposed = recurrent.T
    before = jnp.concatenate([cell[None], cells[:-1]])

    def step(carry: Carry, at: tuple[Any, ...]) -> tuple[Carry, jax.Array]:
        dhidden, dcell = carry
        gate, previous, current, dout, ok = at
        dhidden = dhidden + dout
        i, f, g, o = jnp.split(gate, 4, axis=1)
        squashed = jnp.tanh(current)
        through = dcell + dhidden * o * (1.0 - squashed * squashed)
        parts = (
            through * g * i * (1.0 - i),
            through * previous * f * (1.0 - f),
            through * i * (1.0 - g * g),
            dhidden * squashed * o * (1.0 - o),
        )
        dtotal = ops.where_valid(ok, jnp.concatenate(parts, axis=1))
        dbefore = _product(dtotal, transposed), through * f
        if ok is not None:
            dbefore = jnp.where(ok, dbefore[0], dhidden), jnp.where(ok, dbefore[1], dcell)
        return dbefore, dtotal

    start = jnp.zeros_like(hidden), dlast
    (dhidden, dcell), dentering = lax.scan(
        step, start, (gates, before, cells, dhiddens, valid), reverse=True
    )
    entered = jnp.concatenate([hidden[None], hiddens[:-1]]).astype(recurrent.dtype)
    drecurrent = ops.matmul(entered, dentering.astype(recurrent.dtype), ((0, 1), (0, 1)))
    return dentering, drecurrent.astype(recurrent.dtype), dhidden, dcell, None


recurrence.defvjp(_forward, _backward)


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
    valid = None if lengths is None else ops.valid_steps(lengths, x.shape[0])
    ordered = ops.reverse_valid(x, lengths) if direction == "rev" else x
    weight = params["weight"].reshape(1, x.shape[2], -1)
    (entering,) = ops.convolve(ordered, (weight,))
    entering = entering + params["bias"].reshape(-1)
    recurrent = params["recurrent"].reshape(spec.hidden_size, -1)
    wide = state_dtype(x.dtype)
    hidden, cell = state["h"].astype(wide), state["c"].astype(wide)
    hiddens, last = recurrence(entering, recurrent, hidden, cell, valid)
    y = ops.gated_output(hiddens, None, valid, x.dtype)
    if direction == "rev":
        y = ops.reverse_valid(y, lengths)
    return y, {"h": hiddens[-1], "c": last}
