"""The QRNN layer (arXiv 1611.01576, section 2) with its recurrence as a parallel scan.

The recurrence composes affine maps c -> f * c + term, in linear space: sums of logarithms
lose accuracy with the number of steps.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from impls._jax.layer import qrnn_layer
from impls._jax.stack import Mask, Tensors
from impls.contract import ModelSpec

Affine = tuple[jax.Array, jax.Array]
Saved = tuple[jax.Array, jax.Array, jax.Array]


def _compose(earlier: Affine, later: Affine) -> Affine:
    return earlier[0] * later[0], later[0] * earlier[1] + later[1]


def _scan(f: jax.Array, term: jax.Array, reverse: bool = False) -> jax.Array:
    return lax.associative_scan(_compose, (f, term), reverse=reverse)[1]


@jax.custom_vjp  # type: ignore[untyped-decorator]
def recurrence(f: jax.Array, term: jax.Array, initial: jax.Array) -> jax.Array:
    """All c_t = f_t * c_{t-1} + term_t: [T, B, H] from [T, B, H] twice and c_0 [B, H].

    Its gradient is the same recurrence backwards in time; autodiff would store every level of
    the scan's tree.
    """
    return _scan(f, term.at[0].add(f[0] * initial))


def _forward(f: jax.Array, term: jax.Array, initial: jax.Array) -> tuple[jax.Array, Saved]:
    cells = recurrence(f, term, initial)
    return cells, (f, cells, initial)


def _backward(saved: Saved, dcells: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    # flow_t = dcells_t + f_{t+1} * flow_{t+1} is the loss's gradient by c_t.
    f, cells, initial = saved
    later = jnp.concatenate([f[1:], jnp.zeros_like(f[:1])])
    flow = _scan(later, dcells, reverse=True)
    before = jnp.concatenate([initial[None], cells[:-1]])
    return flow * before, flow, f[0] * flow[0]


recurrence.defvjp(_forward, _backward)


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
    return qrnn_layer(recurrence, spec, params, x, state, lengths, mask, layer, direction)
