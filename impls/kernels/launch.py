"""What every launch of the CUDA kernels needs, whichever framework owns the memory.

CuPy is imported on first use, never with this module.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from impls.kernels import cuda

if TYPE_CHECKING:
    import cupy


@dataclass(frozen=True)
class Call:
    """What a pooling computes, besides its arrays; hashable, so it may be static in a trace.

    Attributes:
        zone: one of `cuda.ZONES`; "hold" needs seed, rows and t0.
        keeps_state: zoneout_mode "keep".
        zoneout: the probability p.
        reverse: process each sequence's valid steps from last to first.
        decoder: the layer is a decoder's, whose zoneout mask is another.
    """

    pooling: str
    zone: str
    keeps_state: bool
    zoneout: float
    layer: int
    reverse: bool
    decoder: bool = False

    @property
    def stream(self) -> int:
        """Stream number of the zoneout mask, as `impls.contract.STREAMS` has it."""
        return int(self.reverse) + 2 * int(self.decoder)


def shared_arguments(
    call: Call,
    pointers: Sequence[int],
    steps: int,
    hidden: int,
    tiles: int,
    pre_step: int,
    pre_batch: int,
) -> list[Any]:
    """The arguments with which both kernels end: struct Common of pool.cuh.

    CuPy passes a plain int as 8 bytes: pointers and strides. Everything else says its size.

    Args:
        pointers: of bias, lengths, seed, rows and t0; 0 where there is none.
        tiles: checkpoints per sequence.
        pre_step, pre_batch: elements of `pre` from one step, one sequence to the next.
    """
    return [
        *pointers,
        *(np.int32(value) for value in (steps, hidden, tiles)),
        pre_step,
        pre_batch,
        np.uint32(round(call.zoneout * 65536)),
        np.float32(1 - call.zoneout),
        *(np.int32(value) for value in (call.layer, call.stream, call.reverse)),
    ]


def compiled(kernel: cuda.Kernel) -> cupy.RawKernel:
    """The kernel, compiled and loaded for CuPy's current device; not while a graph is captured."""
    import cupy

    names = (kernel.expression,)
    module = cupy.RawModule(code=cuda.source(), options=cuda.OPTIONS, name_expressions=names)
    return module.get_function(kernel.expression)


def uncompiled(kernel: cuda.Kernel) -> RuntimeError:
    """What a launcher raises where the kernel would have to be compiled during a capture."""
    return RuntimeError(
        f"{kernel.expression} is not compiled yet and a CUDA graph is being captured: "
        "make the same call once before the capture"
    )
