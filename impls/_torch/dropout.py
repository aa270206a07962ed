"""Inverted dropout whose masks depend on a seed and a site alone, so that a resumed run repeats."""

from __future__ import annotations

import torch
from torch import Tensor

GOLDEN = 0x9E3779B97F4A7C15
"""2**64 / golden ratio: far apart seeds for neighbouring sites."""


def dropout(x: Tensor, probability: float, seed: int | None, site: int) -> Tensor:
    """x with elements zeroed with `probability` and the others divided by 1 - probability.

    Args:
        seed: 64-bit seed of the training step; None = evaluation, x itself.
        site: place in the network, so that masks of one step differ; 0 = after the embedding,
            l + 1 = after layer l.
    """
    if seed is None or probability == 0:
        return x
    generator = torch.Generator(x.device)
    generator.manual_seed((seed + site * GOLDEN) % 2**64)
    kept = torch.empty_like(x).bernoulli_(1 - probability, generator=generator)
    return x * kept.div_(1 - probability)
