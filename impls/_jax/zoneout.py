"""The zoneout mask drawn on the device: Philox4x32-10 in 32-bit arithmetic.

Bit-equal to `impls.reference.hold_mask`, which documents the counter's layout.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from impls.contract import STREAMS, ModelSpec
from impls.reference.philox import ROUNDS, STEPS_PER_BLOCK

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)


def words(value: np.ndarray | int) -> np.ndarray:
    """uint32 [2, ...]: the low and the high words of 64-bit numbers, as `hold_mask` takes them.

    JAX has no 64-bit integers unless they are switched on.
    """
    wide = np.asarray(value).astype(np.uint64)
    return np.stack([wide & np.uint64(0xFFFFFFFF), wide >> np.uint64(32)]).astype(np.uint32)


def _multiply(a: jax.Array, constant: int) -> tuple[jax.Array, jax.Array]:
    """High and low word of a 32x32-bit product, by 16-bit halves."""
    half = np.uint32(0xFFFF)
    a_low, a_high = a & half, a >> 16
    b_low, b_high = np.uint32(constant & 0xFFFF), np.uint32(constant >> 16)
    middle = a_high * b_low + ((a_low * b_low) >> 16)
    other = a_low * b_high + (middle & half)
    return a_high * b_high + (middle >> 16) + (other >> 16), a * np.uint32(constant)


def philox4x32(
    key: jax.Array, counter: tuple[jax.Array, jax.Array, jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Philox4x32-10: four uint32 words for every counter.

    The rounds are a loop: written out they take twice as long to compile, and on a CPU ten times
    as long to run, because XLA computes them again for every word that is read.

    Args:
        key: uint32 [2], low word first.
        counter: four uint32 arrays that broadcast together.
    """

    def one_round(_: int, words: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        c0, c1, c2, c3, k0, k1 = words
        high0, low0 = _multiply(c0, _MULTIPLIERS[0])
        high1, low1 = _multiply(c2, _MULTIPLIERS[1])
        mixed = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        return *mixed, k0 + np.uint32(_KEY_STEPS[0]), k1 + np.uint32(_KEY_STEPS[1])

    c0, c1, c2, c3 = jnp.broadcast_arrays(*counter)
    c0, c1, c2, c3, _, _ = lax.fori_loop(0, ROUNDS, one_round, (c0, c1, c2, c3, key[0], key[1]))
    return c0, c1, c2, c3


def hold_mask(
    spec: ModelSpec,
    seed: jax.Array,
    rows: jax.Array,
    t0: jax.Array,
    steps: int,
    layer: int,
    direction: str,
    network: int = 0,
) -> jax.Array:
    """Where zoneout holds a unit, one layer and direction, in processing order: bool [T, B, H].

    Args:
        seed: uint32 [2], `words` of the 64-bit seed.
        rows: uint32 [B], the low words of the mask rows.
        t0: uint32 [2, B], `words` of the steps already processed.
        network: 0 for an encoder or the only network, 1 for a decoder.
    """
    first = (t0[0] >> 3) | (t0[1] << 29)
    blocks = (steps + 2 * (STEPS_PER_BLOCK - 1)) // STEPS_PER_BLOCK
    unit = rows[:, None] * np.uint32(spec.hidden_size) + jnp.arange(
        spec.hidden_size, dtype=jnp.uint32
    )
    block = (first + jnp.arange(blocks, dtype=jnp.uint32)[:, None])[:, :, None]
    place = jnp.uint32(STREAMS[direction] + 2 * network)
    drawn = philox4x32(seed, (unit[None], block, jnp.uint32(layer), place))

    half = np.uint32(0xFFFF)
    uniforms = jnp.stack([part for word in drawn for part in (word & half, word >> 16)], axis=1)
    held = uniforms < np.uint32(round(spec.zoneout * 65536))
    held = held.reshape(blocks * STEPS_PER_BLOCK, *unit.shape)
    offset = (t0[0] & np.uint32(STEPS_PER_BLOCK - 1)).astype(jnp.int32)
    return jax.vmap(
        lambda column, start: lax.dynamic_slice_in_dim(column, start, steps),
        in_axes=(1, 0),
        out_axes=1,
    )(held, offset)
