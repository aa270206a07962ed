"""A stack of recurrent layers around a core: directions, dense connections, zero states."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import jax
import jax.numpy as jnp

from impls._jax.arrays import state_dtype
from impls._jax.ops import valid_steps, where_valid
from impls.contract import ModelSpec
from impls.params import state_shapes

Tensors = Mapping[str, jax.Array]
Mask = tuple[jax.Array, jax.Array, jax.Array]
"""(seed, rows, t0) of the zoneout mask, as `impls._jax.zoneout.hold_mask` takes them."""

Core = Callable[
    [ModelSpec, Tensors, jax.Array, Tensors, jax.Array | None, Mask | None, int, str],
    tuple[jax.Array, dict[str, jax.Array]],
]
"""core(spec, params, x, state, lengths, mask, layer, direction) -> (y, state).

One recurrent layer in one direction. params: this layer's own ("z.weight" [K, C, H], ...); x
[T, B, C] in natural time, finite everywhere; state: complete ("c" [B, H], "window"
[K-1, B, C]); lengths [B] int32 or None; mask or None for evaluation. y is in natural time, zero
on padded steps.
"""


def places(spec: ModelSpec) -> Iterator[tuple[int, str, str]]:
    """(layer, direction, "layers.<layer>.<direction>") in canonical order."""
    for layer in range(spec.layers):
        for direction in spec.directions:
            yield layer, direction, f"layers.{layer}.{direction}"


def within(tensors: Tensors, place: str) -> dict[str, jax.Array]:
    """The arrays whose names begin with `place`, under the rest of their names."""
    start = f"{place}."
    return {name[len(start) :]: t for name, t in tensors.items() if name.startswith(start)}


Between = Callable[[jax.Array, int], jax.Array]
"""between(y, layer): what a layer's output [T, B, D*H] becomes on its way to the next layer."""


def zero_state(spec: ModelSpec, like: jax.Array) -> dict[str, jax.Array]:
    """Zero states for x = `like` [T, B, C]; windows in x's dtype, the rest float32 at least."""
    wide = state_dtype(like.dtype)
    return {
        name: jnp.zeros(shape, like.dtype if name.endswith(".window") else wide)
        for name, shape in state_shapes(spec, like.shape[1]).items()
    }


def stack(
    core: Core,
    spec: ModelSpec,
    params: Tensors,
    x: jax.Array,
    state: Tensors,
    lengths: jax.Array | None = None,
    mask: Mask | None = None,
    between: Between | None = None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """All layers over a batch; a dense layer sees [the input of the layer below | its output].

    Args:
        params: by canonical name.
        x: [T, B, C]; padded steps may hold anything, NaN included.
        state: by full name, "layers.0.fwd.c"; what is absent starts at zero.
        between: applied to every layer's output but the last one's; None = handed on as it is.

    Returns:
        y [T, B, D*H] of the last layer and the final states by full name.
    """
    valid = None if lengths is None else valid_steps(lengths, x.shape[0])
    features = where_valid(valid, x)
    state = {**zero_state(spec, x), **state}
    finals: dict[str, jax.Array] = {}
    outputs: list[jax.Array] = []
    for layer, direction, place in places(spec):
        own, carried = within(params, place), within(state, place)
        out, final = core(spec, own, features, carried, lengths, mask, layer, direction)
        finals |= {f"{place}.{name}": value for name, value in final.items()}
        outputs.append(out)
        if direction == spec.directions[-1]:
            y = outputs[0] if len(outputs) == 1 else jnp.concatenate(outputs, axis=2)
            handed = y if between is None or layer == spec.layers - 1 else between(y, layer)
            features = jnp.concatenate([features, handed], axis=2) if spec.dense else handed
            outputs = []
    return y, finals
