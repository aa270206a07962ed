"""What the parts of a QRNN layer are given when they are timed alone; free of every framework.

A part does the same amount of work as inside the layer, on inputs that are drawn like the
layer's own: its operands are the taps of x and the weights, its gate sums are x's numbers put
in another order. One layer in one direction, full sequences, states that start at zero.

"gemm", the layer's products and nothing else. Results: `y` [T, B, G*H] = taps @ weight; for kind
backward also `grad.x` [T, B, K*C] = sums' gradient @ weight^T and `grad.weight` [K*C, G*H] =
taps^T @ sums' gradient.

"pooling", everything between gate sums and output: activations, recurrence, output gate. Results:
`y` [T, B, H] and `state.c` [B, H]; for kind backward also `grad.x` [T, B, G*H] by the gate sums,
`grad.bias` [G*H] and `grad.c` [B, H] by the initial state.
"""

from __future__ import annotations

import numpy as np

from impls.contract import Arrays, ModelSpec

LAYER = "layers.0.fwd"
"""Where the parameters of the only layer are."""


def taps(spec: ModelSpec, x: np.ndarray) -> np.ndarray:
    """[T*B, K*C]: for every step and sequence its K inputs side by side, the oldest first."""
    steps, batch, features = x.shape
    before = np.zeros((spec.kernel_width - 1, batch, features), x.dtype)
    line = np.concatenate([before, x])
    out = np.stack([line[tap : tap + steps] for tap in range(spec.kernel_width)], axis=2)
    return out.reshape(steps * batch, -1)


def weight(spec: ModelSpec, params: Arrays) -> np.ndarray:
    """[K*C, G*H]: all gates' weights side by side, in the order of `spec.gates`."""
    gates = [params[f"{LAYER}.{gate}.weight"] for gate in spec.gates]
    return np.concatenate([gate.reshape(-1, spec.hidden_size) for gate in gates], axis=1)


def bias(spec: ModelSpec, params: Arrays) -> np.ndarray:
    """[G*H]: all gates' biases."""
    return np.concatenate([params[f"{LAYER}.{gate}.bias"] for gate in spec.gates])


def gate_sums(spec: ModelSpec, values: np.ndarray) -> np.ndarray:
    """[T, B, G*H] of the numbers in `values` [T, B, n], in an order that differs by gate.

    Of x it makes the gate sums that pooling is given, of dy the gradients of the sums that the
    products of the backward pass are given.
    """
    gate, unit = np.divmod(np.arange(len(spec.gates) * spec.hidden_size), spec.hidden_size)
    return np.ascontiguousarray(values[:, :, (unit + gate) % values.shape[2]])
