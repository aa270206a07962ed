"""The encoder-decoder with attention in float64, sequence by sequence, as the paper writes it.

Bradbury et al., arXiv 1611.01576v2, section 2.1 and equations 7-9. No batch, no padding, no fused
gates: every sequence is computed alone, at its own length, so that nothing can leak into it.
Shapes: T source steps, U target steps, C input features, H hidden units, K taps, O symbols.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from impls.beam import END
from impls.contract import Arrays, ModelSpec
from impls.net_params import decoder_spec
from impls.nets import NetSpec
from impls.reference.ops import sigmoid
from impls.reference.philox import hold_mask
from impls.training import Batch

Drop = Callable[[np.ndarray, int], np.ndarray]


class Layer(NamedTuple):
    """States c, gated outputs h and output gates o (1 for f-pooling) of a layer, each [T, H]."""

    cells: np.ndarray
    hidden: np.ndarray
    opened: np.ndarray


class Zoneout(NamedTuple):
    """Which mask zoneout draws: the sequence's row, network 0 or 1; seed None = evaluation."""

    seed: int | None
    row: int
    network: int


def _below(params: Arrays, at: str) -> Arrays:
    """float64 copies of the entries under the prefix `at`, without it."""
    start = f"{at}."
    return {
        name[len(start) :]: np.asarray(value, np.float64)
        for name, value in params.items()
        if name.startswith(start)
    }


def _convolution(x: np.ndarray, weight: np.ndarray, ahead: int) -> np.ndarray:
    """[T, H]: tap j of K meets the input of step t - K + 1 + j + ahead, zeros outside."""
    taps, steps = len(weight), len(x)
    summed = np.zeros((steps, weight.shape[2]))
    for t in range(steps):
        for tap in range(taps):
            source = t - taps + 1 + tap + ahead
            if 0 <= source < steps:
                summed[t] += x[source] @ weight[tap]
    return summed


def _gates(
    spec: ModelSpec, weights: Arrays, x: np.ndarray, ahead: int, encoded: np.ndarray | None
) -> dict[str, np.ndarray]:
    """Gates [T, H] by name; `encoded` [H] is h~_T of the encoder's layer, or None."""
    found = {}
    for gate in spec.gates:
        summed = _convolution(x, weights[f"{gate}.weight"], ahead) + weights[f"{gate}.bias"]
        if encoded is not None:
            summed = summed + encoded @ weights[f"{gate}.projection"]
        found[gate] = np.tanh(summed) if gate == "z" else sigmoid(summed)
    return found


def _states(
    spec: ModelSpec,
    gates: dict[str, np.ndarray],
    initial: np.ndarray,
    held: np.ndarray | None,
    training: bool,
) -> np.ndarray:
    """c_t [T, H] from the initial c [H]; `held` bool [T, H] or None is zoneout's mask."""
    f, z = gates["f"], gates["z"]
    i = gates.get("i")
    if held is not None:
        f = np.where(held, 1.0, f)
        i = np.where(held, 0.0, i) if i is not None and spec.zoneout_mode == "keep" else i
    elif not training and spec.zoneout_eval == "expectation":
        f = spec.zoneout + (1.0 - spec.zoneout) * f
        i = (1.0 - spec.zoneout) * i if i is not None and spec.zoneout_mode == "keep" else i
    admitted = 1.0 - f if i is None else i
    states, cell = np.empty_like(z), initial
    for t in range(len(z)):
        cell = f[t] * cell + admitted[t] * z[t]
        states[t] = cell
    return states


def _layers(
    spec: ModelSpec,
    params: Arrays,
    x: np.ndarray,
    zone: Zoneout,
    initial: list[np.ndarray],
    ahead: int = 0,
    encoded: list[np.ndarray] | None = None,
    drop: Drop | None = None,
) -> list[Layer]:
    """Every layer over x [T, C]; `initial` and `encoded` (h~_T or None) are [H] per layer.

    `drop(features, layer)` is the dropout of what passes to the next layer.
    """
    found: list[Layer] = []
    features = x
    for layer in range(spec.layers):
        weights = _below(params, f"layers.{layer}.fwd")
        projected = None if encoded is None else encoded[layer]
        gates = _gates(spec, weights, features, ahead, projected)
        held = None
        if zone.seed is not None and spec.zoneout > 0.0:
            where = len(x), layer, "fwd", zone.network
            held = hold_mask(spec, zone.seed, np.array([zone.row]), 0, *where)[:, 0]
        cells = _states(spec, gates, initial[layer], held, zone.seed is not None)
        opened = gates.get("o", np.ones_like(cells))
        found.append(Layer(cells, opened * cells, opened))
        below = [features] if spec.dense else []
        passed = found[-1].hidden if drop is None else drop(found[-1].hidden, layer)
        features = np.concatenate([*below, passed], axis=1)
    return found


def attended(cells: np.ndarray, memory: np.ndarray) -> np.ndarray:
    """k_t [U, H] (eq. 7 and 8): the memory h~_s [T, H] weighted by softmax_s(c_t . h~_s)."""
    context = np.empty_like(cells)
    for t, cell in enumerate(cells):
        scores = memory @ cell
        weights = np.exp(scores - scores.max())
        context[t] = (weights / weights.sum()) @ memory
    return context


def logits_of(
    net: NetSpec,
    params: Arrays,
    source: np.ndarray,
    inputs: np.ndarray,
    row: int = 0,
    seed: int | None = None,
    drop: Drop = lambda features, site: features,
) -> np.ndarray:
    """Logits [U, O] of one sequence.

    Args:
        source: int [T], all of it valid.
        inputs: int [U], what the decoder reads: the end mark, then the target but for its last.
        row, seed: of the zoneout mask; seed None = evaluation.
        drop: dropout of features [T, .] at a site: 0 = the sources' embedding, l + 1 = after layer
            l, from layers + 1 on the same of the decoder. Without it there is none.
    """
    encoder, decoder = net.core, decoder_spec(net)
    read_in = source[::-1] if net.reversed_source else source
    x = drop(_below(params, "embedding")["weight"][read_in], 0)
    behind = encoder.layers + 1
    ahead = 0 if net.masked_encoder else (encoder.kernel_width - 1) // 2
    zeros = [np.zeros(encoder.hidden_size)] * encoder.layers
    zone = Zoneout(seed, row, 0)
    read = _layers(encoder, params, x, zone, zeros, ahead, drop=lambda y, layer: drop(y, layer + 1))

    own, wide, head = (_below(params, at) for at in ("decoder", "attention", "head"))
    zone, y = Zoneout(seed, row, 1), drop(own["embedding.weight"][inputs], behind)
    if net.decoder == "projection":
        starts, encoded = zeros, [layer.hidden[-1] for layer in read]
    else:
        starts, encoded = [layer.cells[-1] for layer in read], None
    written = _layers(
        *(decoder, own, y, zone, starts, 0, encoded),
        drop=lambda y, layer: drop(y, behind + layer + 1),
    )
    last = written[-1]
    context = attended(last.cells, read[-1].hidden)
    output = last.opened * (context @ wide["context"] + last.cells @ wide["cell"])
    output = drop(output, behind + decoder.layers)
    logits: np.ndarray = output @ head["weight"] + head["bias"]
    return logits


def forward(
    net: NetSpec,
    params: Arrays,
    batch: Batch,
    seed: int | None = None,
    drop: Callable[[int], Drop] = lambda sentence: lambda features, site: features,
) -> np.ndarray:
    """Teacher-forced logits [U, B, O] of a batch, zeros behind each target's own end.

    `drop(b)` is the dropout of `logits_of` in sentence b.
    """
    steps, size = batch.targets.shape
    lengths = np.full(size, len(batch.inputs)) if batch.lengths is None else batch.lengths
    ends = np.full(size, steps) if batch.target_lengths is None else batch.target_lengths
    rows = np.arange(size) if batch.rows is None else batch.rows
    out = np.zeros((steps, size, net.outputs))
    for b in range(size):
        source, target = batch.inputs[: lengths[b], b], batch.targets[: ends[b], b]
        inputs = np.concatenate([[END], target[:-1]])
        given = net, params, source, inputs, int(rows[b]), seed
        out[: ends[b], b] = logits_of(*given, drop(b))
    return out


def loss(
    net: NetSpec,
    params: Arrays,
    batch: Batch,
    seed: int | None = None,
    drop: Callable[[int], Drop] = lambda sentence: lambda features, site: features,
) -> float:
    """Mean cross-entropy over all target steps before each target's end, its end mark included."""
    logits = forward(net, params, batch, seed, drop)
    steps, size = batch.targets.shape
    ends = np.full(size, steps) if batch.target_lengths is None else batch.target_lengths
    total = 0.0
    for b in range(size):
        total -= log_probability(logits[: ends[b], b], batch.targets[: ends[b], b])
    return total / float(np.sum(ends))


def log_probability(logits: np.ndarray, symbols: np.ndarray) -> float:
    """Sum over steps of log softmax(logits [U, O]) at the symbols [U]."""
    top = logits.max(axis=1, keepdims=True)
    normal = (top + np.log(np.exp(logits - top).sum(axis=1, keepdims=True)))[:, 0]
    return float(np.sum(logits[np.arange(len(symbols)), symbols] - normal))
