"""Inverted dropout whose masks follow from one 64-bit seed per training step."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

Drop = Callable[[jax.Array, float, int], jax.Array]
"""(value, rate, place) -> the value with a share `rate` of its elements zeroed.

`place` numbers the places of a network, so that each draws a mask of its own.
"""


def dropout(value: jax.Array, rate: float, seed: jax.Array, place: int) -> jax.Array:
    """Zero each element with probability `rate`, divide the others by 1 - rate.

    Args:
        seed: uint32 [2], `impls._jax.zoneout.words` of the 64-bit seed.
        place: which of the network's masks this is.
    """
    # The generator is named: its bits must not move with a default of JAX.
    key = jax.random.fold_in(jax.random.wrap_key_data(seed, impl="threefry2x32"), place)
    kept = jax.random.bernoulli(key, 1.0 - rate, value.shape)
    return jnp.where(kept, value / (1.0 - rate), jnp.zeros((), value.dtype))


def dropping(seed: jax.Array | None) -> Drop:
    """Dropout with this step's seed; with None, evaluation, everything passes."""

    def drop(value: jax.Array, rate: float, place: int) -> jax.Array:
        if seed is None or rate == 0.0:
            return value
        return dropout(value, rate, seed, place)

    return drop
