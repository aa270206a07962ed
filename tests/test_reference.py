"""The oracle's values: against hand-worked numbers, a scalar version, and what must be equal."""

import math
from dataclasses import replace

import numpy as np
import pytest

from impls import params
from impls.contract import ModelSpec, SpecError, Work
from impls.reference import has_oracle, hold_mask, run

SMALL = ModelSpec(input_size=3, hidden_size=4, kernel_width=3, zoneout=0.4)
DEEP = replace(SMALL, layers=2, bidirectional=True, dense=True)


def tree(spec, seed=0):
    """Parameters with biases that are not zero."""
    rng = np.random.default_rng(seed)
    return {name: 0.7 * rng.standard_normal(shape) for name, shape in params.shapes(spec).items()}


def work(spec, kind="backward", steps=5, batch=3, lengths=(5, 2, 1), seed=11, **changes):
    """Random work in which everything that can be given is given."""
    rng = np.random.default_rng(steps + batch)
    names = params.state_shapes(spec, batch)
    given = {
        "kind": kind,
        "x": rng.standard_normal((steps, batch, spec.input_size)),
        "lengths": None if lengths is None else np.array(lengths),
        "state": {name: rng.standard_normal(shape) for name, shape in names.items()},
        "seed": seed,
        "dy": rng.standard_normal((steps, batch, spec.output_size)),
        "dstate": {name: rng.standard_normal(shape) for name, shape in names.items()},
        "target": rng.standard_normal((steps, batch, spec.output_size)),
    }
    return Work(**(given | changes))


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name in found:
        np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=1e-13, err_msg=name)


def sigmoid(a):
    return 1 / (1 + math.exp(-a))


def scalar_qrnn(spec, weights, xs, window, c, held):
    """impls/README.md, one sequence in processing order, one number at a time."""
    seen, c, outputs, p = [*window, *xs], list(c), [], spec.zoneout
    for t in range(len(xs)):
        taps, row = seen[t : t + spec.kernel_width], []
        for h in range(spec.hidden_size):
            a = {}
            for gate in spec.gates:
                w = weights[f"layers.0.fwd.{gate}.weight"]
                a[gate] = weights[f"layers.0.fwd.{gate}.bias"][h] + sum(
                    x * w[j, n, h] for j, inputs in enumerate(taps) for n, x in enumerate(inputs)
                )
            z, f = math.tanh(a["z"]), sigmoid(a["f"])
            i = sigmoid(a["i"]) if "i" in a else None
            if held is None and spec.zoneout_eval == "expectation":
                f = p + (1 - p) * f
                if i is not None and spec.zoneout_mode == "keep":
                    i = (1 - p) * i
            if held is not None and held[t, h]:
                f = 1.0
                if i is not None and spec.zoneout_mode == "keep":
                    i = 0.0
            c[h] = f * c[h] + ((1 - f) if i is None else i) * z
            row.append(sigmoid(a["o"]) * c[h] if "o" in a else c[h])
        outputs.append(row)
    return np.array(outputs), np.array(c), np.array(seen[len(xs) :])


@pytest.mark.parametrize("pooling", ["f", "fo", "ifo"])
@pytest.mark.parametrize("mode", ["keep", "literal"])
@pytest.mark.parametrize("policy", ["training", "off", "expectation"])
def test_a_layer_is_the_scalar_formula(pooling, mode, policy):
    expectation = "off" if policy == "training" else policy
    spec = replace(SMALL, pooling=pooling, zoneout_mode=mode, zoneout_eval=expectation)
    given = work(
        spec, "forward", seed=11 if policy == "training" else None, rows=np.array([2, 9, 0])
    )
    out, weights = run(spec, tree(spec), given), tree(spec)
    mask = hold_mask(spec, 11, given.rows, 0, 5, 0, "fwd")
    assert mask.any()
    assert not mask.all()
    for b, length in enumerate(given.lengths):
        y, c, window = scalar_qrnn(
            spec,
            weights,
            given.x[:length, b],
            given.state["layers.0.fwd.window"][:, b],
            given.state["layers.0.fwd.c"][b],
            mask[:, b] if policy == "training" else None,
        )
        np.testing.assert_allclose(out["y"][:length, b], y, atol=1e-14)
        np.testing.assert_allclose(out["state.layers.0.fwd.c"][b], c, atol=1e-14)
        np.testing.assert_array_equal(out["state.layers.0.fwd.window"][:, b], window)
        assert not out["y"][length:, b].any()


@pytest.mark.parametrize(
    ("pooling", "c", "y"),
    [  # f = 3/4, z = 3/5, o = 1/4, i = 1/2, c_0 = 1: by hand
        ("f", [9 / 10, 33 / 40], [9 / 10, 33 / 40]),
        ("fo", [9 / 10, 33 / 40], [9 / 40, 33 / 160]),
        ("ifo", [21 / 20, 87 / 80], [21 / 80, 87 / 320]),
    ],
)
def test_two_steps_worked_by_hand(pooling, c, y):
    spec = ModelSpec(input_size=1, hidden_size=1, kernel_width=1, pooling=pooling)
    bias = {"z": math.atanh(3 / 5), "f": math.log(3), "o": -math.log(3), "i": 0.0}
    weights = {name: np.zeros(shape) for name, shape in params.shapes(spec).items()}
    for gate in spec.gates:
        weights[f"layers.0.fwd.{gate}.bias"][:] = bias[gate]
    given = Work("forward", np.ones((2, 1, 1)), state={"layers.0.fwd.c": np.ones((1, 1))})
    out = run(spec, weights, given)
    np.testing.assert_allclose(out["y"][:, 0, 0], y, rtol=1e-14)
    np.testing.assert_allclose(out["state.layers.0.fwd.c"], [[c[-1]]], rtol=1e-14)


def test_the_last_tap_meets_the_current_step_and_nothing_sees_the_future():
    spec = ModelSpec(input_size=1, hidden_size=1, kernel_width=3, pooling="f")
    weights = {name: np.zeros(shape) for name, shape in params.shapes(spec).items()}
    weights["layers.0.fwd.z.weight"][:, 0, 0] = [0.1, 0.2, 0.4]
    weights["layers.0.fwd.f.bias"][:] = -800.0  # f = 0: h_t = z_t, without overflow
    x = np.zeros((5, 1, 1))
    x[1] = 1.0
    out = run(spec, weights, Work("forward", x))
    expected = [0, math.tanh(0.4), math.tanh(0.2), math.tanh(0.1), 0]
    np.testing.assert_allclose(out["y"][:, 0, 0], expected, atol=1e-15)


@pytest.mark.parametrize("pooling", ["f", "fo", "ifo"])
def test_mode_keep_keeps_the_state_and_literal_adds_i_z_in_ifo(pooling):
    keep = replace(SMALL, pooling=pooling)
    literal = replace(keep, zoneout_mode="literal")
    given = work(keep, "step", steps=1, lengths=None)
    held = hold_mask(keep, 11, np.arange(3), 0, 1, 0, "fwd")[0]
    before = given.state["layers.0.fwd.c"]
    after = {
        s.zoneout_mode: run(s, tree(s), given)["state.layers.0.fwd.c"] for s in (keep, literal)
    }
    assert held.any()
    np.testing.assert_array_equal(after["keep"][held], before[held])
    np.testing.assert_array_equal(after["keep"][~held], after["literal"][~held])
    if pooling == "ifo":
        assert np.all(after["literal"][held] != before[held])  # by i*z; the formula is above
    else:
        np.testing.assert_array_equal(after["literal"], after["keep"])


def test_zoneout_zero_needs_no_mask_and_evaluation_draws_none():
    given = work(SMALL, "forward")
    plain = replace(SMALL, zoneout=0.0)
    quiet = run(SMALL, tree(SMALL), replace(given, seed=None))
    assert_same(quiet, run(plain, tree(plain), given))
    assert np.abs(quiet["y"] - run(SMALL, tree(SMALL), given)["y"]).max() > 0.01


def test_float32_and_float64_inputs_both_give_float64():
    given = work(SMALL)
    small = replace(given, x=given.x.astype(np.float32))
    out = run(SMALL, {n: v.astype(np.float32) for n, v in tree(SMALL).items()}, small)
    assert {v.dtype for n, v in out.items() if n != "state.t0"} == {np.dtype("float64")}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": np.ones((5, 3, 2))}, "x has 2 features, the spec has input_size 3"),
        ({"rows": np.arange(2)}, r"rows has shape \(2,\): give \(3,\)"),
        ({"state": {"t0": np.arange(2)}}, r"t0 has shape \(2,\): give \(3,\)"),
        ({"state": {"layers.1.fwd.c": np.ones((3, 4))}}, "state 'layers.1.fwd.c': this spec has"),
        ({"dstate": {"layers.0.fwd.c": np.ones((3, 5))}}, r"dstate .* \(3, 5\): give \(3, 4\)"),
        ({"dy": np.ones((5, 3, 8))}, r"dy has shape \(5, 3, 8\): give \(5, 3, 4\)"),
    ],
)
def test_work_of_another_spec_is_refused(changes, message):
    with pytest.raises(SpecError, match=message):
        run(SMALL, tree(SMALL), replace(work(SMALL), **changes))


def test_parameters_of_another_spec_and_a_step_of_both_directions_are_refused():
    with pytest.raises(SpecError, match=r"parameters lack layers\.0\.fwd\.i\.bias, "):
        run(replace(SMALL, pooling="ifo"), tree(SMALL), work(SMALL))
    with pytest.raises(SpecError, match=r"parameter 'layers\.0\.fwd\.o\.weight'"):
        run(replace(SMALL, pooling="f"), tree(SMALL), work(SMALL))
    with pytest.raises(SpecError, match="'step' is not defined on a bidirectional spec"):
        run(DEEP, tree(DEEP), work(DEEP, "step", steps=1, lengths=None))
    with pytest.raises(SpecError, match="family 'sru'"):
        run(replace(SMALL, family="sru"), {}, work(SMALL))
    assert [has_oracle(family) for family in ("qrnn", "lstm", "sru")] == [True, True, False]
