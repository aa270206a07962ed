"""One QRNN layer in one direction around a recurrence."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax

from impls._jax import ops
from impls._jax.stack import Mask
from impls._jax.zoneout import hold_mask
from impls.contract import ModelSpec

Recurrence = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
"""(f, term, initial) -> all c_t = f_t * c_{t-1} + term_t: [T, B, H] from two such and [B, H]."""


def qrnn_layer(
    recurrence: Recurrence,
    spec: ModelSpec,
    params: Mapping[str, jax.Array],
    x: jax.Array,
    state: Mapping[str, jax.Array],
    lengths: jax.Array | None,
    mask: Mask | None,
    layer: int,
    direction: str,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """A core (see `impls._jax.stack.Core`) but for its recurrence."""
    steps = x.shape[0]
    valid = None if lengths is None else ops.valid_steps(lengths, steps)
    ordered = ops.reverse_valid(x, lengths) if direction == "rev" else x
    line = ops.window_of(ordered, state.get("window"))
    held = None
    if mask is not None and spec.zoneout > 0.0:
        held = hold_mask(spec, *mask, steps, layer, direction)
    pre = ops.pre_activations(spec, params, line)
    f, term, o = ops.gate_terms(spec, pre, held, valid, training=mask is not None)
    cells = recurrence(f, term, state["c"])
    y = ops.gated_output(cells, o, valid, x.dtype)
    final = {"c": cells[-1]}
    if spec.kernel_width > 1:
        final["window"] = ops.final_window(line, spec.kernel_width, lengths)
    return (ops.reverse_valid(y, lengths) if direction == "rev" else y), final
