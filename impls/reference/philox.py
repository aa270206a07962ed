"""The zoneout mask as data: Philox4x32-10 and the mapping from its words to units and steps.

Generator: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).
`numpy.random.Philox` is the 4x64 variant and draws other bits.
"""

from __future__ import annotations

import numpy as np

from impls.contract import STREAMS, ModelSpec, SpecError

ROUNDS = 10
_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_WORD = np.uint64(32)
STEPS_PER_BLOCK = 8
"""Steps served by one call of the generator: four 32-bit words, two 16-bit halves each."""


def philox4x32(key: np.ndarray, counter: np.ndarray) -> np.ndarray:
    """Philox4x32-10: four random 32-bit words for every counter.

    Args:
        key: [2], the low and the high word of the 64-bit key.
        counter: [..., 4]; only the low 32 bits of each word count.

    Returns:
        uint32 [..., 4].
    """
    # Products of two 32-bit words need 64 bits, so everything is held in uint64.
    c0, c1, c2, c3 = np.moveaxis(np.asarray(counter).astype(np.uint64) & _LOW, -1, 0)
    k0, k1 = (int(word) for word in key)
    for _ in range(ROUNDS):
        product0, product1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            (product1 >> _WORD) ^ c1 ^ np.uint64(k0),
            product1 & _LOW,
            (product0 >> _WORD) ^ c3 ^ np.uint64(k1),
            product0 & _LOW,
        )
        k0, k1 = (k0 + _KEY_STEPS[0]) & 0xFFFFFFFF, (k1 + _KEY_STEPS[1]) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3], axis=-1).astype(np.uint32)


def key_of(seed: int) -> np.ndarray:
    """uint32 [2]: the low and the high word of a 64-bit seed.

    Raises:
        SpecError: the seed is not in 0..2**64 - 1.
    """
    if not 0 <= int(seed) < 1 << 64:
        raise SpecError(f"seed = {seed!r}: give a whole number in 0..2**64 - 1")
    return np.array([int(seed) & 0xFFFFFFFF, int(seed) >> 32], dtype=np.uint32)


def hold_mask(
    spec: ModelSpec,
    seed: int,
    rows: np.ndarray,
    t0: np.ndarray | int,
    steps: int,
    layer: int,
    direction: str,
    network: int = 0,
) -> np.ndarray:
    """Where zoneout holds a unit, one layer and direction, in processing order.

    Args:
        seed: 64-bit seed.
        rows: [B], the mask row of each sequence.
        t0: steps each sequence has already processed, scalar or [B].
        direction: "fwd", "rev", or "dec" for "fwd" of network 1.
        network: 0 for an encoder or the only network, 1 for a decoder.

    Returns:
        bool [T, B, H]: True with probability round(zoneout * 65536) / 65536.

    Raises:
        SpecError: the seed does not fit 64 bits.
    """
    rows = np.asarray(rows, dtype=np.int64)
    start = np.broadcast_to(np.asarray(t0, dtype=np.int64), rows.shape)
    time = start + np.arange(steps, dtype=np.int64)[:, None]
    first = start // STEPS_PER_BLOCK
    block = time // STEPS_PER_BLOCK - first

    units = rows[:, None] * spec.hidden_size + np.arange(spec.hidden_size)
    counter = np.empty((int(block.max()) + 1, *units.shape, 4), dtype=np.int64)
    counter[..., 0] = units
    counter[..., 1] = (first + np.arange(counter.shape[0])[:, None])[:, :, None]
    counter[..., 2] = layer
    counter[..., 3] = STREAMS[direction] + 2 * network

    words = philox4x32(key_of(seed), counter)
    halves = np.stack([words & np.uint32(0xFFFF), words >> np.uint32(16)], axis=-1)
    uniforms = halves.reshape(*words.shape[:-1], STEPS_PER_BLOCK)
    chosen = uniforms[block, np.arange(rows.size), :, time % STEPS_PER_BLOCK]
    return chosen < round(spec.zoneout * 65536)
