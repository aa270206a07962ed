"""What a Pallas pooling kernel is made for, and how it is laid over a device.

The geometry is reasoned, not measured. A program is one warp: it owns neighbouring channels of one
sequence and walks over its time, so programs share nothing and more of them never hurt. What limits
it is the number of bytes on their way: at 4.3 TB/s and about 0.8 us of latency a device of 132
multiprocessors wants 26 KB per multiprocessor. A program asks for a tile of 8 steps at once, which
are 8 * G rows of 128 bytes: 3 KB for fo-pooling, so 8 or 9 programs per multiprocessor fill the
memory, B*H = 36,000 channels in float32. With fewer programs a tile has 16 steps (twice the bytes
per program, twice the registers, which are idle then). Below 18,000 channels this design loses in
proportion; splitting time over the warps of a block, as the CUDA kernels of `impls/kernels` do,
needs shared memory, which Pallas' Triton backend does not offer.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from impls.contract import GATES
from impls.kernels.launch import Call
from impls.reference.philox import STEPS_PER_BLOCK

LANES = 32
MULTIPROCESSORS = 132
"""Of an H100 or H200; a trace does not know its device."""
ENOUGH_PROGRAMS = 8 * MULTIPROCESSORS
"""Programs that keep the memory busy with tiles of 8 steps."""

_interpreted: ContextVar[bool] = ContextVar("_interpreted", default=False)


@contextmanager
def interpreted() -> Iterator[None]:
    """Kernels traced inside are run by Pallas' interpreter, on any device: for tests alone."""
    token = _interpreted.set(True)
    try:
        yield
    finally:
        _interpreted.reset(token)


@dataclass(frozen=True)
class Plan:
    """One kernel: what it computes, on which shape, by which programs.

    Attributes:
        ragged: the sequences have lengths.
        block: channels of a program, a power of two.
        tile: steps whose loads are issued together, and between two checkpoints; 8 or 16.
        interpret: run by the interpreter instead of a GPU.
    """

    call: Call
    dtype: str
    steps: int
    batch: int
    hidden: int
    ragged: bool
    block: int
    tile: int
    interpret: bool

    @property
    def gates(self) -> int:
        """Number of gates, in the order z f o i."""
        return len(GATES[self.call.pooling])

    @property
    def grid(self) -> tuple[int, int]:
        """Programs: blocks of channels, innermost, by sequences."""
        return -(-self.hidden // self.block), self.batch

    @property
    def tiles(self) -> int:
        """Tiles of a sequence, wherever its mask begins: a tile starts with a generator block."""
        ahead = STEPS_PER_BLOCK - 1 if self.call.zone == "hold" else 0
        return -(-(self.steps + ahead) // self.tile)

    @property
    def whole_tiles(self) -> int:
        """Leading tiles known to lie inside every sequence, which need no test per step.

        They are code of their own: not worth compiling for one.
        """
        known = not self.ragged and self.call.zone != "hold"
        whole = self.steps // self.tile
        return whole if known and whole > 1 else 0

    @property
    def covered(self) -> bool:
        """Whether the last block of channels ends where the channels end."""
        return self.hidden % self.block == 0

    @property
    def threshold(self) -> np.uint32:
        """Zoneout holds a unit where its 16-bit number is below this."""
        return np.uint32(round(self.call.zoneout * 65536))


def choose(call: Call, dtype: np.dtype, steps: int, batch: int, hidden: int, ragged: bool) -> Plan:
    """The plan for one call; forward and backward of equal sizes get equal tiles."""
    pairs = dtype == jnp.bfloat16 and hidden % 2 == 0
    # Two bfloat16 channels per lane make a row of 128 bytes; one where that would idle the device.
    wide = 2 * LANES if pairs and batch * hidden >= 2 * LANES * ENOUGH_PROGRAMS else LANES
    programs = batch * -(-hidden // wide)
    tile = 16 if programs < ENOUGH_PROGRAMS and steps >= 32 else 8
    return Plan(
        call, jnp.dtype(dtype).name, steps, batch, hidden, ragged, wide, tile, _interpreted.get()
    )
