"""A whole network around a core as one pure function of parameters and a batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax

from impls._jax import heads, ops
from impls._jax.dropout import dropping
from impls._jax.embedding import embed
from impls._jax.stack import Core, Mask, Tensors, stack
from impls.nets import NetSpec


class Given(NamedTuple):
    """A batch on the device.

    Attributes:
        inputs: int32 [T, B] of tokens, else [T, B, F].
        state: the stack's states at the start, complete.
        lengths: int32 [B] or None.
        mask: of zoneout; None in evaluation and where nothing is held.
        dropout: uint32 [2], this step's seed; None in evaluation.
    """

    inputs: jax.Array
    state: Tensors
    lengths: jax.Array | None = None
    mask: Mask | None = None
    dropout: jax.Array | None = None


class Wanted(NamedTuple):
    """What a batch asks for: targets as `heads.loss` takes them, weights [T, B] or None."""

    targets: jax.Array
    weights: jax.Array | None = None


@dataclass(frozen=True)
class Network:
    """Embedding, stack and head; two equal networks are the same function."""

    core: Core
    net: NetSpec

    def __call__(self, params: Tensors, given: Given) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Logits or values [B, O] or [T, B, O], and the stack's final states."""
        net, lengths = self.net, given.lengths
        drop = dropping(given.dropout)
        valid = None if lengths is None else ops.valid_steps(lengths, given.inputs.shape[0])
        x = drop(embed(net, params, given.inputs, valid), net.dropout_input, 0)

        def between(y: jax.Array, layer: int) -> jax.Array:
            return drop(y, net.dropout, 1 + layer)

        y, final = stack(
            self.core, net.core, params, x, given.state, lengths, given.mask, between=between
        )
        if net.head == "sequence":
            y = heads.readout(net, params, y, lengths, valid)
        return heads.head(net, params, drop(y, net.dropout, net.core.layers)), final

    def loss(
        self, params: Tensors, given: Given, wanted: Wanted
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Mean loss over what counts, and the stack's final states."""
        outputs, final = self(params, given)
        weights = wanted.weights
        if self.net.head == "steps" and given.lengths is not None:
            valid = ops.valid_steps(given.lengths, given.inputs.shape[0])[..., 0]
            weights = valid.astype(outputs.dtype) if weights is None else weights * valid
        return heads.loss(self.net, outputs, wanted.targets, weights), final
