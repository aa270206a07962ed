"""Parameters of whole networks: names, shapes and initial values around those of the core.

Names beside the core's own (`layers.<l>.<dir>...`, see `impls.params`):
`embedding.weight [V, C]`; `bottleneck.weight [F, C]`, `.bias [C]`, `.scale [C]`, `.shift [C]`
(layer normalisation after the product); `readout.weight [D*H]` (attention pooling's scoring
vector); `head.weight [D*H, O]` (absent when tied) and `head.bias [O]`. An encoder-decoder has
`decoder.embedding.weight [O, C]`, `decoder.layers.<l>.fwd.<gate>.weight [K, C', H]`, `.bias [H]`
and, with decoder "projection", `.projection [D*H, H]`; `attention.context [D*H, H]` (W_k) and
`attention.cell [H, H]` (W_c); `head.weight [H, O]`.
"""

from __future__ import annotations

import math
from dataclasses import replace
from zlib import crc32

import numpy as np

from impls import params
from impls.contract import ModelSpec, SpecError
from impls.nets import NetSpec
from impls.params import Shapes

NORMALISATION = ("bottleneck.scale", "bottleneck.shift")


def decoder_spec(net: NetSpec) -> ModelSpec:
    """The decoder's stack: the encoder's, in one direction, with `decoder_width` taps."""
    return replace(net.core, kernel_width=net.decoder_width, bidirectional=False)


def shapes(net: NetSpec) -> Shapes:
    """Shape of every parameter by name, in canonical order.

    Raises:
        SpecError: the core's family has no canonical parameters.
    """
    core, features = net.core, net.core.output_size
    out: Shapes = {}
    if net.inputs == "tokens":
        out["embedding.weight"] = (net.vocabulary, core.input_size)
    if net.inputs == "hashed":
        out["bottleneck.weight"] = (net.features, core.input_size)
        out |= {f"bottleneck.{name}": (core.input_size,) for name in ("bias", "scale", "shift")}
    out |= params.shapes(core)
    if net.head == "seq2seq":
        out |= _decoder_shapes(net)
        features = core.hidden_size
    if net.head == "sequence" and net.readout == "attention":
        out["readout.weight"] = (features,)
    if not net.tied:
        out["head.weight"] = (features, net.outputs)
    out["head.bias"] = (net.outputs,)
    return out


def _decoder_shapes(net: NetSpec) -> Shapes:
    core, hidden = net.core, net.core.hidden_size
    out: Shapes = {"decoder.embedding.weight": (net.outputs, core.input_size)}
    decoder = decoder_spec(net)
    own = params.shapes(decoder)
    for layer in range(decoder.layers):
        for gate in decoder.gates:
            at = f"layers.{layer}.fwd.{gate}"
            out |= {f"decoder.{at}.{part}": own[f"{at}.{part}"] for part in ("weight", "bias")}
            if net.decoder == "projection":
                out[f"decoder.{at}.projection"] = (core.output_size, hidden)
    out["attention.context"] = (core.output_size, hidden)
    out["attention.cell"] = (hidden, hidden)
    return out


def count(net: NetSpec, normalisation: bool = True) -> int:
    """Number of parameters, with or without normalisation weights."""
    left_out = () if normalisation else NORMALISATION
    return sum(math.prod(shape) for name, shape in shapes(net).items() if name not in left_out)


def init(net: NetSpec, seed: int) -> dict[str, np.ndarray]:
    """Initial parameters in float32; each draws from a stream of its own (seed and name).

    Weights are normal with variance 1 / fan-in, biases and shifts zero, scales one. Embeddings are
    standard normal, as torch.nn.Embedding's: with variance 1 / C the associative recall task stays
    on its plateau within a short budget. Tied ones, which also weigh outputs, and those of an
    encoder-decoder have variance 1 / C.
    """
    core = set(params.shapes(net.core))
    out = dict(params.init(net.core, seed))
    for name, shape in shapes(net).items():
        if name not in core:
            out[name] = _initial(name, shape, seed)
    if net.inputs == "tokens" and not net.tied and net.head != "seq2seq":
        out["embedding.weight"] *= np.float32(math.sqrt(net.core.input_size))
    return {name: out[name] for name in shapes(net)}


def _initial(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    last = name.rsplit(".", 1)[-1]
    if last in ("bias", "shift"):
        return np.zeros(shape, np.float32)
    if last == "scale":
        return np.ones(shape, np.float32)
    fan_in = shape[1] if name.endswith("embedding.weight") else math.prod(shape[:-1]) or shape[0]
    if len(shape) == 1:
        fan_in = shape[0]
    stream = np.random.default_rng(np.random.SeedSequence([seed, crc32(name.encode())]))
    return np.asarray(stream.standard_normal(shape) / math.sqrt(fan_in), np.float32)


def check(net: NetSpec, given: dict[str, np.ndarray]) -> None:
    """Raise SpecError where `given` are parameters of another network."""
    found = {name: tuple(np.shape(value)) for name, value in given.items()}
    if found != shapes(net):
        differ = sorted({*found.items()} ^ {*shapes(net).items()})[:3]
        raise SpecError(f"parameters of another network; first differences: {differ}")
