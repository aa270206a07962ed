"""Random networks and batches for tests, and what NumPy says of them in float64."""

from dataclasses import replace

import numpy as np

from impls import net_params, reference
from impls.contract import ModelSpec, Placement, Work
from impls.nets import NetSpec, OptimiserSpec
from impls.reference import philox
from impls.training import Batch, Seeds

CORE = ModelSpec(input_size=5, hidden_size=6, layers=2, kernel_width=2, pooling="fo")
VOCABULARY, FEATURES, OUTPUTS = 7, 9, 4
WIDE = Placement(dtype="float64")
SEEDS = Seeds(dropout=3, zoneout=12345678901234567890)
STILL = OptimiserSpec("sgd", 1e-300, clip_norm=0.0)
"""Its steps leave float64 parameters as they are."""
RAGGED = [4, 9, 1]
STEPS = {"head": "steps"}
SEQUENCE = {"head": "sequence"}


def close(found, expected, tolerance=1e-12):
    """Of the same shape, and within the tolerance, relative or absolute."""
    assert found.shape == np.shape(expected)
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


def network(core=None, **changes):
    """A small network; `core` holds changes of CORE."""
    known = {"vocabulary": VOCABULARY, "features": FEATURES, "outputs": OUTPUTS}
    return NetSpec(core=replace(CORE, **(core or {})), **known | changes)


def parameters(net, seed=1):
    """Float64 parameters, none of them zero or one."""
    rng = np.random.default_rng(seed)
    shapes = net_params.shapes(net).items()
    return {name: 0.4 * rng.standard_normal(shape) for name, shape in shapes}


def batch(net, steps=9, rows=3, lengths=None, weighted=False, seed=0, **changes):
    """A batch whose padded steps hold NaN, or -1 where numbers are whole."""
    rng = np.random.default_rng(seed)
    widths = {"tokens": (), "dense": (net.core.input_size,), "hashed": (FEATURES,)}
    inputs = _draw(rng, (steps, rows, *widths[net.inputs]), VOCABULARY, net.inputs == "tokens")
    shape = (rows,) if net.head == "sequence" else (steps, rows)
    values = () if net.loss == "cross_entropy" else (net.outputs,)
    targets = _draw(rng, (*shape, *values), net.outputs, net.loss == "cross_entropy")
    weights = rng.integers(0, 2, (steps, rows)).astype(np.float32) if weighted else None
    if weights is not None:
        weights[0] = 1
    if lengths is not None:
        lengths = np.array(lengths)
        padded = np.arange(steps)[:, None] >= lengths
        for array in (inputs, *([targets] if net.head == "steps" else [])):
            array[padded] = -1 if array.dtype == np.int64 else np.nan
    return Batch(inputs, targets, lengths, weights, **changes)


def _draw(rng, shape, count, whole):
    return rng.integers(0, count, shape) if whole else rng.standard_normal(shape)


def outputs(net, params, given, seed=None, drop=None, state=None):
    """Logits or values and final states, by formulas; NaN where a step is padded.

    `drop(array, site)` is the dropout of a training step, `seed` that of its zoneout mask.
    """
    if net.inputs == "tokens":
        x = params["embedding.weight"][np.maximum(given.inputs, 0)]
    elif net.inputs == "hashed":
        pre = given.inputs @ params["bottleneck.weight"] + params["bottleneck.bias"]
        centred = pre - pre.mean(2, keepdims=True)
        normal = centred / np.sqrt(np.square(centred).mean(2, keepdims=True) + 1e-5)
        x = normal * params["bottleneck.scale"] + params["bottleneck.shift"]
    else:
        x = given.inputs
    drop = drop or (lambda array, site: array)
    y, finals = _stack(net.core, params, drop(x, 0), given, seed, drop, state or {})
    features = readout(net, params, y, given.lengths) if net.head == "sequence" else y
    weight = params["embedding.weight"].T if net.tied else params["head.weight"]
    return drop(features, net.core.layers) @ weight + params["head.bias"], finals


def _stack(core, params, x, given, seed, drop, state):
    if core.family != "qrnn" or core.zoneout or state:
        # Whole, for mask, states, and layers that differ; no test of these has dropout as well.
        own = {name: value for name, value in params.items() if name.startswith("layers.")}
        result = reference.run(
            core, own, Work("forward", x, given.lengths, state, seed, given.rows)
        )
        return result["y"], _finals(result)
    finals = {}
    for layer in range(core.layers):
        one = replace(core, layers=1, input_size=x.shape[2])
        start = f"layers.{layer}."
        own = {f"layers.0.{n[len(start) :]}": v for n, v in params.items() if n.startswith(start)}
        result = reference.run(one, own, Work("forward", x, given.lengths))
        y = result["y"]
        finals |= {n.replace("layers.0.", start): v for n, v in _finals(result).items()}
        if layer < core.layers - 1:
            passed = drop(y, layer + 1)
            x = np.concatenate([x, passed], axis=2) if core.dense else passed
    return y, finals


def _finals(result):
    return {n.removeprefix("state."): v for n, v in result.items() if n.startswith("state.")}


def readout(net, params, y, lengths):
    """[B, D*H], sequence by sequence."""
    rows = []
    for b in range(y.shape[1]):
        own = y[: None if lengths is None else lengths[b], b]
        if net.readout == "last":
            half = net.core.hidden_size
            rows.append(np.concatenate([own[-1, :half], own[0, half:]]))
        elif net.readout == "mean":
            rows.append(own.mean(0))
        else:
            scores = np.exp(own @ params["readout.weight"])
            rows.append(scores @ own / scores.sum())
    return np.stack(rows)


def loss(net, found, given):
    """The mean loss, element by element."""
    total, count = 0.0, 0.0
    for at in np.ndindex(found.shape[:-1]):
        weight = 1.0 if given.weights is None else float(given.weights[at])
        if given.lengths is not None and net.head == "steps" and at[0] >= given.lengths[at[1]]:
            continue
        if net.loss == "cross_entropy":
            each = np.log(np.exp(found[at]).sum()) - found[at][given.targets[at]]
        else:
            each = 0.5 * np.square(found[at] - given.targets[at]).mean()
        total, count = total + weight * each, count + weight
    return total / count


def dropped(array, rate, seed, site):
    """Dropout by NumPy's Philox."""
    counter = np.zeros((-(-array.size // 8), 4), np.int64)
    counter[:, 0], counter[:, 3] = np.arange(len(counter)), site
    drawn = philox.philox4x32(philox.key_of(seed), counter)
    halves = [part for word in drawn.T for part in (word & 0xFFFF, word >> 16)]
    uniforms = np.concatenate(halves)[: array.size].reshape(array.shape)
    return np.where(uniforms < round(rate * 65536), 0.0, array / (1 - rate))
