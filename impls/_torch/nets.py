"""A network as one function of parameters and a batch: embedding, stack, readout, head."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from impls._torch.arrays import to_tensor
from impls._torch.dropout import dropout
from impls._torch.embedding import embed
from impls._torch.flat import FlatParameters
from impls._torch.heads import head, readout
from impls._torch.stack import Core, Mask, Tensors, stack
from impls.nets import NetSpec
from impls.training import Batch


@dataclass(frozen=True)
class Feed:
    """A batch that is `impls.batches.ready`, on the device."""

    inputs: Tensor
    targets: Tensor
    lengths: Tensor | None
    weights: Tensor | None


def feed(net: NetSpec, batch: Batch, like: FlatParameters) -> Feed:
    """Move a batch that is `ready` to the parameters' device, in the formats the network takes."""
    wide = like.master.dtype
    whole = torch.int64 if net.loss == "cross_entropy" else wide

    def tensor(array: np.ndarray | None, dtype: torch.dtype) -> Tensor | None:
        return None if array is None else to_tensor(array, dtype, like.device)

    inputs = to_tensor(
        batch.inputs, torch.int64 if net.inputs == "tokens" else like.dtype, like.device
    )
    targets = to_tensor(batch.targets, whole, like.device)
    return Feed(inputs, targets, tensor(batch.lengths, torch.int64), tensor(batch.weights, wide))


def forward(
    core: Core,
    net: NetSpec,
    params: FlatParameters,
    given: Feed,
    state: Tensors,
    mask: Mask | None = None,
    seed: int | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Outputs [B, O] or [T, B, O] and final states by full name.

    Args:
        state: initial states by full name; what is absent starts at zero.
        mask: the zoneout mask's seed, rows and t0; None = evaluation.
        seed: of dropout; None = evaluation.
    """
    x = dropout(embed(net, params.leaves, given.inputs), net.dropout_input, seed, 0)

    def between(y: Tensor, layer: int) -> Tensor:
        return dropout(y, net.dropout, seed, layer + 1)

    lengths = given.lengths
    y, finals = stack(core, net.core, params.layers, x, state, lengths, mask, between)
    features = readout(net, params.leaves, y, lengths) if net.head == "sequence" else y
    features = dropout(features, net.dropout, seed, net.core.layers)
    return head(net, params.leaves, features), finals
