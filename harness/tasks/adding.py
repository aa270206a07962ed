"""The adding problem: the sum of the two marked numbers of a long sequence.

After Hochreiter and Schmidhuber (1997) in the form of locuslab/TCN (there 400 steps): predicting
1 whatever comes has a mean squared error of 1/6. A convolution of two layers sees the last few
steps only and cannot do better: the known-bad arm.
"""

from __future__ import annotations

import numpy as np

from harness.tasks import Options, Task, TaskData
from harness.tasks.draws import mean_squared_error, synthetic
from impls.training import Batch

STEPS = 60


def draw(generator: np.random.Generator, sequences: int) -> Batch:
    """Inputs float32 [T, B, 2]: a number in [0, 1), and 1 at one step of each half, else 0.

    Targets float32 [B, 1]: the sum of the two marked numbers.
    """
    inputs = np.zeros((STEPS, sequences, 2), np.float32)
    inputs[..., 0] = generator.random((STEPS, sequences), dtype=np.float32)
    half, column = STEPS // 2, np.arange(sequences)
    first = generator.integers(0, half, sequences)
    second = generator.integers(half, STEPS, sequences)
    inputs[first, column, 1] = inputs[second, column, 1] = 1.0
    return Batch(inputs, (inputs[first, column, 0] + inputs[second, column, 0])[:, None])


def _data(run_root: int, _options: Options) -> TaskData:
    return synthetic(task, run_root, draw, mean_squared_error)


task = Task(
    name="adding",
    version=1,
    about="the sum of the two marked numbers among 60",
    metric="mse",
    higher_is_better=False,
    chance=1 / 6,
    ceiling=0.0,
    target=0.02,
    good={"pooling": "f"},
    bad={"family": "conv"},
    net={
        "inputs": "dense", "outputs": 1, "head": "sequence", "readout": "last", "loss": "squared",
    },
    batch_size=32,
    steps=350,
    input_size=2,
    make=_data,
)  # fmt: skip
