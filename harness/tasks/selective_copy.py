"""Selective copying: remember four scattered symbols among blanks and say them in order at the end.

What must be kept is marked by content alone, so the gates have to open for symbols and stay shut
for blanks; the four answers must not overwrite one another. After mad-lab's task of this name
(there 16 symbols, 256 steps).
"""

from __future__ import annotations

import numpy as np

from harness.tasks import Options, Task, TaskData
from harness.tasks.draws import step_accuracy, synthetic
from impls.training import Batch

STEPS, KEPT, SYMBOLS = 40, 4, 8
BLANK, ASK = SYMBOLS, SYMBOLS + 1


def draw(generator: np.random.Generator, sequences: int) -> Batch:
    """Symbols int32 [T, B]: four of 0..7 at random places, blanks between, four asking marks last.

    Targets [T, B] at the asking marks are the four symbols in their order; only these count.
    """
    before = STEPS - KEPT
    kept = generator.integers(0, SYMBOLS, (KEPT, sequences), dtype=np.int32)
    places = generator.random((sequences, before)).argpartition(KEPT, axis=1)[:, :KEPT]
    inputs = np.full((STEPS, sequences), BLANK, np.int32)
    inputs[np.sort(places, axis=1).T, np.arange(sequences)] = kept
    inputs[before:] = ASK
    targets = np.zeros((STEPS, sequences), np.int32)
    targets[before:] = kept
    weights = np.zeros((STEPS, sequences), np.float32)
    weights[before:] = 1.0
    return Batch(inputs, targets, weights=weights)


def _data(run_root: int, _options: Options) -> TaskData:
    return synthetic(task, run_root, draw, step_accuracy)


task = Task(
    name="selective_copy",
    version=1,
    about="4 symbols of 8 among 36 steps, mostly blank, to be repeated in order at the end",
    metric="accuracy",
    higher_is_better=True,
    chance=1 / SYMBOLS,
    ceiling=1.0,
    target=0.95,
    good={"kernel_width": 4},
    bad={"kernel_width": 1},
    net={
        "inputs": "tokens", "vocabulary": SYMBOLS + 2, "outputs": SYMBOLS, "head": "steps",
        "loss": "cross_entropy",
    },
    batch_size=32,
    steps=350,
    input_size=64,
    make=_data,
)  # fmt: skip
