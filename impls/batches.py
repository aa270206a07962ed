"""Batches made ready for any framework: checked, padding set to zero, what counts as numbers.

Shapes: T steps, B sequences, F features, O outputs, U target steps.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from impls.beam import END
from impls.contract import SpecError
from impls.nets import NetSpec
from impls.params import stream_hindrance
from impls.training import Batch


def ready(net: NetSpec, batch: Batch) -> Batch:
    """The batch with zeros on padded steps of inputs and targets, and with complete weights.

    `weights` become float32 [T, B] (head "seq2seq": [U, B]) with zeros on padded steps, or stay
    None where every element counts once; of head "sequence" they are None. Targets that do not
    count become zero.

    Raises:
        SpecError: a shape, a length, a symbol or a carry that does not fit the network, a field
            that its head does not know, a target without its end mark, or nothing that counts.
    """
    _check_inputs(net, batch)
    _check_fields(net, batch)
    steps, rows = batch.inputs.shape[:2]
    valid = _valid("lengths", batch.lengths, steps, rows)
    inputs = _zeroed(batch.inputs, valid)
    if net.inputs == "tokens":
        _check_symbols("inputs", inputs, net.vocabulary)
    if net.head == "sequence":
        _check_targets(net, batch.targets, (rows,))
        return replace(batch, inputs=inputs)
    if net.head == "seq2seq":
        steps = len(batch.targets)
        valid = _valid("target_lengths", batch.target_lengths, steps, rows)
    counted, weights = valid, None
    if batch.weights is not None:
        weights = _weights(batch.weights, valid, (steps, rows))
        counted = weights > 0
    elif valid is not None:
        weights = valid.astype(np.float32)
    targets = _zeroed(batch.targets, counted)
    _check_targets(net, targets, (steps, rows))
    if net.head == "seq2seq":
        _check_ends(targets, batch.target_lengths)
    return replace(batch, inputs=inputs, targets=targets, weights=weights)


def carry_hindrance(net: NetSpec) -> str | None:
    """Why no batch of this network can continue the one before (`Batch.carry`), or None."""
    if net.head == "seq2seq":
        return "an encoder-decoder reads every source from its start"
    if net.core.bidirectional:
        return "a reverse direction starts at the end, which the next batch moves"
    return stream_hindrance(net.core)


def _check_inputs(net: NetSpec, batch: Batch) -> None:
    features = {"tokens": (), "dense": (net.core.input_size,), "hashed": (net.features,)}
    own = features[net.inputs]
    shape = batch.inputs.shape
    if len(shape) != 2 + len(own) or shape[2:] != own or min(shape) < 1:
        wanted = ", ".join(map(str, ("T", "B", *own)))
        raise SpecError(f"inputs of shape {shape}: {net.inputs!r} are [{wanted}], T and B above 0")
    if batch.carry and (reason := carry_hindrance(net)):
        raise SpecError(f"carry = True: {reason}")


def _check_fields(net: NetSpec, batch: Batch) -> None:
    if batch.weights is not None and net.head == "sequence":
        raise SpecError("weights: head 'sequence' has one target per sequence and counts all alike")
    if batch.target_lengths is not None and net.head != "seq2seq":
        raise SpecError(f"target_lengths: head {net.head!r} has none, give lengths alone")
    rows, count = batch.rows, batch.inputs.shape[1]
    if rows is not None and (rows.shape != (count,) or rows.dtype.kind not in "iu"):
        raise SpecError(
            f"rows of shape {rows.shape} and type {rows.dtype}: give {count} whole numbers"
        )


def _check_ends(targets: np.ndarray, lengths: np.ndarray | None) -> None:
    ends = len(targets) if lengths is None else lengths
    last = targets[np.subtract(ends, 1), np.arange(targets.shape[1])]
    if np.any(last != END):
        at = int(np.argmax(last != END))
        raise SpecError(
            f"targets: sentence {at} ends with {last[at]}, each must end with the end mark {END} "
            "at its target_lengths"
        )


def _valid(name: str, lengths: np.ndarray | None, steps: int, rows: int) -> np.ndarray | None:
    """bool [T, B], or None where every step is valid."""
    if lengths is None:
        return None
    whole = lengths.dtype.kind in "iu" and lengths.shape == (rows,)
    if not whole or lengths.min() < 1 or lengths.max() > steps:
        raise SpecError(f"{name} = {lengths}: give {rows} whole numbers in 1..{steps}")
    valid: np.ndarray = np.arange(steps)[:, None] < lengths
    return valid


def _zeroed(array: np.ndarray, kept: np.ndarray | None) -> np.ndarray:
    """The array [T, B] or [T, B, ...] with zeros where `kept` [T, B] is False."""
    if kept is None or array.shape[:2] != kept.shape:
        return array
    places = kept.reshape(kept.shape + (1,) * (array.ndim - 2))
    return np.where(places, array, np.zeros((), array.dtype))


def _weights(weights: np.ndarray, valid: np.ndarray | None, shape: tuple[int, int]) -> np.ndarray:
    if weights.shape != shape:
        raise SpecError(f"weights of shape {weights.shape}: give {list(shape)}")
    complete: np.ndarray = _zeroed(weights.astype(np.float32, copy=False), valid)
    if not np.all(complete >= 0) or not complete.any():
        raise SpecError("weights: give numbers of at least 0 and one above 0 on a valid step")
    return complete


def _check_targets(net: NetSpec, targets: np.ndarray, shape: tuple[int, ...]) -> None:
    wanted = shape if net.loss == "cross_entropy" else (*shape, net.outputs)
    if targets.shape != wanted:
        raise SpecError(f"targets of shape {targets.shape}: loss {net.loss!r} has {list(wanted)}")
    if net.loss == "cross_entropy":
        _check_symbols("targets", targets, net.outputs)


def _check_symbols(name: str, symbols: np.ndarray, count: int) -> None:
    if not np.issubdtype(symbols.dtype, np.integer):
        raise SpecError(f"{name} of type {symbols.dtype}: give whole numbers in 0..{count - 1}")
    low, high = symbols.min(), symbols.max()
    if low < 0 or high >= count:
        raise SpecError(f"{name} hold {low}..{high}: give whole numbers in 0..{count - 1}")
