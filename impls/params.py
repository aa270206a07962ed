"""The canonical parameter tree: names, shapes, initial values, bfloat16 rounding, files.

Layout: named gates, time-major, the last tap of a kernel multiplies the current step, and the
gate `f` keeps the past. A QRNN layer has `layers.<l>.<fwd|rev>.<gate>.weight [K, C, H]` and
`.bias [H]`, and so has a gated convolution, with the gates z and o alone; an LSTM layer has
`.weight [C, 4, H]`, `.recurrent [H, 4, H]` and `.bias [4, H]` with gates in the order i f g o. The
arrays of an attention layer are listed at `_attention_shapes`.
"""

from __future__ import annotations

import math
from pathlib import Path
from zlib import crc32

import numpy as np

from impls.contract import Arrays, ModelSpec, SpecError

Shapes = dict[str, tuple[int, ...]]
FAMILIES = ("qrnn", "lstm", "conv", "attention")
INNER = 4
"""Width of a Transformer's inner layer in hidden sizes."""
NORM_EPSILON = 1e-5
"""Added to the variance by a Transformer's normalisations."""
ROTARY_BASE = 10000.0
"""Pair i of a head of size d is turned by t * ROTARY_BASE ** (-2 i / d) at step t."""


def _known(spec: ModelSpec) -> None:
    if spec.family not in FAMILIES:
        raise SpecError(
            f"family {spec.family!r} has no canonical parameters (known: {', '.join(FAMILIES)}); "
            "its card must bring `init`"
        )
    if spec.family == "attention" and (reason := attention_hindrance(spec)):
        raise SpecError(reason)


def attention_hindrance(spec: ModelSpec) -> str | None:
    """Why no causal Transformer has these fields, or None."""
    if spec.bidirectional:
        return "bidirectional = true: attention is causal here, give false"
    if spec.hidden_size % (2 * spec.heads):
        return (
            f"hidden_size = {spec.hidden_size} is no multiple of 2 * heads = {2 * spec.heads}: "
            "rotary positions turn pairs of features of one head"
        )
    return None


def stream_hindrance(spec: ModelSpec) -> str | None:
    """Why a sequence of this family cannot be continued from a carried state, or None."""
    if spec.family == "attention":
        return (
            "attention carries no state: it looks back at all earlier inputs, so that what a "
            "next chunk would need has no fixed size; give whole sequences"
        )
    return None


def shapes(spec: ModelSpec) -> Shapes:
    """Shape of every parameter by name, in canonical order.

    Raises:
        SpecError: the family has no canonical parameters.
    """
    _known(spec)
    hidden = spec.hidden_size
    out: Shapes = {}
    for layer in range(spec.layers):
        inputs = spec.layer_input_size(layer)
        for direction in spec.directions:
            at = f"layers.{layer}.{direction}"
            if spec.family == "lstm":
                out[f"{at}.weight"] = (inputs, 4, hidden)
                out[f"{at}.recurrent"] = (hidden, 4, hidden)
                out[f"{at}.bias"] = (4, hidden)
                continue
            if spec.family == "attention":
                own = _attention_shapes(spec, layer)
                out |= {f"{at}.{name}": shape for name, shape in own.items()}
                continue
            for gate in spec.gates:
                out[f"{at}.{gate}.weight"] = (spec.kernel_width, inputs, hidden)
                out[f"{at}.{gate}.bias"] = (hidden,)
    return out


def _attention_shapes(spec: ModelSpec, layer: int) -> Shapes:
    """One Transformer layer: `input` only where its input is not H wide, `final_norm` in the last.

    `qkv.weight [H, 3, H]` holds the products of query, key and value, the features of head n at
    n * H/heads and on.
    """
    hidden, inputs = spec.hidden_size, spec.layer_input_size(layer)
    norm: Shapes = {"scale": (hidden,), "shift": (hidden,)}
    out: Shapes = {}
    if inputs != hidden:
        out |= {"input.weight": (inputs, hidden), "input.bias": (hidden,)}
    out |= {f"attention_norm.{name}": shape for name, shape in norm.items()}
    out |= {"qkv.weight": (hidden, 3, hidden), "out.weight": (hidden, hidden)}
    out |= {f"inner_norm.{name}": shape for name, shape in norm.items()}
    out |= {"up.weight": (hidden, INNER * hidden), "up.bias": (INNER * hidden,)}
    out |= {"down.weight": (INNER * hidden, hidden), "down.bias": (hidden,)}
    if layer == spec.layers - 1:
        out |= {f"final_norm.{name}": shape for name, shape in norm.items()}
    return out


def state_shapes(spec: ModelSpec, batch: int) -> Shapes:
    """Shape of every carried state by name, without the counter "t0".

    A QRNN carries `layers.<l>.<dir>.c [B, H]` and, for K > 1, `.window [K-1, B, C]` (the last
    K-1 inputs in processing order, oldest first); an LSTM carries `.h` and `.c` [B, H]; a
    convolution the `.window` alone, of (K-1) * dilation inputs; attention carries nothing.

    Raises:
        SpecError: the family has no canonical state.
    """
    _known(spec)
    out: Shapes = {}
    for layer in range(spec.layers):
        for direction in spec.directions:
            at = f"layers.{layer}.{direction}"
            if spec.family == "lstm":
                out[f"{at}.h"] = (batch, spec.hidden_size)
            if spec.family in ("qrnn", "lstm"):
                out[f"{at}.c"] = (batch, spec.hidden_size)
            if spec.family in ("qrnn", "conv") and spec.kernel_width > 1:
                out[f"{at}.window"] = (spec.window_size(layer), batch, spec.layer_input_size(layer))
    return out


def count(spec: ModelSpec) -> int:
    """Number of parameters."""
    return sum(math.prod(shape) for shape in shapes(spec).values())


def init(spec: ModelSpec, seed: int, dtype: str = "float32") -> dict[str, np.ndarray]:
    """Initial parameters: weights normal with variance 1 / fan-in, biases and shifts zero, scales 1.

    Each parameter draws from a stream of its own (seed and name), so that a further layer or
    gate does not move the others. The paper states no initialisation.

    Raises:
        SpecError: the family has no canonical parameters.
    """
    out = {}
    for name, shape in shapes(spec).items():
        if name.endswith((".bias", ".shift")):
            value = np.zeros(shape)
        elif name.endswith(".scale"):
            value = np.ones(shape)
        else:
            fan_in = shape[0] * shape[1] if name.split(".")[-2] in spec.gates else shape[0]
            stream = np.random.default_rng(np.random.SeedSequence([seed, crc32(name.encode())]))
            value = stream.standard_normal(shape) / math.sqrt(fan_in)
        out[name] = as_dtype(value, dtype)
    return out


def round_bfloat16(array: np.ndarray) -> np.ndarray:
    """Values rounded to float32, then to the nearest bfloat16 (ties to even), kept as float32."""
    wide = np.array(array, dtype=np.float32, order="C")
    bits = wide.view(np.uint32)
    half = np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    rounded = ((bits + half) & np.uint32(0xFFFF0000)).view(np.float32)
    return np.where(np.isnan(wide), wide, rounded)


def as_dtype(array: np.ndarray, dtype: str) -> np.ndarray:
    """The array as a contender of this dtype gets it: float64, float32, or rounded float32."""
    if dtype == "bfloat16":
        return round_bfloat16(array)
    return np.array(array, dtype=dtype, order="C")


def save(path: str | Path, params: Arrays) -> None:
    """Write parameters as a safetensors file (needs the package safetensors)."""
    from safetensors.numpy import save_file

    save_file({name: np.ascontiguousarray(value) for name, value in params.items()}, str(path))


def load(path: str | Path, spec: ModelSpec) -> dict[str, np.ndarray]:
    """Read parameters written by `save`.

    Raises:
        SpecError: the file holds parameters of another spec.
    """
    from safetensors.numpy import load_file

    params: dict[str, np.ndarray] = load_file(str(path))
    expected = shapes(spec)
    found = {name: value.shape for name, value in params.items()}
    if found != expected:
        differ = sorted(set(found.items()) ^ set(expected.items()))[:3]
        raise SpecError(f"{path} holds parameters of another spec; first differences: {differ}")
    return params
