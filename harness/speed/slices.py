"""Some sequences of a batch: which ones the gate compares, and the same work for only those."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from impls.contract import ModelSpec, Work

SLICE = 8
FULL_LIMIT = 2**20
"""Above this B * T * H the oracle computes a slice of 8 sequences."""


def chosen(work: Work, spec: ModelSpec, limit: int = FULL_LIMIT) -> np.ndarray:
    """Indices of the compared sequences: all, or 8 spread over the batch of a large cell.

    A train_step's loss is the sum over the batch, so that it is always compared as a whole.
    """
    steps, batch, _ = work.x.shape
    small = batch <= SLICE or batch * steps * spec.hidden_size <= limit
    if small or work.kind == "train_step":
        return np.arange(batch)
    return np.unique(np.linspace(0, batch - 1, SLICE).round().astype(int))


def batch_axis(name: str) -> int:
    """The batch axis of an array by its name."""
    return 1 if name in ("y", "grad.x") or name.endswith(".window") else 0


def per_sequence(name: str) -> bool:
    """True for results that have a batch axis, False for a loss or a parameter's gradient."""
    return name in ("y", "grad.x") or name.startswith(("state.", "grad.state."))


def pick(name: str, value: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Some sequences of a named array; a scalar belongs to all of them."""
    return value if np.ndim(value) == 0 else np.take(value, rows, axis=batch_axis(name))


def take(work: Work, rows: np.ndarray) -> Work:
    """The same work for some of its sequences; each keeps its row of the zoneout mask."""
    mask_rows = np.arange(work.x.shape[1]) if work.rows is None else work.rows

    def cut(value: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(value[:, rows])

    return replace(
        work,
        x=cut(work.x),
        lengths=None if work.lengths is None else work.lengths[rows],
        state={name: pick(name, value, rows) for name, value in work.state.items()},
        rows=mask_rows[rows],
        dy=None if work.dy is None else cut(work.dy),
        dstate={name: pick(name, value, rows) for name, value in work.dstate.items()},
        target=None if work.target is None else cut(work.target),
    )


def mute(work: Work, rows: np.ndarray) -> Work:
    """The same work with zero gradients of output and state outside some sequences."""

    def masked(name: str, value: np.ndarray) -> np.ndarray:
        shape = [1] * value.ndim
        shape[batch_axis(name)] = -1
        keep = np.zeros(value.shape[batch_axis(name)], dtype=bool)
        keep[rows] = True
        return np.where(keep.reshape(shape), value, np.zeros((), value.dtype))

    return replace(
        work,
        dy=None if work.dy is None else masked("y", work.dy),
        dstate={name: masked(name, value) for name, value in work.dstate.items()},
    )
