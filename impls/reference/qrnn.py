"""One QRNN layer in one direction: convolution, gates, zoneout, pooling, and its gradients.

Mathematics: Bradbury et al., arXiv 1611.01576v2, section 2 (layer) and 2.1 (zoneout). All arrays
are float64 in processing order, and padded steps of `x` and `dy` hold zeros already.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from impls.contract import Arrays, ModelSpec
from impls.reference.ops import product, sigmoid, valid_steps

Grads = dict[str, np.ndarray]


@dataclass(frozen=True)
class Saved:
    """What the gradients need of the forward pass.

    `inputs` [K-1+T, B, C] begins with the window; `states` [T+1, B, H] begins with the initial c;
    `keep` and `admit` [T, B, H] are the factors of the old state and of z after zoneout and
    padding; `slope_f` and `slope_i` are the derivatives of the two by the plain gates.
    """

    inputs: np.ndarray
    states: np.ndarray
    gates: Grads
    keep: np.ndarray
    admit: np.ndarray
    slope_f: np.ndarray | float
    slope_i: np.ndarray | float
    lengths: np.ndarray


def _fused(spec: ModelSpec, weights: Arrays) -> tuple[np.ndarray, np.ndarray]:
    """All gates side by side: weight [K, C, G*H] and bias [G*H]."""
    weight = np.concatenate([weights[f"{gate}.weight"] for gate in spec.gates], axis=-1)
    return weight, np.concatenate([weights[f"{gate}.bias"] for gate in spec.gates])


def _convolution(spec: ModelSpec, weights: Arrays, inputs: np.ndarray) -> np.ndarray:
    """All gate sums [T, B, G*H]: tap K-1 meets the current step, tap 0 the oldest."""
    weight, bias = _fused(spec, weights)
    steps = inputs.shape[0] - spec.kernel_width + 1
    summed: np.ndarray = bias + sum(
        product(inputs[tap : tap + steps], weight[tap]) for tap in range(len(weight))
    )
    return summed


def _activated(spec: ModelSpec, summed: np.ndarray) -> Grads:
    """Gates [T, B, H] by name, from their sums."""
    parts = np.split(summed, len(spec.gates), axis=-1)
    return {
        gate: np.tanh(part) if gate == "z" else sigmoid(part)
        for gate, part in zip(spec.gates, parts, strict=True)
    }


def _slopes(
    spec: ModelSpec, held: np.ndarray | None, training: bool
) -> tuple[np.ndarray | float, np.ndarray | float]:
    """How much of f and of i zoneout lets through: 1 = all, 0 = unit held."""
    if training:
        through = 1.0 if held is None else np.where(held, 0.0, 1.0)
    else:
        through = 1.0 - spec.zoneout if spec.zoneout_eval == "expectation" else 1.0
    return through, through if spec.zoneout_mode == "keep" else 1.0


def forward(
    spec: ModelSpec,
    weights: Arrays,
    x: np.ndarray,
    state: Arrays,
    lengths: np.ndarray,
    held: np.ndarray | None,
    training: bool,
) -> tuple[np.ndarray, Grads, Saved]:
    """Run the layer over x [T, B, C].

    Args:
        weights: `<gate>.weight` [K, C, H] and `<gate>.bias` [H].
        state: `c` [B, H] and, for K > 1, `window` [K-1, B, C].
        lengths: [B].
        held: bool [T, B, H] of `philox.hold_mask`, or None where no unit is held.
        training: False lets `zoneout_eval` decide.

    Returns:
        y [T, B, H] (0 on padded steps), the final state, and what `backward` needs.
    """
    inputs = np.concatenate([state["window"], x]) if spec.kernel_width > 1 else x
    saved = pool(spec, _convolution(spec, weights, inputs), state["c"], lengths, held, training)
    saved = replace(saved, inputs=inputs)
    final = {"c": saved.states[-1].copy()}
    if spec.kernel_width > 1:
        final["window"] = inputs[_final_window(spec, lengths)]
    return output(saved), final, saved


def pool(
    spec: ModelSpec,
    summed: np.ndarray,
    initial: np.ndarray,
    lengths: np.ndarray,
    held: np.ndarray | None = None,
    training: bool = False,
) -> Saved:
    """All states from the gate sums [T, B, G*H] (bias included) and the initial c [B, H]."""
    gates = _activated(spec, summed)
    slope_f, slope_i = _slopes(spec, held, training)
    keep = (1.0 - slope_f) + slope_f * gates["f"]
    admit = slope_i * gates["i"] if "i" in gates else 1.0 - keep
    valid = valid_steps(lengths, len(summed))
    keep, admit = np.where(valid, keep, 1.0), np.where(valid, admit, 0.0)

    entering = admit * gates["z"]
    states = np.empty((len(summed) + 1, *initial.shape))
    states[0] = initial
    for t in range(len(summed)):
        states[t + 1] = keep[t] * states[t] + entering[t]
    return Saved(summed, states, gates, keep, admit, slope_f, slope_i, lengths)


def output(saved: Saved) -> np.ndarray:
    """y [T, B, H], 0 on padded steps."""
    gates, states = saved.gates, saved.states[1:]
    pooled = gates["o"] * states if "o" in gates else states
    return np.where(valid_steps(saved.lengths, len(pooled)), pooled, 0.0)


def _final_window(spec: ModelSpec, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Index into `inputs` of the last K-1 inputs before each sequence's own end."""
    return lengths + np.arange(spec.kernel_width - 1)[:, None], np.arange(lengths.size)


def backward(
    spec: ModelSpec, weights: Arrays, saved: Saved, dy: np.ndarray, dstate: Arrays
) -> tuple[np.ndarray, Grads, Grads]:
    """Gradients of a loss whose gradient by y is `dy` and by the final state `dstate`.

    Returns:
        Gradients by x [T, B, C], by the initial state, and by the weights, named as given.
    """
    fused, carried = pool_backward(spec, saved, dy, dstate["c"])
    dinputs, grads = _convolution_backward(spec, weights, saved.inputs, fused)
    dinitial = {"c": carried}
    if spec.kernel_width > 1:
        dinputs[_final_window(spec, saved.lengths)] += dstate["window"]
        dinitial["window"] = dinputs[: spec.kernel_width - 1]
    return dinputs[spec.kernel_width - 1 :], dinitial, grads


def pool_backward(
    spec: ModelSpec, saved: Saved, dy: np.ndarray, dlast: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Gradients by all gate sums [T, B, G*H] and by the initial c, from those of y and last c."""
    gates, states = saved.gates, saved.states
    direct = dy * gates["o"] if "o" in gates else dy
    flow = np.empty_like(dy)  # gradient of the loss by c_t, direct and through later steps
    carried = dlast
    for t in range(len(dy) - 1, -1, -1):
        flow[t] = direct[t] + carried
        carried = flow[t] * saved.keep[t]

    z, f = gates["z"], gates["f"]
    by_keep = flow * states[:-1] if "i" in gates else flow * (states[:-1] - z)
    summed = {
        "z": flow * saved.admit * (1.0 - z * z),
        "f": by_keep * saved.slope_f * f * (1.0 - f),
    }
    if "o" in gates:
        summed["o"] = dy * states[1:] * gates["o"] * (1.0 - gates["o"])
    if "i" in gates:
        summed["i"] = flow * z * saved.slope_i * gates["i"] * (1.0 - gates["i"])
    valid = valid_steps(saved.lengths, len(dy))
    fused = np.concatenate([np.where(valid, summed[gate], 0.0) for gate in spec.gates], axis=-1)
    return fused, carried


def _convolution_backward(
    spec: ModelSpec, weights: Arrays, inputs: np.ndarray, fused: np.ndarray
) -> tuple[np.ndarray, Grads]:
    """Gradients by `inputs` and by the weights, from those by all gate sums [T, B, G*H]."""
    weight, _ = _fused(spec, weights)
    steps, batch, width = fused.shape
    flat = fused.reshape(steps * batch, width)
    dinputs, dweight = np.zeros_like(inputs), np.empty_like(weight)
    for tap in range(spec.kernel_width):
        dinputs[tap : tap + steps] += product(fused, weight[tap].T)
        dweight[tap] = inputs[tap : tap + steps].reshape(steps * batch, -1).T @ flat
    parts_w = np.split(dweight, len(spec.gates), axis=-1)
    parts_b = np.split(flat.sum(axis=0), len(spec.gates))
    grads = {f"{gate}.weight": part for gate, part in zip(spec.gates, parts_w, strict=True)}
    grads |= {f"{gate}.bias": part for gate, part in zip(spec.gates, parts_b, strict=True)}
    return dinputs, grads
