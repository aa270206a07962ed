"""What a layer's arguments must be, checked while JAX traces: compiled code reads raw memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from impls.kernels.native import POOLINGS

if TYPE_CHECKING:
    from impls.jax_native.layer import Given, How, Sequences

STATE_OF: dict[np.dtype, np.dtype] = {
    np.dtype("float32"): np.dtype("float32"),
    jnp.dtype("bfloat16"): np.dtype("float32"),
    np.dtype("float64"): np.dtype("float64"),
}
"""Of every I/O dtype, that of the state and the biases."""


def _expect(name: str, array: jax.Array | None, shape: tuple[int, ...], dtype: np.dtype) -> None:
    if array is None:
        raise ValueError(f"{name} is missing: give {dtype.name} {list(shape)}")
    if array.dtype != dtype:
        raise TypeError(f"{name} has dtype {array.dtype.name}: give {dtype.name}")
    if array.shape != shape:
        raise ValueError(f"{name} has shape {list(array.shape)}: give {list(shape)}")


def check(how: How, given: Given, rest: Sequences) -> None:
    """Nothing, where the arguments of a layer fit together; shapes and dtypes as in their classes.

    Raises:
        TypeError: a dtype that does not fit, or x of no floating dtype that the kernels know.
        ValueError: a shape that does not fit, a size below 1, or an argument that is missing.
    """
    x, gates = given.x, POOLINGS[how.pooling] + 2
    if x.dtype not in STATE_OF:
        raise TypeError(f"x has dtype {x.dtype.name}: allowed are float32, bfloat16, float64")
    if x.ndim != 3 or min(x.shape) < 1:
        raise ValueError(f"x has shape {list(x.shape)}: give [T, B, C], each at least 1")
    _, batch, features = x.shape
    if len(given.weights) != gates or len(given.biases) != gates:
        raise ValueError(
            f"there are {len(given.weights)} weights and {len(given.biases)} biases: "
            f"pooling {how.pooling!r} has {gates} gates, give one of each per gate"
        )
    first = given.weights[0].shape
    if len(first) != 3 or min(first) < 1:
        raise ValueError(
            f"the first weights have shape {list(first)}: give [K, {features}, H], each at least 1"
        )
    taps, _, hidden = first
    for gate, (weight, bias) in enumerate(zip(given.weights, given.biases, strict=True)):
        _expect(f"weights[{gate}]", weight, (taps, features, hidden), x.dtype)
        _expect(f"biases[{gate}]", bias, (hidden,), STATE_OF[x.dtype])
    _expect("c", given.c, (batch, hidden), STATE_OF[x.dtype])
    if taps > 1:
        _expect("window", given.window, (taps - 1, batch, features), x.dtype)
    elif given.window is not None:
        raise ValueError("a kernel of width 1 has no window: give None")
    _check_sequences(how, rest, batch)


def _check_sequences(how: How, rest: Sequences, batch: int) -> None:
    if rest.lengths is not None:
        _expect("lengths", rest.lengths, (batch,), np.dtype("int32"))
    if how.zone != "hold":
        if rest.mask is not None:
            raise ValueError(f"zone {how.zone!r} takes no mask: give None, or zone 'hold'")
        return
    if rest.mask is None:
        raise ValueError("zone 'hold' has no mask: give (seed [2], rows [B], t0 [2, B])")
    shapes = {"seed": (2,), "rows": (batch,), "t0": (2, batch)}
    for (name, shape), array in zip(shapes.items(), rest.mask, strict=True):
        _expect(f"mask {name}", array, shape, np.dtype("uint32"))
