"""A stack of recurrent layers around a core: directions, dense connections, zero states."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from impls._torch.arrays import state_dtype
from impls._torch.ops import valid_steps
from impls.contract import ModelSpec
from impls.params import state_shapes

Tensors = Mapping[str, Tensor]
Mask = tuple[int, Tensor, Tensor]
"""(seed, rows [B], t0 [B]) of the zoneout mask."""

Core = Callable[
    [ModelSpec, Tensors, Tensor, Tensors, Tensor | None, Mask | None, int, str],
    tuple[Tensor, dict[str, Tensor]],
]
"""core(spec, params, x, state, lengths, mask, layer, direction) -> (y, state).

One layer in one direction. params: this layer's own ("z.weight" [K, C, H], ...); x [T, B, C] in
natural time, finite everywhere; state: complete ("c" [B, H], "window" [K-1, B, C]); lengths [B] int64 or None; mask or None for evaluation. y is in natural time, zero
on padded steps.
"""

Between = Callable[[Tensor, int], Tensor]
"""(y [T, B, D*H], layer) -> what the next layer sees of y; zeros of padded steps stay zero."""


def places(spec: ModelSpec) -> Iterator[tuple[int, str, str]]:
    """(layer, direction, "layers.<layer>.<direction>") in canonical order."""
    for layer in range(spec.layers):
        for direction in spec.directions:
            yield layer, direction, f"layers.{layer}.{direction}"


def within(tensors: Tensors, place: str) -> dict[str, Tensor]:
    """The tensors whose names begin with `place`, under the rest of their names."""
    start = f"{place}."
    return {name[len(start) :]: t for name, t in tensors.items() if name.startswith(start)}


def zero_state(spec: ModelSpec, like: Tensor) -> dict[str, Tensor]:
    """Zero states for x = `like` [T, B, C]; windows in x's dtype, the rest float32 at least."""
    wide = state_dtype(like.dtype)
    return {
        name: like.new_zeros(shape, dtype=like.dtype if name.endswith(".window") else wide)
        for name, shape in state_shapes(spec, like.shape[1]).items()
    }


def _states(spec: ModelSpec) -> int:
    """How many states `state_shapes` names; a small call has no time to name them."""
    windows = spec.family in ("qrnn", "conv") and spec.kernel_width > 1
    each = {"qrnn": 1, "lstm": 2}.get(spec.family, 0) + windows
    return spec.layers * len(spec.directions) * each


def stack(
    core: Core,
    spec: ModelSpec,
    params: Mapping[str, Tensors],
    x: Tensor,
    state: Tensors,
    lengths: Tensor | None = None,
    mask: Mask | None = None,
    between: Between | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """All layers over a batch.

    Args:
        params: by place, "layers.0.fwd": that layer's own parameters.
        x: [T, B, C]; padded steps may hold anything, NaN included.
        state: by full name, "layers.0.fwd.c"; what is absent starts at zero.
        between: what the next layer gets of a layer's output; None = the output itself.

    Returns:
        y [T, B, D*H] of the last layer and the final states by full name.
    """
    if lengths is not None:
        x = x.masked_fill(~valid_steps(lengths, x.shape[0]), 0.0)
    if len(state) < _states(spec):
        state = {**zero_state(spec, x), **state}
    finals: dict[str, Tensor] = {}
    y = x
    for layer in range(spec.layers):
        outputs = []
        for direction in spec.directions:
            place = f"layers.{layer}.{direction}"
            carried = within(state, place)
            out, final = core(spec, params[place], x, carried, lengths, mask, layer, direction)
            outputs.append(out)
            finals |= {f"{place}.{name}": value for name, value in final.items()}
        y = outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=2)
        if layer == spec.layers - 1:
            break
        passed = y if between is None else between(y, layer)
        x = torch.cat([x, passed], dim=2) if spec.dense else passed
    return y, finals
