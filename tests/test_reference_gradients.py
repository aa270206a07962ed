"""The oracle's hand-derived gradients: against central differences and against torch autograd."""

from dataclasses import replace

import numpy as np
import pytest

from impls import params
from impls.contract import LEARNING_RATE, ModelSpec, Work
from impls.reference import run
from tests.test_reference import tree, work

BASE = ModelSpec(input_size=2, hidden_size=3, kernel_width=3, pooling="ifo", zoneout=0.4)


def objective(spec, weights, given):
    """The number whose gradients `dy` and `dstate` describe."""
    out = run(spec, weights, replace(given, kind="forward"))
    valid = np.arange(len(given.x))[:, None, None] < (
        len(given.x) if given.lengths is None else given.lengths[:, None]
    )
    total = np.sum(np.where(valid, given.dy, 0.0) * out["y"])
    return total + sum(np.sum(d * out[f"state.{name}"]) for name, d in given.dstate.items())


def moved(spec, weights, given, name, shift):
    """Weights and work with one named array moved by `shift`."""
    if name == "x":
        return weights, replace(given, x=given.x + shift)
    if name.startswith("state."):
        name = name.removeprefix("state.")
        start = given.state.get(name, 0.0)
        return weights, replace(given, state=dict(given.state) | {name: start + shift})
    return weights | {name: weights[name] + shift}, given


def central(value, spec, weights, given, name, direction, step=1e-5):
    """Directional derivative, correct to step**4."""
    at = {
        k: value(spec, *moved(spec, weights, given, name, k * step * direction))
        for k in (-2, -1, 1, 2)
    }
    return (8 * (at[1] - at[-1]) - (at[2] - at[-2])) / (12 * step)


def gradient_names(spec, batch):
    states = [f"state.{name}" for name in params.state_shapes(spec, batch)]
    return ["x", *params.shapes(spec), *states]


def assert_gradients(spec, given, seed=3):
    """Every gradient against differences along a random direction (all entries take part)."""
    weights, rng = tree(spec), np.random.default_rng(seed)
    out = run(spec, weights, given)
    names = gradient_names(spec, given.x.shape[1])
    assert {f"grad.{name}" for name in names} == {n for n in out if n.startswith("grad.")}
    for name in names:
        grad = out[f"grad.{name}"]
        direction = rng.standard_normal(grad.shape)
        expected = central(objective, spec, weights, given, name, direction)
        assert np.sum(grad * direction) == pytest.approx(expected, rel=1e-8, abs=1e-9), name


@pytest.mark.parametrize("pooling", ["f", "fo", "ifo"])
@pytest.mark.parametrize("mode", ["keep", "literal"])
@pytest.mark.parametrize("lengths", [None, (5, 2, 1)])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("dense", [False, True])
def test_qrnn_gradients_are_central_differences(pooling, mode, lengths, bidirectional, dense):
    spec = replace(
        BASE,
        pooling=pooling,
        zoneout_mode=mode,
        bidirectional=bidirectional,
        dense=dense,
        layers=2,
    )
    assert_gradients(spec, work(spec, lengths=lengths))


@pytest.mark.parametrize("pooling", ["f", "fo", "ifo"])
@pytest.mark.parametrize("mode", ["keep", "literal"])
@pytest.mark.parametrize("policy", ["off", "expectation"])
def test_gradients_at_evaluation_are_central_differences(pooling, mode, policy):
    spec = replace(BASE, pooling=pooling, zoneout_mode=mode, zoneout_eval=policy)
    assert_gradients(spec, work(spec, seed=None))


@pytest.mark.parametrize("width", [1, 2, 7])
@pytest.mark.parametrize("lengths", [None, (4, 2, 1)])
def test_gradients_hold_for_kernels_wider_than_the_sequence_and_of_one_tap(width, lengths):
    spec = replace(BASE, kernel_width=width, layers=2, bidirectional=True)
    assert_gradients(spec, work(spec, steps=4, lengths=lengths))


@pytest.mark.parametrize("lengths", [None, (5, 2, 1)])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("dense", [False, True])
def test_lstm_gradients_are_central_differences(lengths, bidirectional, dense):
    spec = replace(BASE, family="lstm", bidirectional=bidirectional, dense=dense, layers=3)
    assert_gradients(spec, work(spec, lengths=lengths))


@pytest.mark.parametrize("lengths", [None, (5, 2, 1)])
@pytest.mark.parametrize("width", [1, 2, 3])
@pytest.mark.parametrize("dilated", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("dense", [False, True])
def test_conv_gradients_are_central_differences(lengths, width, dilated, bidirectional, dense):
    spec = replace(BASE, family="conv", kernel_width=width, dilated=dilated, layers=3)
    spec = replace(spec, bidirectional=bidirectional, dense=dense)
    assert_gradients(spec, work(spec, lengths=lengths))


@pytest.mark.parametrize("lengths", [None, (5, 2, 1)])
@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("input_size", [8, 3])
@pytest.mark.parametrize("dense", [False, True])
def test_attention_gradients_are_central_differences(lengths, heads, input_size, dense):
    spec = ModelSpec("attention", input_size, 8, layers=2, heads=heads, dense=dense)
    assert_gradients(spec, work(spec, lengths=lengths))


@pytest.mark.parametrize("family", ["qrnn", "lstm"])
def test_an_absent_state_is_zero_and_has_gradients_too(family):
    spec = replace(BASE, family=family)
    given = replace(work(spec), state={}, dstate={})
    assert_gradients(spec, given)
    zeros = {name: np.zeros(shape) for name, shape in params.state_shapes(spec, 3).items()}
    explicit = run(spec, tree(spec), replace(given, state=zeros, dstate=zeros))
    for name, value in run(spec, tree(spec), given).items():
        np.testing.assert_array_equal(value, explicit[name])


@pytest.mark.parametrize("family", ["qrnn", "lstm", "conv", "attention"])
def test_every_single_entry_has_its_own_derivative(family):
    spec = replace(BASE, family=family, kernel_width=2, hidden_size=2, heads=1)
    given, weights = work(spec, steps=3, batch=2, lengths=(3, 1)), tree(spec)
    out = run(spec, weights, given)
    for name in gradient_names(spec, 2):
        grad = out[f"grad.{name}"]
        for at in np.ndindex(grad.shape):
            unit = np.zeros(grad.shape)
            unit[at] = 1.0
            expected = central(objective, spec, weights, given, name, unit)
            assert grad[at] == pytest.approx(expected, rel=1e-8, abs=1e-9), (name, at)


def test_the_gradient_of_the_window_goes_to_x_and_past_a_short_sequence_to_the_old_window():
    spec = ModelSpec(input_size=2, hidden_size=1, kernel_width=3)
    name, dwindow = "layers.0.fwd.window", np.arange(1.0, 9.0).reshape(2, 2, 2)
    given = Work(
        "backward",
        np.ones((4, 2, 2)),
        lengths=np.array([3, 1]),
        dy=np.zeros((4, 2, 1)),
        dstate={name: dwindow},
    )
    out = run(spec, tree(spec), given)
    expected_x, expected_old = np.zeros((4, 2, 2)), np.zeros((2, 2, 2))
    expected_x[1:3, 0] = dwindow[:, 0]
    expected_x[0, 1], expected_old[1, 1] = dwindow[1, 1], dwindow[0, 1]
    np.testing.assert_array_equal(out["grad.x"], expected_x)
    np.testing.assert_array_equal(out[f"grad.state.{name}"], expected_old)


def test_no_gradient_reaches_the_gates_of_a_held_unit():
    spec = replace(BASE, zoneout=0.9999999)  # every unit is held: round(p * 65536) = 65536
    given = work(spec)
    given = replace(given, dy=np.zeros_like(given.dy))
    keep, literal = (run(s, tree(s), given) for s in (spec, replace(spec, zoneout_mode="literal")))
    for out in (keep, literal):
        at = "layers.0.fwd"
        np.testing.assert_array_equal(out[f"grad.state.{at}.c"], given.dstate[f"{at}.c"])
        assert not out[f"grad.{at}.f.weight"].any()
    assert not keep["grad.layers.0.fwd.i.weight"].any()
    assert literal["grad.layers.0.fwd.i.weight"].all()


@pytest.mark.parametrize("family", ["qrnn", "lstm"])
@pytest.mark.parametrize("lengths", [None, (5, 2, 1)])
def test_train_step_takes_one_sgd_step_down_its_loss(family, lengths):
    spec = replace(BASE, family=family, layers=2, dense=True, bidirectional=True)
    given, weights, rng = work(spec, "train_step", lengths=lengths), tree(spec), np.random
    valid = np.arange(5)[:, None] < (np.full(3, 5) if lengths is None else np.array(lengths))
    given = replace(
        given, **{n: np.where(valid[..., None], getattr(given, n), np.nan) for n in ("x", "target")}
    )

    def loss(spec, weights, given):
        y = run(spec, weights, replace(given, kind="forward"))["y"]
        return 0.5 * np.mean((y[valid] - given.target[valid]) ** 2)

    out = run(spec, weights, given)
    assert out.keys() == {"loss"} | {f"param.{name}" for name in weights}
    assert out["loss"].shape == ()
    assert out["loss"] == pytest.approx(loss(spec, weights, given), rel=1e-13)
    for name, before in weights.items():
        grad = (before - out[f"param.{name}"]) / LEARNING_RATE
        direction = rng.default_rng(1).standard_normal(grad.shape)
        expected = central(loss, spec, weights, given, name, direction, step=1e-4)
        assert np.sum(grad * direction) == pytest.approx(expected, rel=1e-7, abs=1e-9), name


@pytest.mark.parametrize("lengths", [None, (6, 3, 1)])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_the_lstm_is_torch_nn_lstm(lengths, bidirectional):
    torch = pytest.importorskip("torch")
    spec = replace(BASE, family="lstm", layers=2, bidirectional=bidirectional)
    given, weights = work(spec, steps=6, lengths=lengths), tree(spec)
    expected, names = run(spec, weights, given), [f"layers.{n}" for n in range(2)]
    ats = [f"{n}.{d}" for n in names for d in spec.directions]

    net = torch.nn.LSTM(2, 3, num_layers=2, bidirectional=bidirectional, dtype=torch.float64)
    suffixes = [f"l{n}{d}" for n in range(2) for d in ("", "_reverse")[: len(spec.directions)]]
    for at, suffix in zip(ats, suffixes, strict=True):
        for ours, theirs in (("weight", "weight_ih"), ("recurrent", "weight_hh")):
            value = torch.from_numpy(weights[f"{at}.{ours}"]).reshape(-1, 12).T
            getattr(net, f"{theirs}_{suffix}").data.copy_(value)
        getattr(net, f"bias_ih_{suffix}").data.copy_(
            torch.from_numpy(weights[f"{at}.bias"]).reshape(-1)
        )
        getattr(net, f"bias_hh_{suffix}").data.zero_()

    def stacked(arrays, state):
        return torch.tensor(np.stack([arrays[f"{at}.{state}"] for at in ats]), requires_grad=True)

    x, h, c = torch.tensor(given.x, requires_grad=True), *(stacked(given.state, n) for n in "hc")
    pack = torch.nn.utils.rnn
    fed = x if lengths is None else pack.pack_padded_sequence(x, torch.tensor(lengths))
    y, (last_h, last_c) = net(fed, (h, c))
    if lengths is not None:
        y = pack.pad_packed_sequence(y)[0]
    loss = (y * torch.from_numpy(given.dy)).sum()
    loss = loss + sum(
        (last * stacked(given.dstate, n)).sum() for last, n in ((last_h, "h"), (last_c, "c"))
    )
    loss.backward()
    found = {"y": y, "grad.x": x.grad}
    for k, (at, suffix) in enumerate(zip(ats, suffixes, strict=True)):
        found |= {f"state.{at}.h": last_h[k], f"state.{at}.c": last_c[k]}
        found |= {f"grad.state.{at}.h": h.grad[k], f"grad.state.{at}.c": c.grad[k]}
        for ours, theirs in (("weight", "weight_ih"), ("recurrent", "weight_hh")):
            grad = getattr(net, f"{theirs}_{suffix}").grad.T
            found[f"grad.{at}.{ours}"] = grad.reshape(-1, 4, 3)
        found[f"grad.{at}.bias"] = getattr(net, f"bias_ih_{suffix}").grad.reshape(4, 3)
    assert found.keys() == expected.keys()
    for name, value in found.items():
        np.testing.assert_allclose(
            value.detach().numpy(), expected[name], rtol=1e-12, atol=1e-13, err_msg=name
        )
