"""One gated causal convolution in one direction: a QRNN layer without its recurrence.

y_t = sigmoid(a^o_t) * tanh(a^z_t) with a^g_t = b^g + sum_j W^g_j x_{t - (K-1-j) d}: the gated unit
of van den Oord et al., arXiv 1609.03499, equation 2, whose dilation d doubles from layer to layer
if the spec is `dilated`. All arrays are float64 in processing order, and padded steps of `x` and
`dy` hold zeros already.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from impls.contract import Arrays, ModelSpec
from impls.reference.ops import product, sigmoid, valid_steps

Grads = dict[str, np.ndarray]


@dataclass(frozen=True)
class Saved:
    """What the gradients need: `inputs` [(K-1)d+T, B, C] begins with the window; z, o [T, B, H]."""

    inputs: np.ndarray
    z: np.ndarray
    o: np.ndarray
    lengths: np.ndarray


def _taps(spec: ModelSpec, inputs: np.ndarray, steps: int) -> list[slice]:
    """Where in `inputs` each tap finds what it meets at the steps 0..T-1, the oldest tap first."""
    stride = (len(inputs) - steps) // max(1, spec.kernel_width - 1)
    return [slice(tap * stride, tap * stride + steps) for tap in range(spec.kernel_width)]


def _final_window(lengths: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Index into `inputs` of the last `size` inputs before each sequence's own end."""
    return lengths + np.arange(size)[:, None], np.arange(lengths.size)


def forward(
    spec: ModelSpec,
    weights: Arrays,
    x: np.ndarray,
    state: Arrays,
    lengths: np.ndarray,
    held: np.ndarray | None = None,
    training: bool = False,
) -> tuple[np.ndarray, Grads, Saved]:
    """Run the layer over x [T, B, C]; it has no zoneout, so the last two are not read.

    Args:
        weights: `z.weight`, `o.weight` [K, C, H] and `z.bias`, `o.bias` [H].
        state: `window` [(K-1)d, B, C] for K > 1; its length tells the dilation d.
        lengths: [B].

    Returns:
        y [T, B, H] (0 on padded steps), the final state, and what `backward` needs.
    """
    inputs = np.concatenate([state["window"], x]) if spec.kernel_width > 1 else x
    taps = _taps(spec, inputs, len(x))

    def summed(gate: str) -> np.ndarray:
        terms = zip(taps, weights[f"{gate}.weight"], strict=True)
        out: np.ndarray = weights[f"{gate}.bias"] + sum(product(inputs[at], w) for at, w in terms)
        return out

    saved = Saved(inputs, np.tanh(summed("z")), sigmoid(summed("o")), lengths)
    y = np.where(valid_steps(lengths, len(x)), saved.o * saved.z, 0.0)
    window = len(inputs) - len(x)
    return y, {"window": inputs[_final_window(lengths, window)]} if window else {}, saved


def backward(
    spec: ModelSpec, weights: Arrays, saved: Saved, dy: np.ndarray, dstate: Arrays
) -> tuple[np.ndarray, Grads, Grads]:
    """Gradients of a loss whose gradient by y is `dy` and by the final state `dstate`.

    Returns:
        Gradients by x [T, B, C], by the initial state, and by the weights, named as given.
    """
    steps, batch, _ = dy.shape
    z, o, inputs = saved.z, saved.o, saved.inputs
    summed = {"z": dy * o * (1.0 - z * z), "o": dy * z * o * (1.0 - o)}
    dinputs, grads = np.zeros_like(inputs), {}
    for gate, given in summed.items():
        weight, flat = weights[f"{gate}.weight"], given.reshape(steps * batch, -1)
        dweight = np.empty_like(weight)
        for tap, at in enumerate(_taps(spec, inputs, steps)):
            dinputs[at] += product(given, weight[tap].T)
            dweight[tap] = inputs[at].reshape(steps * batch, -1).T @ flat
        grads |= {f"{gate}.weight": dweight, f"{gate}.bias": flat.sum(axis=0)}
    window = len(inputs) - steps
    if not window:
        return dinputs, {}, grads
    dinputs[_final_window(saved.lengths, window)] += dstate["window"]
    return dinputs[window:], {"window": dinputs[:window]}, grads
