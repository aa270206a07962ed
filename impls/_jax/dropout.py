"""Inverted dropout (Srivastava et al., JMLR 15, 2014); its masks follow a seed and a site alone."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from impls._jax.zoneout import philox4x32


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
    kept = _uniforms(seed, x.shape, site) >= np.uint32(round(probability * 65536))
    return jnp.where(kept, x / (1 - probability), jnp.zeros((), x.dtype))


def _uniforms(seed: jax.Array, shape: tuple[int, ...], site: int) -> jax.Array:
    """uint32 of `shape`, each uniform in 0..65535, by Philox as the zoneout mask.

    On the CPU jax.random compiles three to four times as long for this and runs twice as long.
    """
    size = int(np.prod(shape))
    blocks = jnp.arange(-(-size // 8), dtype=jnp.uint32)
    zero = jnp.uint32(0)
    drawn = philox4x32(seed, (blocks, zero, zero, jnp.uint32(site)))
    halves = [part for word in drawn for part in (word & np.uint32(0xFFFF), word >> 16)]
    return jnp.concatenate(halves)[:size].reshape(shape)
