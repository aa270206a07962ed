"""The encoder-decoder with attention as functions of parameters, around any core.

Bradbury et al., arXiv 1611.01576, section 2.1. A core computes a layer from its input alone; what
the decoder needs beyond that is put into the input: the encoder's projection as further channels,
see `DecoderLayer`. Shapes: T source steps, U target steps, B sequences, C input features, H hidden
units, K taps, O symbols.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from impls._jax import attention, ops
from impls._jax.arrays import state_dtype
from impls._jax.dropout import dropout
from impls._jax.stack import Core, Mask, Tensors, within
from impls.contract import ModelSpec
from impls.net_params import decoder_spec
from impls.nets import NetSpec

SATURATED = 100.0
"""A bias at which the sigmoid is 1 to the last bit in every dtype."""


class Encoded(NamedTuple):
    """What the decoder gets of a source.

    memory: the last layer's outputs; outputs: h~_T [B, H] of every layer, the gated output at each
    sequence's last valid step; cells: c [B, H] of every layer behind it.
    """

    memory: attention.Memory
    outputs: list[jax.Array]
    cells: list[jax.Array]


@partial(jax.tree_util.register_dataclass, data_fields=["weights", "gate"], meta_fields=["spec"])
@dataclass(frozen=True)
class DecoderLayer:
    """A decoder layer as a core computes it.

    spec: what the core is told; the last layer's gives the un-gated state c. weights: by gate,
    "z.weight" [K, C', H] and "z.bias" [H], where with decoder "projection" the last H of the C'
    channels hold h~_T: only the tap of the current step reads them, with V. gate: of the last layer
    the output gate's weight [K, C', H] and bias [H], which the core must not apply; None elsewhere
    and for f-pooling.
    """

    spec: ModelSpec
    weights: dict[str, jax.Array]
    gate: tuple[jax.Array, jax.Array] | None


def encode(
    core: Core,
    net: NetSpec,
    params: Tensors,
    source: jax.Array,
    lengths: jax.Array | None,
    mask: Mask | None = None,
    seed: jax.Array | None = None,
) -> Encoded:
    """Read the sources.

    Args:
        params: by canonical name, see `impls.net_params`.
        source: int32 [T, B] with a known symbol on padded steps too; its embedding may be NaN.
        lengths: int32 [B], or None where every sequence is T long.
        mask: the zoneout mask's seed, rows and t0; seed: of dropout; None = evaluation.
    """
    spec = net.core
    valid = None if lengths is None else ops.valid_steps(lengths, len(source))
    if net.reversed_source:
        source = ops.reverse_valid(source[..., None], lengths)[..., 0]
    x = dropout(params["embedding.weight"][source], net.dropout_input, seed, 0)
    x = ops.where_valid(valid, x)
    outputs, cells = [], []
    for layer in range(spec.layers):
        seen, window = _looking_ahead(net, x)
        state = {"c": jnp.zeros((x.shape[1], spec.hidden_size), state_dtype(x.dtype))}
        if window is not None:
            state["window"] = window
        own = within(params, f"layers.{layer}.fwd")
        y, final = core(spec, own, seen, state, lengths, mask, layer, "fwd")
        outputs.append(_last(y, lengths))
        cells.append(final["c"])
        passed = dropout(y, net.dropout, seed, layer + 1) if layer < spec.layers - 1 else y
        x = jnp.concatenate([x, passed], axis=2) if spec.dense else passed
    return Encoded(attention.memory_of(y, lengths), outputs, cells)


def _looking_ahead(net: NetSpec, x: jax.Array) -> tuple[jax.Array, jax.Array | None]:
    """The core's input and window for x [T, B, C], which is zero on padded steps.

    The un-masked convolution sees s = floor((K-1)/2) steps ahead: it is the masked one over the
    input moved s steps towards the start, whose first s steps move into the window.
    """
    taps = net.core.kernel_width - 1
    if taps == 0:
        return x, None
    ahead = 0 if net.masked_encoder else taps // 2
    begun = min(ahead, len(x))
    window = jnp.pad(x[:begun], ((taps - ahead, ahead - begun), (0, 0), (0, 0)))
    return jnp.pad(x[begun:], ((0, begun), (0, 0), (0, 0))), window


def _last(y: jax.Array, lengths: jax.Array | None) -> jax.Array:
    """[B, H]: y [T, B, H] at each sequence's last valid step."""
    if lengths is None:
        return y[-1]
    return jnp.take_along_axis(y, (lengths - 1)[None, :, None], axis=0)[0]


def decoder_layers(net: NetSpec, params: Tensors) -> list[DecoderLayer]:
    """The decoder's layers as a core takes them; made once for any number of steps.

    Args:
        params: by canonical name.
    """
    spec, made = decoder_spec(net), []
    for layer in range(spec.layers):
        own = within(params, f"decoder.layers.{layer}.fwd")
        weights = {f"{gate}.weight": _with_projection(own, gate) for gate in spec.gates}
        weights |= {f"{gate}.bias": own[f"{gate}.bias"] for gate in spec.gates}
        told, gate = spec, None
        if layer == spec.layers - 1 and spec.pooling != "f":
            gate = weights.pop("o.weight"), weights.pop("o.bias")
            told = replace(spec, pooling="f")
            if spec.pooling == "ifo":
                told = spec
                weights["o.weight"] = jnp.zeros_like(gate[0])
                weights["o.bias"] = jnp.full_like(gate[1], SATURATED)
        made.append(DecoderLayer(told, weights, gate))
    return made


def _with_projection(own: Tensors, gate: str) -> jax.Array:
    """[K, C', H]: a gate's taps, and below those of the current step its projection V."""
    weight, projection = own[f"{gate}.weight"], own.get(f"{gate}.projection")
    if projection is None:
        return weight
    current = jnp.pad(projection[None], ((len(weight) - 1, 0), (0, 0), (0, 0)))
    return jnp.concatenate([weight, current], axis=1)


def first_state(net: NetSpec, layers: list[DecoderLayer], encoded: Encoded) -> dict[str, jax.Array]:
    """The decoder's states before its first step, names as in `impls.params.state_shapes`."""
    taps, state = net.decoder_width - 1, {}
    for layer, (cells, made) in enumerate(zip(encoded.cells, layers, strict=True)):
        at, weight = f"layers.{layer}.fwd", made.weights["z.weight"]
        state[f"{at}.c"] = cells if net.decoder == "state" else jnp.zeros_like(cells)
        if taps:
            state[f"{at}.window"] = jnp.zeros((taps, len(cells), weight.shape[1]), weight.dtype)
    return state


def decode(
    core: Core,
    net: NetSpec,
    params: Tensors,
    layers: list[DecoderLayer],
    encoded: Encoded,
    inputs: jax.Array,
    state: Tensors,
    lengths: jax.Array | None = None,
    mask: Mask | None = None,
    seed: jax.Array | None = None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The decoder over some steps, from any state on.

    Args:
        params: by canonical name; layers: what `decoder_layers` made of them.
        inputs: int32 [U, B], the symbols read; of the first step the end mark.
        state: from `first_state` or an earlier call.
        lengths: int32 [B], or None where every sequence has U steps.
        mask, seed: as in `encode`; the decoder's masks are others.

    Returns:
        h [U, B, H], ready for the head (dropout applied), and the states behind the last step.
    """
    site = net.core.layers + 1  # the encoder has the sites 0 .. layers
    x = dropout(params["decoder.embedding.weight"][inputs], net.dropout_input, seed, site)
    x = ops.where_valid(None if lengths is None else ops.valid_steps(lengths, len(x)), x)
    finals: dict[str, jax.Array] = {}
    for layer, made in enumerate(layers):
        place = f"layers.{layer}.fwd"
        seen, own = x, within(state, place)
        if net.decoder == "projection":
            told = encoded.outputs[layer].astype(x.dtype)
            seen = jnp.concatenate([x, jnp.broadcast_to(told, (len(x), *told.shape))], axis=2)
        y, final = core(made.spec, made.weights, seen, own, lengths, mask, layer, "dec")
        finals |= {f"{place}.{name}": value for name, value in final.items()}
        if layer < len(layers) - 1:
            passed = dropout(y, net.dropout, seed, site + layer + 1)
            x = jnp.concatenate([x, passed], axis=2) if net.core.dense else passed
    opened = None
    if made.gate is not None:
        weight, bias = made.gate
        (total,) = ops.convolve(ops.window_of(seen, own.get("window")), (weight,))
        opened = jax.nn.sigmoid(total + bias).astype(y.dtype)
    h = attention.output(params, y, opened, encoded.memory)
    return dropout(h, net.dropout, seed, site + len(layers)), finals
