"""Launches of the pooling kernels: checks, outputs, arguments, and CuPy on torch's own stream."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from impls.kernels import cuda
from impls.kernels.launch import Call, compiled, shared_arguments, uncompiled

if TYPE_CHECKING:
    import cupy

NAMES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}
GATES = {"f": 2, "fo": 3, "ifo": 4}


@dataclass(frozen=True)
class Sequences:
    """Per-sequence data on the device: lengths, rows and t0 [B] int64, seed [1] int64."""

    lengths: Tensor | None
    seed: Tensor | None
    rows: Tensor | None
    t0: Tensor | None


def check_call(call: Call, pre: Tensor, bias: Tensor, c0: Tensor, given: Sequences) -> None:
    """Everything that a kernel would otherwise read wrongly.

    Raises:
        TypeError: a dtype.
        ValueError: a shape, a stride, a device, a word, or a mask that is not complete.
    """
    if call.pooling not in GATES or call.zone not in cuda.ZONES:
        raise ValueError(
            f"pooling {call.pooling!r} with zoneout {call.zone!r}: allowed are "
            f"{', '.join(GATES)} with {', '.join(cuda.ZONES)}"
        )
    if pre.dtype not in NAMES:
        raise TypeError(f"pre is {pre.dtype}: give torch.float32 or torch.bfloat16")
    if pre.ndim != 3 or pre.shape[0] < 1 or c0.ndim != 2:
        raise ValueError(
            f"pre has shape {tuple(pre.shape)} and c0 {tuple(c0.shape)}: "
            "give [T, B, G*H] with T of at least 1, and [B, H]"
        )
    _, batch, width = pre.shape
    hidden = width // GATES[call.pooling]
    if pre.stride(2) != 1 and width > 1:
        raise ValueError(f"pre has strides {pre.stride()}: the channels must be adjacent")
    _check("c0", c0, torch.float32, (batch, hidden), pre.device)
    _check("bias", bias, torch.float32, (GATES[call.pooling] * hidden,), pre.device)
    if width != GATES[call.pooling] * hidden:
        raise ValueError(f"pre has {width} channels: give {GATES[call.pooling]} gates of H each")
    for name, size in (("lengths", batch), ("rows", batch), ("t0", batch), ("seed", 1)):
        tensor = getattr(given, name)
        if tensor is not None:
            _check(name, tensor, torch.int64, (size,), pre.device)
        elif call.zone == "hold" and name != "lengths":
            raise ValueError(f"zoneout 'hold' needs {name}: give int64 [{size}]")


def _check(
    name: str, tensor: Tensor, dtype: torch.dtype, shape: tuple[int, ...], device: torch.device
) -> None:
    if tensor.dtype != dtype:
        raise TypeError(f"{name} is {tensor.dtype}: give {dtype}")
    if tuple(tensor.shape) != shape:
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}: give {shape}")
    if tensor.device != device:
        raise ValueError(f"{name} is on {tensor.device}, pre on {device}: bring them together")
    if not tensor.is_contiguous():
        raise ValueError(f"{name} has strides {tensor.stride()}: give it contiguous")


def forward(
    call: Call, pre: Tensor, bias: Tensor, c0: Tensor, given: Sequences, record: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Pooling of pre [T, B, G*H]: y [T, B, H], the final c [B, H] float32, and checkpoints.

    The checkpoints [B, tiles, H] are for `backward`; there are none (tiles = 0) without `record`.

    Raises:
        TypeError, ValueError: as `check_call`.
        RuntimeError: a graph is being captured and this kernel has not been compiled yet.
    """
    check_call(call, pre, bias, c0, given)
    steps, batch, _ = pre.shape
    hidden = c0.shape[1]
    y = pre.new_empty(steps, batch, hidden)
    c = torch.empty_like(c0)
    kernel = _kernel(cuda.FORWARD, call, pre, hidden, _pairs(pre, hidden))
    checkpoints = c0.new_empty(batch, kernel.tiles(steps) if record else 0, hidden)
    if y.numel():
        own = (pre, c0, y, c, checkpoints, y.stride(0), y.stride(1))
        _run(kernel, own, call, pre, bias, hidden, given)
    return y, c, checkpoints


def backward(
    call: Call,
    pre: Tensor,
    bias: Tensor,
    checkpoints: Tensor,
    dy: Tensor,
    dc: Tensor,
    given: Sequences,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients by pre [T, B, G*H] (its dtype), by bias [G*H] and by c0 [B, H], float32.

    Args:
        checkpoints: of `forward` with `record`.
        dy: [T, B, H] of any strides, expanded ones included.
        dc: [B, H] float32.

    Raises:
        TypeError, ValueError: as `check_call`.
        RuntimeError: a graph is being captured and this kernel has not been compiled yet.
    """
    check_call(call, pre, bias, dc, given)
    steps, batch, _ = pre.shape
    hidden = dc.shape[1]
    if dy.dtype != pre.dtype:
        raise TypeError(f"dy is {dy.dtype}: give {pre.dtype}, like the output")
    if tuple(dy.shape) != (steps, batch, hidden) or dy.device != pre.device:
        raise ValueError(
            f"dy is {tuple(dy.shape)} on {dy.device}: give {(steps, batch, hidden)} on {pre.device}"
        )
    pairs = _pairs(pre, hidden) and _pairs(dy, hidden)
    kernel = _kernel(cuda.BACKWARD, call, pre, hidden, pairs)
    _check("checkpoints", checkpoints, torch.float32, (batch, kernel.tiles(steps), hidden),
           pre.device)  # fmt: skip
    # Empty and not `empty_like`: overlapping or expanded strides of pre are no place to write.
    dpre = torch.empty(pre.shape, dtype=pre.dtype, device=pre.device)
    dc0 = torch.empty_like(dc)
    dbias = dc.new_empty(batch, bias.shape[0])
    if dy.numel():
        source = pre if pre.stride() == dpre.stride() else pre.contiguous()
        own = (source, checkpoints, dy, dc, dpre, dc0, dbias, *dy.stride())
        _run(kernel, own, call, source, bias, hidden, given)
    return dpre, dbias.sum(0), dc0


def checkpoint_count(call: Call, pre: Tensor, hidden: int) -> int:
    """Checkpoints per sequence that `forward` keeps; whether channels go in pairs is no matter."""
    return _kernel(cuda.FORWARD, call, pre, hidden, False).tiles(pre.shape[0])


def _pairs(tensor: Tensor, hidden: int) -> bool:
    """Whether two neighbouring channels of a bfloat16 tensor are one aligned 4-byte word."""
    if tensor.dtype != torch.bfloat16 or hidden % 2 or tensor.stride(2) != 1:
        return False
    even = tensor.stride(0) % 2 == 0 and tensor.stride(1) % 2 == 0
    return bool(even and tensor.data_ptr() % 4 == 0)


def _kernel(
    which: str, call: Call, pre: Tensor, hidden: int,
    pairs: bool,
) -> cuda.Kernel:  # fmt: skip
    steps, batch, _ = pre.shape
    return cuda.choose(which, NAMES[pre.dtype], call.pooling, call.zone, call.keeps_state, batch,
                       steps, hidden, multiprocessors(pre.device), pairs)  # fmt: skip


@cache
def multiprocessors(device: torch.device) -> int:
    """Multiprocessors of a CUDA device; of an H100 where the device is none (shapes alone)."""
    if device.type != "cuda":
        return 132
    count: int = torch.cuda.get_device_properties(device).multi_processor_count
    return count


def _run(
    kernel: cuda.Kernel,
    own: Sequence[Tensor | int],
    call: Call,
    pre: Tensor,
    bias: Tensor,
    hidden: int,
    given: Sequences,
) -> None:
    """Append the arguments that both kernels share and launch."""
    steps, batch, _ = pre.shape
    tensors = (bias, given.lengths, given.seed, given.rows, given.t0)
    pointers = [0 if tensor is None else tensor.data_ptr() for tensor in tensors]
    args = [value.data_ptr() if isinstance(value, Tensor) else value for value in own]
    args += shared_arguments(call, pointers, steps, hidden, kernel.tiles(steps), *pre.stride()[:2])
    launch(kernel, kernel.blocks(batch, hidden), args, pre.device)


def launch(kernel: cuda.Kernel, blocks: int, args: Sequence[Any], device: torch.device) -> None:
    """Enqueue on torch's current stream of the device, looked up now."""
    import cupy

    with torch.cuda.device(device):
        function = _function(kernel, device)
        with cupy.cuda.Stream.from_external(torch.cuda.current_stream(device)):
            function((blocks,), (kernel.threads,), tuple(args), shared_mem=kernel.shared_bytes)


_functions: dict[tuple[cuda.Kernel, torch.device], cupy.RawKernel] = {}


def _function(kernel: cuda.Kernel, device: torch.device) -> cupy.RawKernel:
    """The compiled kernel; compiling and loading are not allowed while a graph is captured."""
    found = _functions.get((kernel, device))
    if found is None:
        if torch.cuda.is_current_stream_capturing():
            raise uncompiled(kernel)
        found = _functions[kernel, device] = compiled(kernel)
    return found
