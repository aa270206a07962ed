"""The CUDA pooling kernels as data: source, instantiations, launch geometry, offline compilation.

Nothing here needs a device, CuPy or a framework. The kernels themselves are in `pool.cuh`.
"""

from __future__ import annotations

import ctypes
import importlib.util
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

POOLINGS = ("f", "fo", "ifo")
ZONES = ("none", "hold", "expect")
"""Zoneout inside a kernel: none, a random mask that holds units, or its expectation."""
C_TYPES = {"float32": "float", "bfloat16": "qb::bf16"}
FORWARD, BACKWARD = "pool_forward", "pool_backward"
SHARED = "pool.h"
PARTS = ("pool.cuh", "pool_forward.cuh", "pool_backward.cuh")
STEPS_PER_BLOCK = 8
"""Steps that one call of the random generator serves."""
OPTIONS = ("--std=c++17",)


class NvrtcError(RuntimeError):
    """NVRTC is not installed or refuses the source; the message holds its log."""


@cache
def source() -> str:
    """The CUDA source, complete: it includes nothing."""
    here = Path(__file__).parent
    parts = [(here / name).read_text(encoding="utf-8") for name in PARTS]
    shared = (here / SHARED).read_text(encoding="utf-8")
    return "\n".join(parts).replace(f'#include "{SHARED}"', shared)


@dataclass(frozen=True)
class Kernel:
    """One instantiation of the templates, forward or backward.

    Attributes:
        which: FORWARD or BACKWARD.
        dtype: "float32" or "bfloat16", of gates and outputs.
        zone: one of ZONES.
        keeps_state: zoneout_mode "keep"; matters for ifo-pooling alone.
        packed: channels per lane, 1 or 2 (2 for bfloat16 alone).
        lanes: lanes side by side along the channels; 32, 16 or 8.
        segments: parts into which a tile of time is cut, one per `lanes` threads.
        steps: steps of one segment, held in registers; 4 or 8.
    """

    which: str
    dtype: str
    pooling: str
    zone: str
    keeps_state: bool
    packed: int
    lanes: int
    segments: int
    steps: int

    @property
    def expression(self) -> str:
        """The name expression that NVRTC instantiates."""
        numbers = (
            POOLINGS.index(self.pooling),
            ZONES.index(self.zone),
            str(self.keeps_state).lower(),
            self.packed,
            self.lanes,
            self.segments,
            self.steps,
        )
        return f"qb::{self.which}<{C_TYPES[self.dtype]}, {', '.join(map(str, numbers))}>"

    @property
    def tile(self) -> int:
        """Steps between two checkpoints of the state; equal in forward and backward."""
        return self.segments * self.steps

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return self.lanes * self.segments

    @property
    def shared_bytes(self) -> int:
        """Dynamic shared memory of a block, in bytes."""
        gates = 2 + POOLINGS.index(self.pooling)
        floats = 4 if self.which == FORWARD else 8 + gates
        return 4 * floats * self.segments * self.lanes * self.packed

    def blocks(self, batch: int, hidden: int) -> int:
        """Blocks of the one-dimensional grid."""
        return batch * -(-hidden // (self.lanes * self.packed))

    def tiles(self, steps: int) -> int:
        """Checkpoints per sequence of `steps` steps, wherever its mask begins."""
        ahead = STEPS_PER_BLOCK - 1 if self.zone == "hold" else 0
        return -(-(steps + ahead) // self.tile)


def choose(
    which: str,
    dtype: str,
    pooling: str,
    zone: str,
    keeps_state: bool,
    batch: int,
    steps: int,
    hidden: int,
    multiprocessors: int,
    pairs: bool,
) -> Kernel:
    """The instantiation for one call; forward and backward of equal sizes get equal tiles.

    Wide blocks read whole 128-byte lines; where they would leave multiprocessors idle, narrower
    ones split the channels further and walk over longer tiles.

    Args:
        multiprocessors: of the device.
        pairs: whether two neighbouring bfloat16 channels may be read as one word.
    """
    # One instantiation where the mode makes no difference.
    keeps_state = keeps_state or pooling != "ifo" or zone == "none"
    kind = (which, dtype, pooling, zone, keeps_state)
    lanes, segments = _geometry(batch, steps, hidden, multiprocessors)
    many = batch * -(-hidden // 64) >= multiprocessors
    if dtype == "bfloat16" and pairs and many and (lanes, segments) == (32, 4):
        # Two channels of eight steps would not fit the registers of the backward pass.
        length = 8 if which == FORWARD else 4
        return Kernel(*kind, 2, lanes, segments * 8 // length, length)
    return Kernel(*kind, 1, lanes, segments, 8)


def _geometry(batch: int, steps: int, hidden: int, multiprocessors: int) -> tuple[int, int]:
    """(lanes, segments): many small blocks where there is work for all, else longer tiles.

    It must not depend on anything that differs between the two passes (the gradient's strides
    decide on pairs): the backward pass reads the forward pass's checkpoints.
    """
    blocks = batch * -(-hidden // 32)
    if blocks >= 4 * multiprocessors or steps <= 32:
        return 32, 4
    if blocks >= multiprocessors or steps <= 64:
        return 32, 8
    if 2 * blocks >= multiprocessors or steps <= 128:
        return 16, 16
    return 8, 32


@dataclass(frozen=True)
class Compiled:
    """What NVRTC made of some kernels.

    Attributes:
        cubin: the binary for one architecture.
        registers: by name expression.
        spilled: bytes of spill stores and loads, by name expression.
    """

    cubin: bytes
    registers: dict[str, int]
    spilled: dict[str, int]


def nvrtc_library() -> Path | None:
    """The NVRTC library of the wheel `nvidia-cuda-nvrtc`, or None where it is not installed."""
    spec = importlib.util.find_spec("nvidia")
    for folder in [] if spec is None else spec.submodule_search_locations or []:
        for path in sorted(Path(folder).glob("*/lib/libnvrtc.so.*"), reverse=True):
            if re.fullmatch(r"libnvrtc\.so\.\d+", path.name):
                return path
    return None


def compile_kernels(expressions: Sequence[str], architecture: str, code: str = "") -> Compiled:
    """Compile without a device.

    Args:
        expressions: `Kernel.expression` of what to instantiate.
        architecture: e.g. "sm_90".
        code: another source than `source()`.

    Raises:
        NvrtcError: no library, or an error in the source.
    """
    path = nvrtc_library()
    if path is None:
        raise NvrtcError("NVRTC is not installed: pip install nvidia-cuda-nvrtc")
    # NVRTC looks for this companion by its bare name, which finds it only where it is loaded.
    for companion in path.parent.glob("libnvrtc-builtins.so.*"):
        ctypes.CDLL(str(companion))
    library = ctypes.CDLL(str(path))
    library.nvrtcGetErrorString.restype = ctypes.c_char_p
    program = ctypes.c_void_p()
    _call(library, "CreateProgram", ctypes.byref(program), (code or source()).encode(), b"pool.cu",
          0, None, None)  # fmt: skip
    try:
        for name in expressions:
            _call(library, "AddNameExpression", program, name.encode())
        options = (*OPTIONS, f"--gpu-architecture={architecture}", "--ptxas-options=-v")
        given = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
        status = library.nvrtcCompileProgram(program, len(options), given)
        log = _text(library, "ProgramLog", program).decode(errors="replace")
        if status:
            raise NvrtcError(f"NVRTC refuses the pooling kernels for {architecture}:\n{log}")
        lowered = {}
        for name in expressions:
            symbol = ctypes.c_char_p()
            _call(library, "GetLoweredName", program, name.encode(), ctypes.byref(symbol))
            lowered[(symbol.value or b"").decode()] = name
        return Compiled(_text(library, "CUBIN", program), *_resources(log, lowered))
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))


def _call(library: ctypes.CDLL, name: str, *args: object) -> None:
    status = getattr(library, f"nvrtc{name}")(*args)
    if status:
        raise NvrtcError(f"nvrtc{name}: {library.nvrtcGetErrorString(status).decode()}")


def _text(library: ctypes.CDLL, what: str, program: ctypes.c_void_p) -> bytes:
    size = ctypes.c_size_t()
    _call(library, f"Get{what}Size", program, ctypes.byref(size))
    buffer = ctypes.create_string_buffer(size.value)
    _call(library, f"Get{what}", program, buffer)
    return buffer.raw.rstrip(b"\0") if what == "ProgramLog" else buffer.raw


def _resources(log: str, lowered: dict[str, str]) -> tuple[dict[str, int], dict[str, int]]:
    """Registers and spilled bytes by name expression, from the assembler's report."""
    registers, spilled = {}, {}
    for part in log.split("Compiling entry function '")[1:]:
        name = lowered[part.split("'", 1)[0]]
        used = re.search(r"Used (\d+) registers", part)
        spills = re.findall(r"(\d+) bytes spill", part)
        if used is None or not spills:
            raise NvrtcError(f"the assembler says nothing on the registers of {name}:\n{part}")
        registers[name], spilled[name] = int(used[1]), sum(map(int, spills))
    return registers, spilled
