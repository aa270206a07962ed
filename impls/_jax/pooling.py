"""A pooling as a differentiable function, from a forward and a backward kernel."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from impls.contract import GATES
from impls.kernels.launch import Call


class Sequences(NamedTuple):
    """Per-sequence data: lengths int32 [B]; seed, rows and t0 as `zoneout.hold_mask` takes them."""

    lengths: jax.Array | None
    seed: jax.Array | None
    rows: jax.Array | None
    t0: jax.Array | None


Pool = Callable[[Call, jax.Array, jax.Array, jax.Array, Sequences], tuple[jax.Array, jax.Array]]
"""(call, pre [T, B, G*H], bias [G*H], c0 [B, H], sequences) -> y [T, B, H] and the final c.

pre are float32 or bfloat16 gate sums without bias in natural time, y is in their format and 0 on
padded steps; all else is float32.
"""


def pooling(forward: Callable[..., Any], backward: Callable[..., Any]) -> Pool:
    """The pooling of two kernels, with a clear refusal of its second derivative.

    Args:
        forward: (call, pre, bias, c0, sequences, record) -> (y, final c, checkpoints); the
            checkpoints are whatever `backward` needs, or None without `record`.
        backward: (call, pre, bias, checkpoints, sequences, dy, dc) -> gradients by pre (its
            format), bias and c0 (float32).

    Raises (what is returned):
        TypeError, ValueError: an array that a kernel would read wrongly.
        NotImplementedError: a derivative of its derivative.
    """

    def plain(
        call: Call, pre: jax.Array, bias: jax.Array, c0: jax.Array, given: Sequences
    ) -> tuple[jax.Array, jax.Array]:
        _check(call, pre, bias, c0)
        y, c, _ = forward(call, pre, bias, c0, given, record=False)
        return y, c

    recorded = _once(partial(forward, record=True))
    gradients = _once(backward)

    def saved(call: Call, pre: Any, bias: Any, c0: Any, given: Sequences) -> tuple[Any, Any]:
        _check(call, pre, bias, c0)
        y, c, checkpoints = recorded(call, pre, bias, c0, given)
        return (y, c), (pre, bias, checkpoints, given)

    def pulled_back(call: Call, saved: Any, results: Any) -> tuple[Any, ...]:
        return *gradients(call, *saved, *results), None

    pool: Any = jax.custom_vjp(plain, nondiff_argnums=(0,))
    pool.defvjp(saved, pulled_back)
    return pool  # type: ignore[no-any-return]


def _check(call: Call, pre: jax.Array, bias: jax.Array, c0: jax.Array) -> None:
    if pre.dtype not in (jnp.float32, jnp.bfloat16):
        raise TypeError(f"pre is {pre.dtype}: give float32 or bfloat16")
    for name, array in (("bias", bias), ("c0", c0)):
        if array.dtype != jnp.float32:
            raise TypeError(f"{name} is {array.dtype}: give float32")
    width = len(GATES[call.pooling]) * c0.shape[1]
    if pre.shape[1:] != (c0.shape[0], width) or bias.shape != (width,):
        raise ValueError(
            f"pre has shape {pre.shape}, bias {bias.shape} and c0 {c0.shape}: give [T, B, G*H], "
            f"[G*H] and [B, H] with G = {len(GATES[call.pooling])}"
        )


def _once(function: Callable[..., Any]) -> Any:
    """The function, static in its first argument, whose derivative is refused."""

    def refuse(*_: Any) -> Any:
        raise NotImplementedError(
            "the pooling kernels have no second derivative: take it through jax_scan"
        )

    first = jax.custom_vjp(function, nondiff_argnums=(0,))
    first.defvjp(refuse, refuse)
    return first
