"""Multi-query associative recall: pairs of key and value, then each key once more: which value?

After zoology (arXiv 2312.04927; there 8192 symbols and 64 steps or more). Keys and values are
adjacent, so a width of two binds them; recall needs a comparison with every stored key. Who only
knows which values were shown reaches `SHOWN`, and networks rest there for long.
"""

from __future__ import annotations

import numpy as np

from harness.tasks import Options, Task, TaskData
from harness.tasks.draws import step_accuracy, synthetic
from impls.training import Batch

STEPS, PAIRS, VOCABULARY = 32, 4, 32
KEYS, VALUES = VOCABULARY // 2 - 1, VOCABULARY // 2
"""Symbol 0 is nothing, 1..15 are keys, 16..31 values."""
SHOWN = 0.3372
"""Expected share of the most frequent of four values drawn from 16: 1/4 where all differ."""


def _distinct(generator: np.random.Generator, sequences: int, among: int, count: int) -> np.ndarray:
    """[count, B] distinct numbers below `among`, in random order."""
    return generator.random((sequences, among)).argsort(axis=1)[:, :count].T


def draw(generator: np.random.Generator, sequences: int) -> Batch:
    """Symbols int32 [T, B]: 4 pairs, then the keys again, each once, at random later steps.

    Keys of a sequence differ, values may repeat. The target [T, B] at a repeated key is its value
    less 16; only these steps count.
    """
    keys = 1 + _distinct(generator, sequences, KEYS, PAIRS)
    values = generator.integers(0, VALUES, (PAIRS, sequences), dtype=np.int32)
    asked = 2 * PAIRS + _distinct(generator, sequences, STEPS - 2 * PAIRS, PAIRS)
    inputs = np.zeros((STEPS, sequences), np.int32)
    inputs[0 : 2 * PAIRS : 2] = keys
    inputs[1 : 2 * PAIRS : 2] = VALUES + values
    column = np.arange(sequences)
    inputs[asked, column] = keys
    targets = np.zeros((STEPS, sequences), np.int32)
    targets[asked, column] = values
    weights = np.zeros((STEPS, sequences), np.float32)
    weights[asked, column] = 1.0
    return Batch(inputs, targets, weights=weights)


def _data(run_root: int, _options: Options) -> TaskData:
    return synthetic(task, run_root, draw, step_accuracy)


task = Task(
    name="mqar",
    version=1,
    about="4 pairs of key and value, then each key again within 24 steps; say its value",
    metric="accuracy",
    higher_is_better=True,
    chance=1 / VALUES,
    ceiling=1.0,
    target=0.9,
    good={"dense": True},
    bad={"kernel_width": 1},
    net={
        "inputs": "tokens", "vocabulary": VOCABULARY, "outputs": VALUES, "head": "steps",
        "loss": "cross_entropy",
    },
    batch_size=32,
    steps=350,
    input_size=64,
    make=_data,
)  # fmt: skip
