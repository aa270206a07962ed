"""The encoder-decoder with attention as functions of parameters, around any core.

Bradbury et al., arXiv 1611.01576, section 2.1. A core computes a layer from its input alone; what
the decoder needs beyond that is put into the input: the encoder's projection as further channels,
see `DecoderLayer`. Shapes: T source steps, U target steps, B sequences, C input features, H hidden
units, K taps, G gates, O symbols.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from impls._torch import attention, ops
from impls._torch.arrays import state_dtype
from impls._torch.dropout import dropout
from impls._torch.flat import FlatParameters
from impls._torch.stack import Core, Mask, Tensors, within
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
    outputs: list[Tensor]
    cells: list[Tensor]


class DecoderLayer(NamedTuple):
    """A decoder layer as a core computes it.

    spec: what the core is told; the last layer's gives the un-gated state c. weights: [K*C', G*H],
    where with decoder "projection" the last H of the C' channels hold h~_T: only the tap of the
    current step reads them, with V. gate: of the last layer the output gate's weight [K*C', H] and
    bias [H], which the core must not apply; None elsewhere and for f-pooling.
    """

    spec: ModelSpec
    weights: ops.Fused
    gate: tuple[Tensor, Tensor] | None


def encode(
    core: Core,
    net: NetSpec,
    params: FlatParameters,
    source: Tensor,
    lengths: Tensor | None,
    mask: Mask | None = None,
    seed: int | None = None,
) -> Encoded:
    """Read the sources.

    Args:
        source: int64 [T, B] with a known symbol on padded steps too; its embedding may be NaN.
        lengths: int64 [B], or None where every sequence is T long.
        mask: the zoneout mask's seed, rows and t0; seed: of dropout; None = evaluation.
    """
    spec = net.core
    if net.reversed_source:
        source = ops.reverse_valid(source[..., None], lengths)[..., 0]
    x = functional.embedding(source, params.leaves["embedding.weight"])
    x = dropout(x, net.dropout_input, seed, 0)
    if lengths is not None:
        x = x.masked_fill(~ops.valid_steps(lengths, len(x)), 0.0)
    outputs, cells = [], []
    for layer in range(spec.layers):
        seen, window = _looking_ahead(net, x)
        state = {"c": x.new_zeros(x.shape[1], spec.hidden_size, dtype=state_dtype(x.dtype))}
        if window is not None:
            state["window"] = window
        own = params.layers[f"layers.{layer}.fwd"]
        y, final = core(spec, own, seen, state, lengths, mask, layer, "fwd")
        outputs.append(_last(y, lengths))
        cells.append(final["c"])
        passed = dropout(y, net.dropout, seed, layer + 1) if layer < spec.layers - 1 else y
        x = torch.cat([x, passed], dim=2) if spec.dense else passed
    return Encoded(attention.memory_of(y, lengths), outputs, cells)


def _looking_ahead(net: NetSpec, x: Tensor) -> tuple[Tensor, Tensor | None]:
    """The core's input and window for x [T, B, C], which is zero on padded steps.

    The un-masked convolution sees s = floor((K-1)/2) steps ahead: it is the masked one over the
    input moved s steps towards the start, whose first s steps move into the window.
    """
    taps = net.core.kernel_width - 1
    if taps == 0:
        return x, None
    ahead = 0 if net.masked_encoder else taps // 2
    steps = len(x)
    begun = min(ahead, steps)
    # (.., 0, 0) leaves features and sequences, the last pair pads time.
    window = functional.pad(x[:begun], (0, 0, 0, 0, taps - ahead, ahead - begun))
    return functional.pad(x[begun:], (0, 0, 0, 0, 0, begun)), window


def _last(y: Tensor, lengths: Tensor | None) -> Tensor:
    """[B, H]: y [T, B, H] at each sequence's last valid step."""
    if lengths is None:
        return y[-1]
    return y[lengths - 1, torch.arange(y.shape[1], device=y.device)]


def decoder_layers(net: NetSpec, leaves: Tensors) -> list[DecoderLayer]:
    """The decoder's layers as a core takes them; made once for any number of steps.

    Args:
        leaves: `FlatParameters.leaves`.
    """
    spec, made = decoder_spec(net), []
    hidden = spec.hidden_size
    for layer in range(spec.layers):
        own = within(leaves, f"decoder.layers.{layer}.fwd")
        weight, bias = _with_projection(own, spec.kernel_width), own["bias"]
        told, gate = spec, None
        if layer == spec.layers - 1 and spec.pooling != "f":
            before, o, behind = weight.tensor_split((2 * hidden, 3 * hidden), dim=1)
            before_b, o_b, behind_b = bias.tensor_split((2 * hidden, 3 * hidden))
            told, gate, weight, bias = replace(spec, pooling="f"), (o, o_b), before, before_b
            if spec.pooling == "ifo":
                told = spec
                weight = torch.cat([before, torch.zeros_like(o), behind], dim=1)
                bias = torch.cat([before_b, torch.full_like(o_b, SATURATED), behind_b])
        made.append(DecoderLayer(told, ops.Fused(told, weight.contiguous(), bias), gate))
    return made


def _with_projection(own: Tensors, kernel_width: int) -> Tensor:
    """[K*C', G*H]: the taps, and below those of the current step the encoder's projection V."""
    if "projection" not in own:
        return own["weight"]
    taps = own["weight"].unflatten(0, (kernel_width, -1))
    current = functional.pad(own["projection"][None], (0, 0, 0, 0, kernel_width - 1, 0))
    return torch.cat([taps, current], dim=1).flatten(0, 1)


def first_state(net: NetSpec, layers: list[DecoderLayer], encoded: Encoded) -> dict[str, Tensor]:
    """The decoder's states before its first step, names as in `impls.params.state_shapes`."""
    taps, state = net.decoder_width - 1, {}
    for layer, (cells, made) in enumerate(zip(encoded.cells, layers, strict=True)):
        at, weight = f"layers.{layer}.fwd", made.weights.weight
        starts = cells if net.decoder == "state" else torch.zeros_like(cells)
        state[f"{at}.c"] = starts
        if taps:
            channels = len(weight) // net.decoder_width
            state[f"{at}.window"] = weight.new_zeros(taps, len(cells), channels)
    return state


def decode(
    core: Core,
    net: NetSpec,
    leaves: Tensors,
    layers: list[DecoderLayer],
    encoded: Encoded,
    inputs: Tensor,
    state: Tensors,
    lengths: Tensor | None = None,
    mask: Mask | None = None,
    seed: int | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The decoder over some steps, from any state on.

    Args:
        leaves: `FlatParameters.leaves`; layers: what `decoder_layers` made of them.
        inputs: int64 [U, B], the symbols read; of the first step the end mark.
        state: from `first_state` or an earlier call.
        lengths: int64 [B], or None where every sequence has U steps.
        mask, seed: as in `encode`; the decoder's masks are others.

    Returns:
        h [U, B, H], ready for the head (dropout applied), and the states behind the last step.
    """
    site = net.core.layers + 1  # the encoder has the sites 0 .. layers
    x = functional.embedding(inputs, leaves["decoder.embedding.weight"])
    x = dropout(x, net.dropout_input, seed, site)
    if lengths is not None:
        x = x.masked_fill(~ops.valid_steps(lengths, len(x)), 0.0)
    finals: dict[str, Tensor] = {}
    for layer, made in enumerate(layers):
        place = f"layers.{layer}.fwd"
        seen, own = x, within(state, place)
        if net.decoder == "projection":
            told = encoded.outputs[layer].to(x.dtype).expand(len(x), -1, -1)
            seen = torch.cat([x, told], dim=2)
        y, final = core(made.spec, made.weights, seen, own, lengths, mask, layer, "dec")
        finals |= {f"{place}.{name}": value for name, value in final.items()}
        if layer < len(layers) - 1:
            passed = dropout(y, net.dropout, seed, site + layer + 1)
            x = torch.cat([x, passed], dim=2) if net.core.dense else passed
    opened = None
    if made.gate is not None:
        weight, bias = made.gate
        taps = ops.unfold(ops.window_of(seen, own.get("window")), net.decoder_width)
        opened = torch.sigmoid(taps @ weight + bias).to(y.dtype)
    h = attention.output(leaves, y, opened, encoded.memory)
    return dropout(h, net.dropout, seed, site + len(layers)), finals
