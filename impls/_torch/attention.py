"""Attention of the decoder's last layer over the encoder's outputs (arXiv 1611.01576, eq. 7-9).

Shapes: T source steps, U target steps, B sequences, H hidden units.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from impls._torch.arrays import state_dtype
from impls._torch.ops import valid_steps
from impls._torch.stack import Tensors


class Memory(NamedTuple):
    """What is attended to.

    values [B, T, H]: the encoder's last outputs, finite on padded steps; padded bool [B, 1, T], or
    None where every step is valid.
    """

    values: Tensor
    padded: Tensor | None


def memory_of(y: Tensor, lengths: Tensor | None) -> Memory:
    """The memory of the encoder's last outputs y [T, B, H], zero on padded steps."""
    padded = None if lengths is None else ~valid_steps(lengths, y.shape[0]).permute(1, 2, 0)
    return Memory(y.transpose(0, 1), padded)


def shares(cells: Tensor, memory: Memory) -> Tensor:
    """alpha [B, U, T]: softmax over valid source steps of c_t . h~_s; exactly 0 on padded ones.

    Args:
        cells: [U, B, H], the decoder's un-gated states.
    """
    wide = state_dtype(cells.dtype)  # bfloat16 scores are off by more than their differences
    keys = memory.values.to(wide).transpose(1, 2)
    scores = torch.bmm(cells.to(wide).transpose(0, 1), keys)
    if memory.padded is not None:
        scores = scores.masked_fill(memory.padded, float("-inf"))
    return torch.softmax(scores, dim=2)


def attended(cells: Tensor, memory: Memory) -> Tensor:
    """k_t [U, B, H]: the memory weighted by its shares."""
    weights = shares(cells, memory).to(memory.values.dtype)
    return torch.bmm(weights, memory.values).transpose(0, 1)


def output(params: Tensors, cells: Tensor, opened: Tensor | None, memory: Memory) -> Tensor:
    """h_t [U, B, H] = o_t * (W_k k_t + W_c c_t).

    Args:
        params: "attention.context" (W_k) and "attention.cell" (W_c), both [H, H].
        opened: o [U, B, H]; None = 1, for f-pooling.
    """
    wide = state_dtype(cells.dtype)
    mixed = attended(cells, memory).to(wide) @ params["attention.context"].to(wide)
    mixed = mixed + cells.to(wide) @ params["attention.cell"].to(wide)
    return (mixed if opened is None else opened * mixed).to(cells.dtype)
