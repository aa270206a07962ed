"""A QRNN layer on CUDA: XLA's product for all gates, then the project's own pooling kernels."""

from __future__ import annotations

import jax

from impls._jax.fused import fused_layer
from impls._jax.stack import Mask, Tensors
from impls.contract import ModelSpec
from impls.jax_cupy.pool import pool


def core(
    spec: ModelSpec,
    params: Tensors,
    x: jax.Array,
    state: Tensors,
    lengths: jax.Array | None,
    mask: Mask | None,
    layer: int,
    direction: str,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """One layer in one direction; see `impls._jax.stack.Core`."""
    return fused_layer(pool, spec, params, x, state, lengths, mask, layer, direction)
