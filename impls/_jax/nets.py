"""A network as one function of parameters and a batch: embedding, stack, readout, head."""

from __future__ import annotations

from typing import NamedTuple

import jax
import numpy as np

from impls._jax.arrays import device_of, dtype_of, state_dtype, to_device
from impls._jax.dropout import dropout
from impls._jax.embedding import embed
from impls._jax.heads import head, readout
from impls._jax.stack import Core, Mask, Tensors, stack
from impls.contract import Placement
from impls.nets import NetSpec
from impls.training import Batch


class Feed(NamedTuple):
    """A batch that is `impls.batches.ready`, on the device."""

    inputs: jax.Array
    targets: jax.Array
    lengths: jax.Array | None
    weights: jax.Array | None


def feed(net: NetSpec, batch: Batch, placement: Placement) -> Feed:
    """Move a batch that is `ready` to the device, in the formats the network takes.

    Only enqueued: nothing here waits for the device.
    """
    device, dtype = device_of(placement), dtype_of(placement)
    wide, whole = state_dtype(dtype), np.dtype(np.int32)

    def array(given: np.ndarray | None, dtype: np.dtype) -> jax.Array | None:
        return None if given is None else to_device(given, dtype, device)

    inputs = to_device(batch.inputs, whole if net.inputs == "tokens" else dtype, device)
    targets = to_device(batch.targets, whole if net.loss == "cross_entropy" else wide, device)
    return Feed(inputs, targets, array(batch.lengths, whole), array(batch.weights, wide))


def forward(
    core: Core,
    net: NetSpec,
    params: Tensors,
    given: Feed,
    state: Tensors,
    mask: Mask | None = None,
    seed: jax.Array | None = None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Outputs [B, O] or [T, B, O] and final states by full name.

    Args:
        state: initial states by full name; what is absent starts at zero.
        mask: the zoneout mask's seed, rows and t0; None = evaluation.
        seed: of dropout; None = evaluation.
    """
    x = dropout(embed(net, params, given.inputs), net.dropout_input, seed, 0)

    def between(y: jax.Array, layer: int) -> jax.Array:
        return dropout(y, net.dropout, seed, layer + 1)

    lengths = given.lengths
    y, finals = stack(core, net.core, params, x, state, lengths, mask, between)
    features = readout(net, params, y, lengths) if net.head == "sequence" else y
    features = dropout(features, net.dropout, seed, net.core.layers)
    return head(net, params, features), finals
