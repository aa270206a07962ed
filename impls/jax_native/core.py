"""The core of jax_native: one custom call for a whole layer in one direction."""

from __future__ import annotations

import jax

from impls._jax.stack import Mask, Tensors
from impls.contract import ModelSpec
from impls.jax_native.layer import Given, How, Sequences, layer
from impls.kernels.xla import register

register()  # compile now, while loading: never inside a clock


def how_of(spec: ModelSpec, mask: Mask | None, number: int, direction: str) -> How:
    """What the calls need of a spec for layer `number` in one direction."""
    zone = "none"
    if spec.zoneout > 0:
        if mask is not None:
            zone = "hold"
        elif spec.zoneout_eval == "expectation":
            zone = "expectation"
    keeps_state = spec.zoneout_mode == "keep"
    reverse, decoder = direction == "rev", direction == "dec"
    return How(spec.pooling, zone, keeps_state, reverse, spec.zoneout, number, decoder)


def core(
    spec: ModelSpec,
    params: Tensors,
    x: jax.Array,
    state: Tensors,
    lengths: jax.Array | None,
    mask: Mask | None,
    number: int,
    direction: str,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """One QRNN layer in one direction; arguments and results as in `impls._jax.stack.Core`."""
    how = how_of(spec, mask, number, direction)
    given = Given(
        x=x,
        c=state["c"],
        weights=tuple(params[f"{gate}.weight"] for gate in spec.gates),
        biases=tuple(params[f"{gate}.bias"] for gate in spec.gates),
        window=state.get("window"),
    )
    final = layer(how, given, Sequences(lengths, mask if how.zone == "hold" else None))
    carried = {"c": final.c}
    if final.window is not None:
        carried["window"] = final.window
    return final.y, carried
