"""Launches inside XLA's programs: addresses of XLA's buffers, CuPy on XLA's own stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax

from impls.kernels import cuda
from impls.kernels.launch import compiled, uncompiled

if TYPE_CHECKING:
    import cupy

H100 = 132
"""Multiprocessors to plan for where there is no device."""


class Stream:
    """A raw stream in the words of the CUDA stream protocol, which CuPy takes."""

    def __init__(self, address: int) -> None:
        self._address = address

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self._address


def address(buffer: Any) -> int:
    """Device address of a `jax.experimental.buffer_callback.Buffer`."""
    found: int = buffer.__cuda_array_interface__["data"][0]
    return found


def multiprocessors() -> int:
    """Multiprocessors of JAX's first CUDA device."""
    device = _first_device()
    return H100 if device is None else getattr(device, "core_count", None) or H100


def prepare(kernel: cuda.Kernel) -> None:
    """Compile and load for JAX's first CUDA device, if there is one.

    While a program is traced, because its first run may be a capture, where this is forbidden.
    """
    device = _first_device()
    if device is not None:
        _function(kernel, device.local_hardware_id or 0, capturing=False)


def launch(kernel: cuda.Kernel, blocks: int, args: Sequence[Any], place: tuple[Any, Any]) -> None:
    """Enqueue on the stream that XLA gives this call.

    Args:
        place: the call's ExecutionContext, and any buffer of it.
    """
    import cupy

    context, buffer = place
    ordinal = buffer.__dlpack_device__()[1]
    with cupy.cuda.Device(ordinal), cupy.cuda.Stream.from_external(Stream(context.stream)) as own:
        function = _function(kernel, ordinal, own.is_capturing())
        function((blocks,), (kernel.threads,), tuple(args), shared_mem=kernel.shared_bytes)


_functions: dict[tuple[cuda.Kernel, int], cupy.RawKernel] = {}


def _function(kernel: cuda.Kernel, ordinal: int, capturing: bool) -> cupy.RawKernel:
    """The compiled kernel of one device."""
    import cupy

    found = _functions.get((kernel, ordinal))
    if found is None:
        if capturing:
            raise uncompiled(kernel)
        with cupy.cuda.Device(ordinal):
            found = _functions[kernel, ordinal] = compiled(kernel)
    return found


def _first_device() -> Any:
    try:
        return jax.local_devices(backend="cuda")[0]
    except RuntimeError:  # lowering for CUDA on another machine, or the tests' CPU
        return None
