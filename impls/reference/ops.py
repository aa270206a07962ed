"""What both recurrences share: the logistic function, valid steps, and reversal in time."""

from __future__ import annotations

import numpy as np


def sigmoid(a: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-a)), without overflow and exact to rounding in both tails."""
    small: np.ndarray = np.exp(-np.abs(a))
    out: np.ndarray = np.where(a >= 0, 1.0, small) / (1.0 + small)
    return out


def product(array: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """[T, B, N] @ [N, M] as one product of matrices; NumPy alone would make one of every step."""
    steps, batch, _ = array.shape
    out: np.ndarray = array.reshape(steps * batch, -1) @ matrix
    return out.reshape(steps, batch, -1)


def valid_steps(lengths: np.ndarray, steps: int) -> np.ndarray:
    """bool [T, B, 1]: True at the steps before each sequence's own end (same in both orders)."""
    return (np.arange(steps)[:, None] < lengths[None, :])[:, :, None]


def reverse(array: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """[T, B, ...] with the valid steps of each sequence reversed; padded steps stay in place.

    It is its own inverse, so it leads into processing order and back to natural time.
    """
    steps, batch = array.shape[:2]
    time = np.arange(steps)[:, None]
    source = np.where(time < lengths, lengths - 1 - time, time)
    return array[source, np.arange(batch)]
