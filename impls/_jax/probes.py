"""The machine's ceilings as JAX reaches them: matrix rate, copy bandwidth, dispatch, exp rate."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from impls._jax.arrays import device_of, dtype_of, numbers_of, state_dtype, to_device
from impls._jax.ops import matmul
from impls.contract import Placement, SpecError

NAMES = ("gemm", "copy", "dispatch", "exp")
CHAIN = 32
"""Exponentials per element on CUDA, where reading and writing one would hide its exponential."""


class ProbeRun:
    """One executable that writes its result into the memory of the one before."""

    def __init__(self, function: Callable[..., jax.Array], *args: jax.Array) -> None:
        """The last of `args` is the output, donated in every call."""
        last = len(args) - 1
        jitted = jax.jit(function, donate_argnums=last, keep_unused=True)
        self._call = jitted.lower(*args).compile()
        *self._inputs, self._out = args

    def __call__(self) -> None:
        self._out = self._call(*self._inputs, self._out)

    def wait(self) -> None:
        self._out.block_until_ready()

    def result(self) -> dict[str, np.ndarray]:
        return {"y": np.array(self._out, dtype=state_dtype(self._out.dtype))}


def probe(name: str, placement: Placement, size: int) -> ProbeRun:
    """A run that measures one ceiling, on random data, into an output that exists already.

    Args:
        name: "gemm" (n x n x n product in the placement's dtype, n = size; 2 n^3 FLOP), "copy"
            (size bytes read and as many written), "dispatch" (the smallest call there is; size
            is not read) or "exp" (size exponentials, float32).

    Raises:
        SpecError: another name.
    """
    if name not in NAMES:
        raise SpecError(f"probe {name!r}: allowed are {', '.join(map(repr, NAMES))}")
    draw = np.random.default_rng(0).standard_normal
    device, dtype = device_of(placement), dtype_of(placement)
    float32 = np.dtype(np.float32)
    with numbers_of(placement):
        if name == "gemm":
            a, b = (to_device(draw((size, size)), dtype, device) for _ in range(2))
            out = jnp.zeros((size, size), dtype, device=device)

            def product(a: jax.Array, b: jax.Array, out: jax.Array) -> jax.Array:
                return matmul(a, b, ((1,), (0,))).astype(out.dtype)

            return ProbeRun(product, a, b, out)
        if name == "dispatch":
            return ProbeRun(lambda out: out + 1, jnp.zeros((), float32, device=device))
        if name == "exp" and placement.device == "cuda":
            size = max(1, size // CHAIN)
        elements = size if name == "exp" else max(1, size // float32.itemsize)
        source = to_device(draw(elements), float32, device)
        out = jnp.zeros(elements, float32, device=device)
        function = _exponentials(placement) if name == "exp" else jnp.copy
        return ProbeRun(lambda source, out: function(source), source, out)


def _exponentials(placement: Placement) -> Callable[[jax.Array], jax.Array]:
    """One exponential per element, or on CUDA a chain of them that XLA makes one kernel of."""

    def chain(x: jax.Array) -> jax.Array:
        for _ in range(CHAIN):
            x = jnp.exp(-x)
        return x

    return chain if placement.device == "cuda" else jnp.exp
