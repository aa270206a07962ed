"""Inverted dropout whose masks depend on a seed and a site alone, so that a resumed run repeats."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def dropout(x: jax.Array, probability: float, seed: jax.Array | None, site: int) -> jax.Array:
    """x with elements zeroed with `probability` and the others divided by 1 - probability.

    Args:
        seed: uint32 [2], `impls._jax.zoneout.words` of the training step's 64-bit seed; None =
            evaluation, x itself.
        site: place in the network, so that masks of one step differ; 0 = after the embedding,
            l + 1 = after layer l.
    """
    if seed is None or probability == 0:
        return x
    # The generator is named, so that no default of JAX can move the masks.
    key = jax.random.fold_in(jax.random.wrap_key_data(seed, impl="threefry2x32"), site)
    kept = jax.random.bernoulli(key, 1 - probability, x.shape)
    return jnp.where(kept, x / (1 - probability), jnp.zeros((), x.dtype))
