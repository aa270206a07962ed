"""Between NumPy arrays and JAX arrays: devices, number formats, transfers, outside the clock."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from impls.contract import Placement


def device_of(placement: Placement) -> jax.Device:
    """The JAX device of a placement.

    Raises:
        RuntimeError: this installation of JAX sees no such device.
    """
    try:
        return jax.devices(placement.device)[0]
    except RuntimeError as error:
        raise RuntimeError(
            f"device {placement.device!r} was asked for, but jax {jax.__version__} sees only "
            f"{jax.default_backend()!r}: install jax[cuda13] on a machine with a GPU, or use "
            "device 'cpu'"
        ) from error


def dtype_of(placement: Placement) -> np.dtype:
    """Number format of inputs, weights and outputs."""
    return jnp.dtype(placement.dtype)


def state_dtype(dtype: np.dtype) -> np.dtype:
    """Number format of sums, states and biases: float32, or float64 for float64."""
    return jnp.promote_types(dtype, jnp.float32)


def format_of(placement: Placement, name: str) -> np.dtype:
    """Weights and windows in the I/O format, biases and carried states wide."""
    dtype = dtype_of(placement)
    return dtype if name.endswith(("weight", "recurrent", "window")) else state_dtype(dtype)


def numbers_of(placement: Placement) -> AbstractContextManager[Any]:
    """A context in which JAX traces and moves the placement's numbers.

    JAX knows float64 only where it is switched on; the switch is this thread's and ends with the
    context. A compiled executable runs outside it.
    """
    context: AbstractContextManager[Any] = jax.enable_x64(placement.dtype == "float64")
    return context


def to_device(array: np.ndarray, dtype: np.dtype, device: jax.Device) -> jax.Array:
    """A copy of the array on the device; it never shares memory with the NumPy array."""
    # On a CPU device_put may keep the array that it is given, even with may_alias=False: astype
    # makes one of our own.
    return jax.device_put(np.asarray(array).astype(dtype, copy=True), device)


def to_numpy(array: jax.Array) -> np.ndarray:
    """float32 or float64 copy; bfloat16 is widened."""
    return np.array(array, dtype=state_dtype(array.dtype))
