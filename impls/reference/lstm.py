"""One LSTM layer in one direction, gates in the order i f g o, and its gradients.

The same mathematics as `torch.nn.LSTM` with one bias. All arrays are float64 in processing order,
and padded steps of `x` and `dy` hold zeros already.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from impls.contract import Arrays, ModelSpec
from impls.reference.ops import product, sigmoid, valid_steps

Grads = dict[str, np.ndarray]


@dataclass(frozen=True)
class Saved:
    """What the gradients need: gates [T, B, 4, H] and states [T+1, B, H], the initial one first."""

    x: np.ndarray
    gates: np.ndarray
    hidden: np.ndarray
    cells: np.ndarray
    valid: np.ndarray


def forward(
    spec: ModelSpec,
    weights: Arrays,
    x: np.ndarray,
    state: Arrays,
    lengths: np.ndarray,
    held: np.ndarray | None = None,
    training: bool = False,
) -> tuple[np.ndarray, Grads, Saved]:
    """Run the layer over x [T, B, C]; an LSTM has no zoneout, so the last two are not read.

    Args:
        weights: `weight` [C, 4, H], `recurrent` [H, 4, H], `bias` [4, H].
        state: `h` and `c` [B, H].
        lengths: [B].

    Returns:
        y [T, B, H] (0 on padded steps), the final state, and what `backward` needs.
    """
    steps, batch, features = x.shape
    hidden_size = spec.hidden_size
    entering = product(x, weights["weight"].reshape(features, -1))
    entering += weights["bias"].reshape(-1)
    recurrent = weights["recurrent"].reshape(hidden_size, -1)
    valid = valid_steps(lengths, steps)
    gates = np.empty((steps, batch, 4, hidden_size))
    hidden, cells = (np.empty((steps + 1, batch, hidden_size)) for _ in range(2))
    hidden[0], cells[0] = state["h"], state["c"]
    for t in range(steps):
        summed = (entering[t] + hidden[t] @ recurrent).reshape(batch, 4, hidden_size)
        gates[t] = sigmoid(summed)
        gates[t, :, 2] = np.tanh(summed[:, 2])
        i, f, g, o = np.moveaxis(gates[t], 1, 0)
        cell = f * cells[t] + i * g
        cells[t + 1] = np.where(valid[t], cell, cells[t])
        hidden[t + 1] = np.where(valid[t], o * np.tanh(cell), hidden[t])
    final = {"h": hidden[-1].copy(), "c": cells[-1].copy()}
    return np.where(valid, hidden[1:], 0.0), final, Saved(x, gates, hidden, cells, valid)


def backward(
    spec: ModelSpec, weights: Arrays, saved: Saved, dy: np.ndarray, dstate: Arrays
) -> tuple[np.ndarray, Grads, Grads]:
    """Gradients of a loss whose gradient by y is `dy` and by the final state `dstate`.

    Returns:
        Gradients by x [T, B, C], by the initial state, and by the weights, named as given.
    """
    steps, batch, features = saved.x.shape
    weight = weights["weight"].reshape(features, -1)
    recurrent = weights["recurrent"].reshape(spec.hidden_size, -1)
    summed = np.empty((steps, batch, 4 * spec.hidden_size))
    dh, dc = dstate["h"], dstate["c"]
    for t in range(steps - 1, -1, -1):
        i, f, g, o = np.moveaxis(saved.gates[t], 1, 0)
        squashed = np.tanh(saved.cells[t + 1])
        at_h = dh + dy[t]
        at_c = dc + at_h * o * (1.0 - squashed * squashed)
        by_gate = np.stack(
            [
                at_c * g * i * (1.0 - i),
                at_c * saved.cells[t] * f * (1.0 - f),
                at_c * i * (1.0 - g * g),
                at_h * squashed * o * (1.0 - o),
            ],
            axis=1,
        )
        valid = saved.valid[t]
        summed[t] = np.where(valid, by_gate.reshape(batch, -1), 0.0)
        # On a padded step the state is handed on as it is, and so are its gradients.
        dh = np.where(valid, summed[t] @ recurrent.T, dh)
        dc = np.where(valid, at_c * f, dc)

    flat = summed.reshape(steps * batch, -1)
    grads = {
        "weight": saved.x.reshape(steps * batch, features).T @ flat,
        "recurrent": saved.hidden[:-1].reshape(steps * batch, -1).T @ flat,
        "bias": flat.sum(axis=0),
    }
    grads = {name: value.reshape(weights[name].shape) for name, value in grads.items()}
    return product(summed, weight.T), {"h": dh, "c": dc}, grads
