"""Random works for the tests of the PyTorch implementations, and how far a result is off."""

import numpy as np

import impls
from impls import reference
from impls.contract import Placement, Work
from impls.params import as_dtype, init, shapes, state_shapes

TOLERANCE = {"float32": 2e-6, "bfloat16": 6e-3, "float64": 1e-12}


def parameters(spec, dtype="float32"):
    """Initial parameters with biases that are not zero."""
    rng = np.random.default_rng(3)
    return init(spec, 1, dtype) | {
        name: as_dtype(0.5 * rng.standard_normal(shape), dtype)
        for name, shape in shapes(spec).items()
        if name.endswith(".bias")
    }


def work(spec, kind="backward", dtype="float32", batch=3, steps=9, lengths=None, seed=None):
    """A work from the middle of a stream; padded steps of x, dy and target are NaN."""
    rng = np.random.default_rng(0)

    def draw(*shape):
        return as_dtype(rng.standard_normal(shape), dtype)

    x = draw(steps, batch, spec.input_size)
    dy, target = (draw(steps, batch, spec.output_size) for _ in range(2))
    if lengths is not None:
        lengths = np.array(lengths)
        for array in (x, dy, target):
            array[np.arange(steps)[:, None] >= lengths] = np.nan
    states = state_shapes(spec, batch)
    state = {name: draw(*shape) for name, shape in states.items()}
    if spec.family == "qrnn":
        state["t0"] = 5 + 3 * np.arange(batch)
    dstate = {name: draw(*shape) for name, shape in states.items()}
    return Work(kind, x, lengths, state, seed, np.arange(batch) + 7, dy, dstate, target)


def load(name, spec, params, dtype="float32", device="cpu"):
    return impls.get(name).load(spec, params, Placement(device, dtype))


def run(session, given):
    """Results of one call."""
    prepared = session.prepare(given)
    prepared()
    prepared.wait()
    return prepared.result()


def distance(given, expected):
    """Relative Frobenius distance."""
    scale = np.linalg.norm(expected)
    off = np.linalg.norm(np.asarray(given, dtype=np.float64) - expected)
    return off / scale if scale else off


def check_against_oracle(name, spec, dtype="float32", device="cpu", params=None, **changes):
    """Every result of one work, its keys, shapes and dtypes included."""
    params = parameters(spec, dtype) if params is None else params
    given = work(spec, dtype=dtype, **changes)
    session = load(name, spec, params, dtype, device)
    result = run(session, given)
    expected = reference.run(spec, params, given)
    if given.kind == "train_step":
        result |= {f"param.{key}": value for key, value in session.export().items()}
    assert set(result) == set(expected)
    wide = np.float64 if dtype == "float64" else np.float32
    for key, value in expected.items():
        assert result[key].shape == value.shape, key
        assert result[key].dtype == (np.int64 if key == "state.t0" else wide), key
        assert distance(result[key], value) <= TOLERANCE[dtype], key
