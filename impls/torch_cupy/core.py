"""A QRNN layer on CUDA: one product over taps and gates, then the fused pooling operator."""

from __future__ import annotations

import torch
from torch import Tensor

from impls._torch import ops
from impls._torch.stack import Mask, Tensors
from impls.contract import ModelSpec
from impls.torch_cupy import library

pool = library.pool  # importing the module registers the operators


def core(
    spec: ModelSpec,
    params: Tensors,
    x: Tensor,
    state: Tensors,
    lengths: Tensor | None,
    mask: Mask | None,
    layer: int,
    direction: str,
) -> tuple[Tensor, dict[str, Tensor]]:
    """One QRNN layer in one direction; arguments and results as in `impls._torch.stack.Core`.

    The reverse direction moves no data: the convolution looks ahead instead of back, and the
    kernel walks from each sequence's last valid step to its first.
    """
    reverse = direction == "rev"
    fused = ops.fuse(spec, params)
    line = _line(x, state.get("window"), lengths, reverse)
    taps = _taps(line, x.shape[0], spec.kernel_width, reverse)
    pre = taps.flatten(0, 1).mm(fused.weight).unflatten(0, taps.shape[:2])
    if pre.dtype not in (torch.float32, torch.bfloat16):  # float16 under torch.autocast
        pre = pre.float()
    zone, seed, rows, t0 = _zone(spec, mask, x.device)
    y, c, _ = torch.ops.quasibench_cuda.pool(
        pre, fused.bias, state["c"], lengths, seed, rows, t0, spec.pooling, zone,
        spec.zoneout_mode == "keep", spec.zoneout, layer, reverse, direction == "dec",
    )  # fmt: skip
    final = {"c": c}
    if spec.kernel_width > 1:
        final["window"] = _final_window(line, spec.kernel_width, lengths, reverse)
    return y, final


def _line(x: Tensor, window: Tensor | None, lengths: Tensor | None, reverse: bool) -> Tensor:
    """What the taps see, [T+K-1, B, C] in natural time.

    Forward: the window, then x. Reverse: x, and the window from each sequence's own end on, its
    newest input first.
    """
    if not reverse or window is None:
        return ops.window_of(x, window)
    ahead = window.flip(0)
    if lengths is None:
        return torch.cat([x, ahead])
    room = torch.cat([x, torch.zeros_like(window)])
    place = lengths + torch.arange(window.shape[0], device=x.device)[:, None]
    return room.scatter(0, place[..., None].expand_as(window), ahead)


def _taps(line: Tensor, steps: int, kernel_width: int, reverse: bool) -> Tensor:
    """[T, B, K*C]: each step's K inputs side by side, the first processed first."""
    if kernel_width == 1:
        return line
    order = range(kernel_width - 1, -1, -1) if reverse else range(kernel_width)
    return torch.cat([line[tap : tap + steps] for tap in order], dim=2)


def _final_window(line: Tensor, kernel_width: int, lengths: Tensor | None, reverse: bool) -> Tensor:
    """[K-1, B, C]: the last K-1 inputs in processing order, oldest first."""
    if reverse:
        return line[: kernel_width - 1].flip(0)
    return ops.final_window(line, kernel_width, lengths)


def _zone(
    spec: ModelSpec, mask: Mask | None, device: torch.device
) -> tuple[str, Tensor | None, Tensor | None, Tensor | None]:
    """(zone, seed [1], rows [B], t0 [B]) for the operator."""
    if spec.zoneout == 0:
        return "none", None, None, None
    if mask is not None:
        seed, rows, t0 = mask
        signed = seed - (1 << 64) if seed >> 63 else seed
        # A tensor, so that a captured graph can be replayed with another seed written into it.
        return "hold", torch.full((1,), signed, dtype=torch.int64, device=device), rows, t0
    return "expect" if spec.zoneout_eval == "expectation" else "none", None, None, None
