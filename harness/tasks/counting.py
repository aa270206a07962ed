"""Counting: after each symbol, how many more "up" than "down" have been seen.

A gated average of bounded values (pooling f and fo) cannot hold an unbounded count; an input gate
that adds (ifo) can.
"""

from __future__ import annotations

import numpy as np

from harness.tasks import Options, Task, TaskData
from harness.tasks.draws import step_accuracy, synthetic
from impls.training import Batch

STEPS, LIMIT = 60, 8
SHIFTS = np.array([0, 1, -1])
"""What symbol 0 (nothing), 1 (up) and 2 (down) do to the count."""


def draw(generator: np.random.Generator, sequences: int) -> Batch:
    """Symbols int32 [T, B], each equally likely; targets [T, B] = count + 8, count in [-8, 8].

    A symbol that would carry the count beyond +-8 is replaced by its opposite.
    """
    symbols = generator.integers(0, 3, (STEPS, sequences), dtype=np.int32)
    targets = np.empty((STEPS, sequences), np.int32)
    count = np.zeros(sequences, np.int64)
    for symbol, target in zip(symbols, targets, strict=True):
        moved = count + SHIFTS[symbol]
        outside = np.abs(moved) > LIMIT
        symbol[outside] = 3 - symbol[outside]
        count = np.where(outside, 2 * count - moved, moved)
        target[:] = count + LIMIT
    return Batch(symbols, targets)


def _data(run_root: int, _options: Options) -> TaskData:
    return synthetic(task, run_root, draw, step_accuracy)


task = Task(
    name="counting",
    version=1,
    about="up minus down so far, at each of 60 steps; 17 classes",
    metric="accuracy",
    higher_is_better=True,
    chance=0.1116,
    ceiling=1.0,
    target=0.99,
    good={"pooling": "ifo"},
    bad={"pooling": "f"},
    net={
        "inputs": "tokens", "vocabulary": 3, "outputs": 2 * LIMIT + 1, "head": "steps",
        "loss": "cross_entropy",
    },
    batch_size=32,
    steps=350,
    input_size=64,
    make=_data,
)  # fmt: skip
