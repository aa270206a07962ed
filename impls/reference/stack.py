"""Layers and directions joined into a network: dense connections, both directions, state names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from impls.contract import Arrays, ModelSpec
from impls.reference import attention, conv, lstm, qrnn
from impls.reference.ops import reverse
from impls.reference.philox import hold_mask

CELLS: dict[str, Any] = {"qrnn": qrnn, "lstm": lstm, "conv": conv, "attention": attention}


@dataclass(frozen=True)
class Sequences:
    """Where the batch stands: lengths, mask rows and steps already processed, all int64 [B].

    `seed` None means evaluation.
    """

    lengths: np.ndarray
    rows: np.ndarray
    t0: np.ndarray
    seed: int | None


@dataclass(frozen=True)
class Forward:
    """Result of `forward`: y [T, B, D*H], final states by name, and what `backward` needs."""

    y: np.ndarray
    state: dict[str, np.ndarray]
    saved: dict[str, Any]


def _below(tree: Arrays, at: str) -> dict[str, np.ndarray]:
    """The entries under the prefix `at`, without it."""
    return {name[len(at) + 1 :]: value for name, value in tree.items() if name.startswith(at + ".")}


def _above(tree: Arrays, at: str) -> dict[str, np.ndarray]:
    return {f"{at}.{name}": value for name, value in tree.items()}


def _ordered(array: np.ndarray, direction: str, lengths: np.ndarray) -> np.ndarray:
    """From natural time to processing order, or back."""
    return reverse(array, lengths) if direction == "rev" else array


def _held(
    spec: ModelSpec, where: Sequences, steps: int, layer: int, direction: str
) -> np.ndarray | None:
    if spec.family != "qrnn" or where.seed is None or spec.zoneout == 0.0:
        return None
    return hold_mask(spec, where.seed, where.rows, where.t0, steps, layer, direction)


def forward(
    spec: ModelSpec, params: Arrays, x: np.ndarray, state: Arrays, where: Sequences
) -> Forward:
    """Run all layers; a dense layer sees [the input of the layer below | its output].

    Args:
        x: [T, B, C] in natural time, zeros on padded steps.
        state: every name of `impls.params.state_shapes`.
    """
    cell, features = CELLS[spec.family], x
    final: dict[str, np.ndarray] = {}
    saved: dict[str, Any] = {}
    for layer in range(spec.layers):
        outputs = []
        for direction in spec.directions:
            at = f"layers.{layer}.{direction}"
            y, last, saved[at] = cell.forward(
                spec,
                _below(params, at),
                _ordered(features, direction, where.lengths),
                _below(state, at),
                where.lengths,
                _held(spec, where, len(x), layer, direction),
                where.seed is not None,
            )
            outputs.append(_ordered(y, direction, where.lengths))
            final |= _above(last, at)
        joined = np.concatenate(outputs, axis=-1)
        features = np.concatenate([features, joined], axis=-1) if spec.dense else joined
    return Forward(joined, final, saved)


def backward(
    spec: ModelSpec,
    params: Arrays,
    done: Forward,
    lengths: np.ndarray,
    dy: np.ndarray,
    dstate: Arrays,
) -> tuple[np.ndarray, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Gradients by x, by the initial states and by the parameters, each by its name.

    Args:
        dy: [T, B, D*H] in natural time, zeros on padded steps.
        dstate: every name of `impls.params.state_shapes`.
    """
    cell, dfeatures = CELLS[spec.family], dy
    dinitial: dict[str, np.ndarray] = {}
    dparams: dict[str, np.ndarray] = {}
    passed_on = np.zeros(())  # what the dense layers above add to the gradient of our input
    for layer in reversed(range(spec.layers)):
        parts = np.split(dfeatures, len(spec.directions), axis=-1)
        dinput = passed_on
        for direction, part in zip(spec.directions, parts, strict=True):
            at = f"layers.{layer}.{direction}"
            dx, dfirst, grads = cell.backward(
                spec,
                _below(params, at),
                done.saved[at],
                _ordered(part, direction, lengths),
                _below(dstate, at),
            )
            dinput = dinput + _ordered(dx, direction, lengths)
            dinitial |= _above(dfirst, at)
            dparams |= _above(grads, at)
        if spec.dense and layer:
            passed_on, dfeatures = np.split(dinput, [spec.layer_input_size(layer - 1)], axis=-1)
        else:
            dfeatures = dinput
    return dfeatures, dinitial, dparams
