"""What the machine reaches without any framework: NumPy's product, copy, call and exp as Runs.

The same four probes as `impls._torch.probes` and `impls._jax.probes`, for machines that have
neither.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from impls.contract import Placement


class NumpyRun:
    """A call without arguments as a Run; NumPy works at once, so there is nothing to wait for."""

    def __init__(self, work: Callable[[], object], out: np.ndarray) -> None:
        self._work, self._out = work, out

    def __call__(self) -> None:
        """Do it once more."""
        self._work()

    def wait(self) -> None:
        """Nothing is pending."""

    def result(self) -> dict[str, np.ndarray]:
        """The output of the last call."""
        return {"y": self._out}


def probe(name: str, placement: Placement, size: int) -> NumpyRun:
    """One ceiling of the machine as a Run.

    Args:
        name: "gemm" (size n: an n x n x n product, 2 n^3 FLOP), "copy" (size bytes), "dispatch"
            (the smallest call, size ignored) or "exp" (size float32 elements).

    Raises:
        NotImplementedError: bfloat16 or a device that NumPy does not have.
        ValueError: an unknown name.
    """
    if placement.device != "cpu" or placement.dtype == "bfloat16":
        raise NotImplementedError(
            f"NumPy has no {placement.dtype} on {placement.device}; "
            "give float32 or float64 on the cpu"
        )
    rng = np.random.default_rng(0)
    if name == "gemm":
        left, right = (rng.standard_normal((size, size)).astype(placement.dtype) for _ in range(2))
        out = np.empty_like(left)
        return NumpyRun(lambda: np.matmul(left, right, out=out), out)
    if name == "copy":
        source = rng.integers(0, 255, size, dtype=np.uint8)
        out = np.empty_like(source)
        return NumpyRun(lambda: np.copyto(out, source), out)
    if name == "dispatch":
        one = np.ones(1, dtype=placement.dtype)
        out = np.empty_like(one)
        return NumpyRun(lambda: np.add(one, one, out=out), out)
    if name == "exp":
        source = rng.standard_normal(size).astype(np.float32)
        out = np.empty_like(source)
        return NumpyRun(lambda: np.exp(source, out=out), out)
    raise ValueError(f"probe {name!r}: allowed are 'gemm', 'copy', 'dispatch', 'exp'")
