"""One QRNN layer in one direction around a recurrence."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from impls._torch import ops
from impls._torch.stack import Mask, Tensors
from impls._torch.zoneout import hold_mask
from impls.contract import ModelSpec

Recurrence = Callable[[ModelSpec, Tensor, Tensor, Tensor], Tensor]
"""(spec, f, term, initial) -> all cells c_t [T, B, H], from f and term [T, B, H] and [B, H].

c_t = f_t c_{t-1} + term_t for ifo-pooling, c_t = f_t c_{t-1} + (1 - f_t) term_t otherwise; it may
overwrite `term` where no gradient is recorded.
"""


def qrnn_layer(
    recurrence: Recurrence,
    spec: ModelSpec,
    params: Tensors,
    x: Tensor,
    state: Tensors,
    lengths: Tensor | None,
    mask: Mask | None,
    layer: int,
    direction: str,
) -> tuple[Tensor, dict[str, Tensor]]:
    """A core (see `impls._torch.stack.Core`) but for its recurrence."""
    steps = x.shape[0]
    valid = None if lengths is None else ops.valid_steps(lengths, steps)
    ordered = ops.reverse_valid(x, lengths) if direction == "rev" else x
    line = ops.window_of(ordered, state.get("window"))
    held = None
    if mask is not None and spec.zoneout > 0:
        held = hold_mask(spec, *mask, steps, layer, direction)
    pre = ops.pre_activations(spec, params, line)
    f, term, o = ops.gate_terms(spec, pre, held, valid)
    cells = recurrence(spec, f, term, state["c"])
    y = ops.gated_output(cells, o, valid, x.dtype)
    final = {"c": cells[-1]}
    if spec.kernel_width > 1:
        final["window"] = ops.final_window(line, spec.kernel_width, lengths)
    return (ops.reverse_valid(y, lengths) if direction == "rev" else y), final
