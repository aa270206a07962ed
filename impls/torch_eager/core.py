"""A QRNN layer in plain PyTorch: gates at once, then a loop over time that autograd records."""

from __future__ import annotations

import torch
from torch import Tensor

from impls._torch.layer import qrnn_layer
from impls._torch.stack import Mask, Tensors
from impls.contract import ModelSpec


def pool(spec: ModelSpec, f: Tensor, term: Tensor, initial: Tensor) -> Tensor:
    """All cells [T, B, H], as `impls._torch.layer.Recurrence` says."""
    cell, cells = initial, []
    in_place = not torch.is_grad_enabled()
    # unbind once: indexing f[t] inside the loop makes the backward pass quadratic in T.
    for f_t, term_t in zip(f.unbind(0), term.unbind(0), strict=True):
        if spec.pooling == "ifo":
            cell = term_t.addcmul_(f_t, cell) if in_place else f_t * cell + term_t
        else:
            cell = term_t.lerp_(cell, f_t) if in_place else torch.lerp(term_t, cell, f_t)
        cells.append(cell)
    return term if in_place else torch.stack(cells)


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
    """One QRNN layer in one direction; arguments and results as in `impls._torch.stack.Core`."""
    return qrnn_layer(pool, spec, params, x, state, lengths, mask, layer, direction)
