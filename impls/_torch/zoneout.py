"""The zoneout mask, drawn on the device: Philox4x32-10 in int64 tensors.

Bit for bit the mask of `impls.reference.hold_mask`. Generator: Salmon et al., "Parallel random
numbers: as easy as 1, 2, 3" (SC 2011).
"""

from __future__ import annotations

from typing import TypeAlias

import torch
from torch import Tensor

from impls.contract import STREAMS, ModelSpec

ROUNDS = 10
STEPS_PER_BLOCK = 8
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_LOW = 0xFFFFFFFF

Word: TypeAlias = Tensor | int


def philox4x32(seed: int, counter: tuple[Word, Word, Word, Word]) -> tuple[Word, ...]:
    """Four random 32-bit words for every counter.

    Args:
        seed: 64-bit key.
        counter: four words in 0..2**32 - 1, int64 tensors that broadcast together or ints.

    Returns:
        Four words of the broadcast shape.
    """
    # A product of two 32-bit words wraps in int64; its two halves are still right once the
    # sign that the shift draws in is cut off.
    c0, c1, c2, c3 = counter
    k0, k1 = seed & _LOW, (seed >> 32) & _LOW
    for _ in range(ROUNDS):
        product0, product1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            ((product1 >> 32) & _LOW) ^ c1 ^ k0,
            product1 & _LOW,
            ((product0 >> 32) & _LOW) ^ c3 ^ k1,
            product0 & _LOW,
        )
        k0, k1 = (k0 + _KEY_STEPS[0]) & _LOW, (k1 + _KEY_STEPS[1]) & _LOW
    return c0, c1, c2, c3


def hold_mask(
    spec: ModelSpec,
    seed: int,
    rows: Tensor,
    t0: Tensor,
    steps: int,
    layer: int,
    direction: str,
    network: int = 0,
) -> Tensor:
    """Where zoneout holds a unit, one layer and direction, in processing order.

    Args:
        seed: 64-bit seed.
        rows: [B] int64, the mask row of each sequence.
        t0: [B] int64, steps each sequence has already processed.
        direction: "fwd" or "rev".
        network: 0 for an encoder or the only network, 1 for a decoder.

    Returns:
        bool [T, B, H] on the device of `rows`.
    """
    # Sequences may start anywhere inside a block of eight steps, hence up to one block more.
    blocks = (steps + 2 * (STEPS_PER_BLOCK - 1)) // STEPS_PER_BLOCK
    unit = torch.arange(spec.hidden_size, device=rows.device)
    units = (rows[:, None] * spec.hidden_size + unit) & _LOW
    block = t0 // STEPS_PER_BLOCK + torch.arange(blocks, device=rows.device)[:, None]
    stream = STREAMS[direction] + 2 * network
    words = philox4x32(seed, (units, block[..., None] & _LOW, layer, stream))

    threshold = round(spec.zoneout * 65536)
    halves = [half < threshold for word in words for half in (word & 0xFFFF, word >> 16)]
    held = torch.stack(halves, dim=1).flatten(0, 1)
    time = t0 % STEPS_PER_BLOCK + torch.arange(steps, device=rows.device)[:, None]
    return held.gather(0, time[..., None].expand(-1, -1, spec.hidden_size))
