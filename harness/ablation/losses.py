"""The mean loss of a network's outputs, in float64: what `Trainer.step` minimises, on any set."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from impls.nets import NetSpec
from impls.training import Batch


def mean(net: NetSpec, outputs: Sequence[np.ndarray], batches: Sequence[Batch]) -> float:
    """Mean loss over everything that the batches count; nan or inf where an output is.

    Args:
        outputs: of `Trainer.outputs`, [B, O] or [T, B, O], in the order of the batches.
    """
    total = count = 0.0
    for values, batch in zip(outputs, batches, strict=True):
        weights = counted(net, batch)
        kept = weights > 0
        losses = _losses(net, values[kept].astype(np.float64), batch.targets[kept])
        total += float((weights[kept] * losses).sum())
        count += float(weights.sum())
    return total / count


def counted(net: NetSpec, batch: Batch) -> np.ndarray:
    """Weights of what the loss counts: [B] of sequences, [T, B] of steps."""
    if net.head == "sequence":
        return np.ones(batch.targets.shape[:1])
    if batch.weights is not None:
        return np.asarray(batch.weights, np.float64)
    steps, sequences = batch.targets.shape[:2]
    ends = batch.target_lengths if net.head == "seq2seq" else batch.lengths
    if ends is None:
        return np.ones((steps, sequences))
    return (np.arange(steps)[:, None] < ends[None, :]).astype(np.float64)


def _losses(net: NetSpec, values: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Loss [n] of n counted places: cross-entropy, or half the squared error, mean over O."""
    if net.loss == "squared":
        return np.asarray(0.5 * np.square(values - targets).mean(-1))
    with np.errstate(invalid="ignore", over="ignore"):
        top = values.max(-1, keepdims=True)
        normaliser = np.log(np.exp(values - top).sum(-1)) + top[..., 0]
        chosen = np.take_along_axis(values, targets[..., None].astype(np.int64), -1)[..., 0]
        return np.asarray(normaliser - chosen)
