"""Whether a batch fits a network: asked on the host, before its arrays reach any framework."""

from __future__ import annotations

import numpy as np

from impls.contract import SpecError
from impls.nets import Batch, NetSpec


def check(net: NetSpec, batch: Batch) -> None:
    """Raise SpecError where a shape, a length, a symbol or a target does not fit `net`.

    A framework would report some of these late or never: JAX reads row V-1 of an embedding for
    every symbol above it.
    """
    tokens = net.inputs == "tokens"
    if batch.inputs.ndim != (2 if tokens else 3) or 0 in batch.inputs.shape:
        shape = "[T, B]" if tokens else "[T, B, F]"
        raise SpecError(f"inputs {net.inputs!r} have shape {batch.inputs.shape}: give {shape}")
    steps, size = batch.inputs.shape[:2]
    width = net.core.input_size if net.inputs == "dense" else net.features
    if not tokens and batch.inputs.shape[2] != width:
        raise SpecError(
            f"inputs {net.inputs!r} have {batch.inputs.shape[2]} features: the network has {width}"
        )
    valid = _valid(batch, steps, size)
    if tokens:
        _symbols("inputs", batch.inputs, valid, net.vocabulary)
    if net.head != "seq2seq":
        _targets(net, batch, valid, steps, size)


def _valid(batch: Batch, steps: int, size: int) -> np.ndarray | None:
    """bool [T, B], or None where every step is valid."""
    lengths = batch.lengths
    if lengths is None:
        return None
    fits = lengths.shape == (size,) and np.all((lengths >= 1) & (lengths <= steps))
    if not fits:
        raise SpecError(f"lengths = {lengths}: give {size} numbers in 1..{steps}")
    return np.asarray(np.arange(steps)[:, None] < lengths)


def _symbols(name: str, given: np.ndarray, counted: np.ndarray | None, many: int) -> None:
    if given.dtype.kind not in "iu":
        raise SpecError(f"{name} have dtype {given.dtype}: give whole numbers in 0..{many - 1}")
    low, high = given.min(), given.max()
    if (low < 0 or high >= many) and counted is not None:
        seen = np.where(counted, given, 0)
        low, high = seen.min(), seen.max()
    if low < 0 or high >= many:
        wrong = int(low if low < 0 else high)
        raise SpecError(f"{name} hold {wrong}: give whole numbers in 0..{many - 1}")


def _targets(net: NetSpec, batch: Batch, valid: np.ndarray | None, steps: int, size: int) -> None:
    places = (size,) if net.head == "sequence" else (steps, size)
    wanted = places if net.loss == "cross_entropy" else (*places, net.outputs)
    if batch.targets.shape != wanted:
        raise SpecError(f"targets have shape {batch.targets.shape}: give {wanted}")
    counted = valid if net.head == "steps" else None
    if batch.weights is not None:
        if net.head != "steps" or batch.weights.shape != places:
            raise SpecError(
                f"weights have shape {batch.weights.shape}: only head 'steps' has them, {places}"
            )
        weighted = batch.weights > 0
        counted = weighted if counted is None else weighted & counted
        if not counted.any():
            raise SpecError("weights are 0 on every valid step: nothing is left to learn from")
    if net.loss == "cross_entropy":
        _symbols("targets", batch.targets, counted, net.outputs)
