"""Memory that calls share: workspaces that stay, and large results whose memory comes back.

A fresh large tensor costs a page fault for every 4 KiB that is written first: as much as the
pooling itself. Results are therefore cut from memory of earlier results that nobody holds any
more; who still holds one keeps its memory.
"""

from __future__ import annotations

import math
import sys
import threading

import numpy as np
import torch
from torch import Tensor

WORTH_KEEPING = 1 << 20
"""Bytes; the allocator of the C library serves smaller requests without page faults."""
MOST_KEPT = 1 << 30
"""Bytes that are kept for later calls, those in use included."""

_kept: list[np.ndarray] = []
_lock = threading.RLock()  # an allocation may run a finaliser that comes here again


def _unused(at: int) -> bool:
    # A tensor made by `frombuffer` holds a reference to its array for as long as its storage
    # lives, whoever shares it; else the list and the argument of this call are the only two.
    return sys.getrefcount(_kept[at]) == 2


def _forget_unused(size: int) -> bool:
    """Drop unused memory, oldest first, until `size` bytes more may be kept; False: never."""
    room = MOST_KEPT - size - sum(memory.nbytes for memory in _kept)
    at = 0
    while room < 0 and at < len(_kept):
        if _unused(at):
            room += _kept[at].nbytes
            del _kept[at]
        else:
            at += 1
    return room >= 0


def result(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """An uninitialised tensor whose memory serves a later call once the tensor is gone."""
    count = math.prod(shape)
    size = count * dtype.itemsize
    if size < WORTH_KEEPING:
        return torch.empty(shape, dtype=dtype)
    with _lock:
        fitting = [
            (_kept[at].nbytes, at)
            for at in range(len(_kept))
            if size <= _kept[at].nbytes <= 2 * size and _unused(at)
        ]
        if fitting:
            at = min(fitting)[1]
        elif _forget_unused(size):
            at = len(_kept)
            _kept.append(np.empty(size, np.uint8))
        else:
            return torch.empty(shape, dtype=dtype)
        return torch.frombuffer(_kept[at], dtype=dtype, count=count).view(shape)


class Workspace(threading.local):
    """Scratch tensors of one thread by purpose; each grows to the largest request."""

    def __init__(self) -> None:
        self._tensors: dict[tuple[str, torch.dtype], tuple[int, int, Tensor, Tensor]] = {}

    def matrix(self, purpose: str, rows: int, columns: int, dtype: torch.dtype) -> Tensor:
        """An uninitialised [rows, columns] that the next call for this purpose overwrites."""
        kept = self._tensors.get((purpose, dtype))
        if kept is not None and kept[0] == rows and kept[1] == columns:
            return kept[3]
        # A tensor born in inference mode could not be written outside of it.
        with torch.inference_mode(False):
            whole = None if kept is None else kept[2]
            if whole is None or whole.numel() < rows * columns:
                whole = torch.empty(rows * columns, dtype=dtype)
            view = whole[: rows * columns].view(rows, columns)
        self._tensors[purpose, dtype] = rows, columns, whole, view
        return view


workspace = Workspace()
"""The one of this process; a chunk's matrices live here."""
