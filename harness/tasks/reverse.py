"""Reversing a string: the smallest task that an encoder-decoder needs attention for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from harness.tasks import Options, Task, TaskData
from harness.tasks.draws import exact_match, synthetic
from impls.beam import END
from impls.training import Batch

SHORTEST, LONGEST, LETTERS = 4, 12, 26
PAD, FIRST = 0, END + 1
"""Letters follow the padding and the end mark."""


def draw(generator: np.random.Generator, sequences: int) -> Batch:
    """Inputs int32 [12, B]: 4 to 12 letters (symbols 2..27), zero-padded; `lengths` [B].

    Targets int32 [13, B]: the same letters backwards and the end mark 1, zero-padded.
    """
    lengths = generator.integers(SHORTEST, LONGEST + 1, sequences)
    inputs = generator.integers(FIRST, FIRST + LETTERS, (LONGEST, sequences), dtype=np.int32)
    at = np.arange(LONGEST)[:, None]
    inputs[at >= lengths] = PAD
    targets = np.zeros((LONGEST + 1, sequences), np.int32)
    backwards = np.take_along_axis(inputs, np.maximum(lengths - 1 - at, 0), 0)
    targets[:-1] = np.where(at < lengths, backwards, PAD)
    targets[lengths, np.arange(sequences)] = END
    return Batch(inputs, targets, lengths=lengths, target_lengths=lengths + 1)


def text(symbols: Sequence[int]) -> str:
    """The letters of a string of symbols; padding and end mark are left out."""
    return "".join(chr(ord("a") + s - FIRST) for s in symbols if s >= FIRST)


def _data(run_root: int, _options: Options) -> TaskData:
    return synthetic(task, run_root, draw, exact_match, text)


task = Task(
    name="reverse",
    version=1,
    about="4 to 12 letters backwards, by an encoder-decoder",
    metric="exact_match",
    higher_is_better=True,
    chance=0.0,
    ceiling=1.0,
    target=0.95,
    good={},
    bad={"hidden_size": 8},
    net={
        "inputs": "tokens", "vocabulary": FIRST + LETTERS, "outputs": FIRST + LETTERS,
        "head": "seq2seq", "loss": "cross_entropy",
    },
    batch_size=32,
    steps=1000,
    input_size=64,
    make=_data,
)  # fmt: skip
