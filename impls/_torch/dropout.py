"""Inverted dropout (Srivastava et al., JMLR 15, 2014); its masks follow a seed and a site alone."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from impls._torch.zoneout import philox4x32


def dropout(x: Tensor, probability: float, seed: int | None, site: int) -> Tensor:
    """x with elements zeroed with `probability` and the others divided by 1 - probability.

    Args:
        seed: 64-bit seed of the training step; None = evaluation, x itself.
        site: place in the network, so that masks of one step differ; 0 = after the embedding,
            l + 1 = after layer l.
    """
    if seed is None or probability == 0:
        return x
    kept = _kept(seed, x.shape, site, round(probability * 65536), x.device)
    return (x * kept) / (1 - probability)


def _kept(seed: int, shape: torch.Size, site: int, least: int, device: torch.device) -> Tensor:
    """bool of `shape`: where a number uniform in 0..65535 is `least` or more.

    By Philox as the zoneout mask, of all 64 bits of the seed: bit for bit the masks of
    `impls._jax.dropout`, on any device.
    """
    size = math.prod(shape)
    blocks = torch.arange(-(-size // 8), device=device)
    drawn = philox4x32(seed, (blocks, 0, 0, site))
    halves = [part >= least for word in drawn for part in (word & 0xFFFF, word >> 16)]
    return torch.cat(halves)[:size].reshape(shape)
