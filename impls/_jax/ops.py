"""The pieces of a QRNN layer around its recurrence: taps, gates, padding, reversal.

Definitions: arXiv 1611.01576v2, section 2. Shapes: T steps, B sequences, C input features, H
hidden units, K kernel width. "Processing order" is natural time, or for the reverse direction
the sequence's valid steps from last to first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from impls._jax.arrays import state_dtype
from impls.contract import ModelSpec

Axes = tuple[tuple[int, ...], tuple[int, ...]]


def valid_steps(lengths: jax.Array, steps: int) -> jax.Array:
    """bool [T, B, 1]: True on the steps before each sequence's end."""
    return (jnp.arange(steps, dtype=lengths.dtype)[:, None] < lengths)[..., None]


def where_valid(valid: jax.Array | None, value: jax.Array, otherwise: float = 0.0) -> jax.Array:
    """`value` [T, B, ...] with padded steps replaced; selected, so NaN there leaks nowhere."""
    return value if valid is None else jnp.where(valid, value, otherwise)


@jax.custom_vjp  # type: ignore[untyped-decorator]
def _reverse_within(x: jax.Array, lengths: jax.Array) -> jax.Array:
    time = jnp.arange(x.shape[0], dtype=lengths.dtype)[:, None]
    source = jnp.where(time < lengths, lengths - 1 - time, time)
    return jnp.take_along_axis(x, source[..., None], axis=0)


def _reverse_forward(x: jax.Array, lengths: jax.Array) -> tuple[jax.Array, jax.Array]:
    return _reverse_within(x, lengths), lengths


def _reverse_backward(lengths: jax.Array, dy: jax.Array) -> tuple[jax.Array, None]:
    # Its own inverse, so its own transpose: a gather again, where autodiff would scatter.
    return _reverse_within(dy, lengths), None


_reverse_within.defvjp(_reverse_forward, _reverse_backward)


def reverse_valid(x: jax.Array, lengths: jax.Array | None) -> jax.Array:
    """[T, B, C] with each sequence's valid steps reversed, padding left in place; own inverse."""
    return jnp.flip(x, axis=0) if lengths is None else _reverse_within(x, lengths)


def window_of(x: jax.Array, window: jax.Array | None) -> jax.Array:
    """The inputs that the taps see, [W+T, B, C]: the carried window of W inputs, then x."""
    return x if window is None else jnp.concatenate([window, x])


def unfold(line: jax.Array, kernel_width: int, dilation: int = 1) -> jax.Array:
    """[T, B, K*C] from `window_of`: for every step its K inputs side by side, oldest first.

    The inputs of one step lie `dilation` steps apart.
    """
    if kernel_width == 1:
        return line
    starts = range(0, kernel_width * dilation, dilation)
    steps = line.shape[0] - starts[-1]
    return jnp.concatenate([line[start : start + steps] for start in starts], axis=2)


def _fold(dtaps: jax.Array, kernel_width: int) -> jax.Array:
    """Transpose of `unfold`: [K-1+T, B, C], the gradients of one input added up."""
    if kernel_width == 1:
        return dtaps
    return sum(
        jnp.pad(part, ((tap, kernel_width - 1 - tap), (0, 0), (0, 0)))
        for tap, part in enumerate(jnp.split(dtaps, kernel_width, axis=2))
    )


def final_window(
    line: jax.Array, kernel_width: int, lengths: jax.Array | None, dilation: int = 1
) -> jax.Array:
    """[(K-1) * dilation, B, C]: the last inputs before each sequence's own end (K > 1)."""
    size = (kernel_width - 1) * dilation
    if lengths is None:
        return line[line.shape[0] - size :]
    source = lengths + jnp.arange(size, dtype=lengths.dtype)[:, None]
    return jnp.take_along_axis(line, source[..., None], axis=0)


def matmul(a: jax.Array, b: jax.Array, over: Axes) -> jax.Array:
    """Sum of products over the axes `over` of a and of b, in float32 or float64.

    Without HIGHEST a GPU would multiply float32 as TF32; bfloat16 factors are exact either way.
    """
    exact = None if a.dtype == jnp.bfloat16 else lax.Precision.HIGHEST
    return lax.dot_general(
        a, b, (over, ((), ())), precision=exact, preferred_element_type=state_dtype(a.dtype)
    )


@jax.custom_vjp  # type: ignore[untyped-decorator]
def convolve(line: jax.Array, weights: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
    """The masked convolution along time (paper 2): one [T, B, H] per weight, without the bias.

    One matrix product over the K*C window for each weight: they are used as they lie in memory,
    where joining them would cost a copy in every call.

    Args:
        line: [K-1+T, B, C] of `window_of`.
        weights: each [K, C, H], the last tap for the current step.
    """
    taps = unfold(line, weights[0].shape[0])
    return tuple(matmul(taps, w.reshape(-1, w.shape[2]), ((2,), (0,))) for w in weights)


def _convolve_forward(line: jax.Array, weights: tuple[jax.Array, ...]) -> tuple[Any, Any]:
    return convolve(line, weights), (line, weights)


def _convolve_backward(saved: tuple[Any, Any], dsums: tuple[jax.Array, ...]) -> tuple[Any, Any]:
    # By hand, so that bfloat16 gradients are rounded once and added up in float32.
    line, weights = saved
    taps = unfold(line, weights[0].shape[0])
    pairs = [(d.astype(line.dtype), w) for d, w in zip(dsums, weights, strict=True)]
    dweights = tuple(
        matmul(taps, d, ((0, 1), (0, 1))).reshape(w.shape).astype(w.dtype) for d, w in pairs
    )
    dtaps = sum(matmul(d, w.reshape(-1, w.shape[2]), ((2,), (1,))) for d, w in pairs)
    return _fold(dtaps, weights[0].shape[0]).astype(line.dtype), dweights


convolve.defvjp(_convolve_forward, _convolve_backward)


def pre_activations(
    spec: ModelSpec, params: Mapping[str, jax.Array], line: jax.Array
) -> tuple[jax.Array, ...]:
    """Convolution plus bias, [T, B, H] for each gate in the spec's order, float32 at least."""
    sums = convolve(line, tuple(params[f"{gate}.weight"] for gate in spec.gates))
    return tuple(
        total + params[f"{gate}.bias"] for gate, total in zip(spec.gates, sums, strict=True)
    )


def gate_terms(
    spec: ModelSpec,
    pre: tuple[jax.Array, ...],
    held: jax.Array | None,
    valid: jax.Array | None,
    training: bool,
) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    """Activated gates with zoneout and padding applied, for all steps at once (paper 2, 2.1).

    Args:
        pre: [T, B, H] per gate, processing order.
        held: bool [T, B, H], the zoneout mask; None where no unit is held.
        valid: bool [T, B, 1], or None where every step is valid.
        training: False lets `zoneout_eval` decide.

    Returns:
        f and the input term [T, B, H] of c_t = f_t * c_{t-1} + term_t, and o [T, B, H], or None
        for f-pooling. Padded steps have f = 1 and term 0.
    """
    z, f = jnp.tanh(pre[0]), jax.nn.sigmoid(pre[1])
    o = jax.nn.sigmoid(pre[2]) if len(pre) > 2 else None
    i = jax.nn.sigmoid(pre[3]) if spec.pooling == "ifo" else None
    if held is not None:
        f = jnp.where(held, 1.0, f)
        if i is not None and spec.zoneout_mode == "keep":
            i = jnp.where(held, 0.0, i)
    elif not training and spec.zoneout_eval == "expectation":
        f = spec.zoneout + (1.0 - spec.zoneout) * f
        if i is not None and spec.zoneout_mode == "keep":
            i = (1.0 - spec.zoneout) * i
    term = (1.0 - f if i is None else i) * z
    return where_valid(valid, f, 1.0), where_valid(valid, term), o


def gated_output(
    cells: jax.Array, o: jax.Array | None, valid: jax.Array | None, dtype: np.dtype
) -> jax.Array:
    """y [T, B, H] in the I/O dtype: o * c, or c for f-pooling; 0 on padded steps."""
    return where_valid(valid, (cells if o is None else o * cells).astype(dtype))
