"""Handwritten digits read pixel by pixel: scikit-learn's 1,797 bundled images of 8 x 8 pixels."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
from functools import cache
from pathlib import Path

import numpy as np

from harness.errors import UsageError
from harness.tasks import Options, Task, TaskData
from harness.tasks.draws import accuracy, fingerprint, order
from impls.training import Batch

STEPS = 64
SHARES = {"test": 24, "validation": 9, "tuning": 7}
"""Percent of the images by a hash of their pixels; the rest trains. Equal images go together."""


@cache
def _images() -> tuple[np.ndarray, np.ndarray]:
    """Pixels [1797, 64] in 0..16 and labels [1797], from the file that scikit-learn brings.

    The file is read where it lies: importing the library takes seconds of every process.

    Raises:
        UsageError: scikit-learn is not installed, or without its images.
    """
    found = importlib.util.find_spec("sklearn")
    path = Path(found.origin or "").parent / "datasets/data/digits.csv.gz" if found else None
    if path is None or not path.is_file():
        raise UsageError("task 'digits' needs scikit-learn: pip install 'quasibench[tasks]'")
    with gzip.open(path) as file:
        table = np.loadtxt(file, delimiter=",")
    return table[:, :-1].astype(np.float32), table[:, -1].astype(np.int64)


@cache
def parts() -> dict[str, np.ndarray]:
    """Rows of the images of each set: "train", "validation", "test", "tuning"."""
    chosen: dict[str, list[int]] = {part: [] for part in ("train", *SHARES)}
    for row, pixels in enumerate(_images()[0]):
        digest = hashlib.sha256(b"digits" + pixels.astype(np.uint8).tobytes()).digest()
        at = int.from_bytes(digest[:8], "little") % 100
        for part, share in SHARES.items():
            if at < share:
                chosen[part].append(row)
                break
            at -= share
        else:
            chosen["train"].append(row)
    return {part: np.array(rows) for part, rows in chosen.items()}


def _batch(rows: np.ndarray) -> Batch:
    """Inputs float32 [64, B, 1]: one pixel per step, row by row, in [0, 1]; targets [B]."""
    pixels, labels = _images()
    return Batch(pixels[rows].T[:, :, None] / np.float32(16), labels[rows])


def _data(run_root: int, _options: Options) -> TaskData:
    rows = parts()
    chosen = order(run_root, len(rows["train"]), task.batch_size)
    sets = {part: [_batch(rows[part])] for part in SHARES}
    return TaskData(
        train=lambda step: _batch(rows["train"][chosen(step)]),
        validation=sets["validation"],
        test=sets["test"],
        tuning=sets["tuning"],
        score=accuracy,
        sha256=fingerprint(task.name, task.version, sets.values()),
        net=dict(task.net),
        chance=task.chance,
    )


task = Task(
    name="digits",
    version=1,
    about="scikit-learn's handwritten digits as 64 steps of one pixel; 10 classes",
    metric="accuracy",
    higher_is_better=True,
    chance=0.1,
    ceiling=1.0,
    target=0.65,
    good={"kernel_width": 4},
    bad={"kernel_width": 1},
    net={
        "inputs": "dense", "outputs": 10, "head": "sequence", "readout": "last",
        "loss": "cross_entropy",
    },
    batch_size=32,
    steps=350,
    input_size=1,
    make=_data,
    evaluated=0,
)  # fmt: skip
