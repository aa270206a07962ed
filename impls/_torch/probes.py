"""Runs that measure what this machine can do at most: products, copies, dispatch, exp."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from impls._torch.arrays import device_of, dtype_of, synchronize, to_numpy
from impls.contract import Placement, SpecError

NAMES = ("gemm", "copy", "dispatch", "exp")
CHAIN = 32
"""Exponentials per element on CUDA, where reading and writing one would hide its exponential."""
CHAIN_CODE = f"""
template <typename T> T exp_chain(T x) {{
  for (int i = 0; i != {CHAIN}; i += 1) x = __expf(-x);
  return x;
}}
"""


class ProbeRun:
    """One operation into a preallocated output, as a `Run`."""

    def __init__(self, call: Callable[[], object], output: Tensor) -> None:
        self._call, self._output = call, output

    def __call__(self) -> None:
        with torch.inference_mode():
            self._call()

    def wait(self) -> None:
        synchronize(self._output.device)

    def result(self) -> dict[str, np.ndarray]:
        return {"y": to_numpy(self._output)}


def probe(name: str, placement: Placement, size: int) -> ProbeRun:
    """A run for one of the machine's ceilings, on random data.

    Args:
        name: "gemm", a `size` x `size` x `size` product in the placement's dtype (2 size^3
            FLOP); "copy", `size` bytes from one buffer to another (2 size bytes of traffic);
            "dispatch", the smallest call of the framework; "exp", `size` exponentials in float32,
            as fast as the device has them.

    Raises:
        SpecError: an unknown name.
    """
    if name not in NAMES:
        raise SpecError(f"probe {name!r}: allowed are {', '.join(NAMES)}")
    device = device_of(placement)
    if name == "gemm":
        dtype = dtype_of(placement)
        left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        out = torch.empty_like(left)
        return ProbeRun(lambda: torch.mm(left, right, out=out), out)
    elements = {"copy": max(1, size // 4), "dispatch": 1, "exp": size}[name]
    source = torch.randn(elements, device=device)
    out = torch.empty_like(source)
    if name == "copy":
        return ProbeRun(lambda: out.copy_(source), out)
    if name == "exp" and device.type == "cuda":
        return _chained(source[: max(1, size // CHAIN)].clone())
    if name == "exp":
        return ProbeRun(lambda: torch.exp(source, out=out), out)
    return ProbeRun(lambda: torch.neg(source, out=out), out)


def _chained(source: Tensor) -> ProbeRun:
    """Many dependent exponentials per element in one kernel; torch.exp where it cannot be built."""
    try:
        chain = torch.cuda.jiterator._create_jit_fn(CHAIN_CODE)
        out = chain(source)
    except Exception:  # a beta feature: without it memory is measured, and the floor is too high
        out = torch.empty_like(source)
        return ProbeRun(lambda: [torch.exp(source, out=out) for _ in range(CHAIN)], out)
    return ProbeRun(lambda: chain(source), out)
