"""Memory that calls share: workspaces that stay, and large results whose memory comes back.

A fresh large tensor costs a page fault for every 4 KiB that is written first: as much as the
pooling itself. Results are therefore cut from memory of earlier results that nobody holds any
more; who still holds one keeps its memory.
"""

from __future__ import annotations

import math
import threading
import weakref

import numpy as np
import torch
from torch import Tensor

WORTH_KEEPING = 1 << 20
"""Bytes; the allocator of the C library serves smaller requests without page faults."""
MOST_KEPT = 1 << 30
"""Bytes of unused memory that are kept for later calls."""

_free: list[np.ndarray] = []
_lock = threading.RLock()  # a finaliser may run inside `_take`, in the same thread


def _give_back(memory: np.ndarray) -> None:
    with _lock:
        _free.append(memory)
        while sum(kept.nbytes for kept in _free) > MOST_KEPT:
            _free.pop(0)


def _take(size: int) -> np.ndarray:
    """The smallest unused memory that holds `size` bytes and is at most twice as large."""
    with _lock:
        fitting = [kept for kept in _free if size <= kept.nbytes <= 2 * size]
        if fitting:
            best = min(fitting, key=lambda kept: kept.nbytes)
            del _free[next(at for at, kept in enumerate(_free) if kept is best)]
            return best
    return np.empty(size, np.uint8)


def result(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """An uninitialised tensor whose memory serves a later call once the tensor is gone."""
    count = math.prod(shape)
    size = count * dtype.itemsize
    if size < WORTH_KEEPING:
        return torch.empty(shape, dtype=dtype)
    memory = _take(size)
    # The tensor's storage holds this view, not the memory itself: when the storage dies, so does
    # the view, and the memory is free again.
    view = memory[:size]
    weakref.finalize(view, _give_back, memory).atexit = False
    return torch.frombuffer(view, dtype=dtype, count=count).view(shape)


class Workspace(threading.local):
    """Scratch tensors of one thread by purpose; each grows to the largest request."""

    def __init__(self) -> None:
        self._tensors: dict[tuple[str, torch.dtype], tuple[Tensor, Tensor]] = {}

    def matrix(self, purpose: str, rows: int, columns: int, dtype: torch.dtype) -> Tensor:
        """An uninitialised [rows, columns] that the next call for this purpose overwrites."""
        kept = self._tensors.get((purpose, dtype))
        if kept is not None and kept[1].shape == (rows, columns):
            return kept[1]
        # A tensor born in inference mode could not be written outside of it.
        with torch.inference_mode(False):
            whole = None if kept is None else kept[0]
            if whole is None or whole.numel() < rows * columns:
                whole = torch.empty(rows * columns, dtype=dtype)
            view = whole[: rows * columns].view(rows, columns)
        self._tensors[purpose, dtype] = whole, view
        return view


workspace = Workspace()
"""The one of this process; a chunk's matrices live here."""
