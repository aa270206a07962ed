"""Names and shapes of parameters, bfloat16 rounding, files, refusals of the contract."""

from dataclasses import replace

import numpy as np
import pytest

from impls import params
from impls.contract import ModelSpec, Placement, SpecError, Work, spec_fields

QRNN = ModelSpec(input_size=3, hidden_size=4, layers=2, kernel_width=3, pooling="ifo")
LSTM = replace(QRNN, family="lstm")


def test_a_qrnn_has_one_weight_and_bias_per_gate_in_fused_order():
    shapes = params.shapes(replace(QRNN, layers=1, bidirectional=True))
    gates = [name.split(".")[3] for name in shapes if name.endswith("weight")]
    assert gates == ["z", "f", "o", "i"] * 2
    assert {s for n, s in shapes.items() if n.endswith("weight")} == {(3, 3, 4)}
    assert {s for n, s in shapes.items() if n.endswith("bias")} == {(4,)}


@pytest.mark.parametrize(
    ("changes", "width"),
    [
        ({}, 4),
        ({"bidirectional": True}, 8),
        ({"dense": True}, 3 + 4),
        ({"dense": True, "bidirectional": True}, 3 + 8),
    ],
)
def test_the_second_layer_sees_the_defined_width(changes, width):
    spec = replace(QRNN, **changes)
    assert params.shapes(spec)["layers.1.fwd.z.weight"] == (3, width, 4)
    assert params.state_shapes(spec, 5)["layers.1.fwd.window"] == (2, 5, width)
    assert params.shapes(replace(spec, family="lstm"))["layers.1.fwd.weight"] == (width, 4, 4)


def test_an_lstm_has_three_arrays_and_two_states_per_layer():
    assert params.shapes(replace(LSTM, layers=1)) == {
        "layers.0.fwd.weight": (3, 4, 4),
        "layers.0.fwd.recurrent": (4, 4, 4),
        "layers.0.fwd.bias": (4, 4),
    }
    names = params.state_shapes(replace(LSTM, layers=1), 5)
    assert names == {"layers.0.fwd.h": (5, 4), "layers.0.fwd.c": (5, 4)}


def test_a_width_of_one_carries_no_window():
    names = params.state_shapes(replace(QRNN, kernel_width=1), 5)
    assert list(names) == ["layers.0.fwd.c", "layers.1.fwd.c"]


def test_the_count_is_the_textbook_number():
    assert params.count(ModelSpec(input_size=640, hidden_size=640, layers=2)) == 2 * (
        3 * (2 * 640 * 640 + 640)
    )
    assert params.count(ModelSpec("lstm", 100, 200)) == 4 * 200 * (100 + 200 + 1)


def test_weights_start_with_variance_one_over_fan_in_and_biases_at_zero():
    spec = ModelSpec(input_size=40, hidden_size=300, kernel_width=5)
    tree = params.init(spec, 1)
    assert tree["layers.0.fwd.f.weight"].var() * 200 == pytest.approx(1.0, rel=0.03)
    assert not tree["layers.0.fwd.f.bias"].any()
    assert {value.dtype for value in tree.values()} == {np.dtype("float32")}
    assert not np.array_equal(tree["layers.0.fwd.f.weight"], tree["layers.0.fwd.z.weight"])
    recurrent = params.init(replace(spec, family="lstm"), 1)["layers.0.fwd.recurrent"]
    assert recurrent.var() * 300 == pytest.approx(1.0, rel=0.03)


def test_another_layer_or_gate_does_not_move_the_others():
    small, large = (
        params.init(replace(QRNN, layers=n, pooling=p), 4) for n, p in ((1, "f"), (3, "ifo"))
    )
    for name, value in small.items():
        np.testing.assert_array_equal(value, large[name])


def test_a_family_without_canonical_parameters_is_refused():
    for ask in (params.shapes, params.count, lambda s: params.state_shapes(s, 1)):
        with pytest.raises(SpecError, match=r"'sru' has no canonical.*qrnn, lstm.*`init`"):
            ask(ModelSpec(family="sru"))


def test_bfloat16_rounds_to_nearest_with_ties_to_even():
    ulp = 2.0**-7  # of 1.0 in bfloat16
    given = 1 + ulp * np.array([0.49, 0.5, 0.51, 1.5, 2.5, -0.25 + 2.0**-9])
    expected = 1 + ulp * np.array([0, 0, 1, 2, 2, 0])
    np.testing.assert_array_equal(params.round_bfloat16(given), expected.astype(np.float32))
    np.testing.assert_array_equal(params.round_bfloat16(-given), -expected.astype(np.float32))


def test_bfloat16_keeps_nan_inf_signed_zero_and_overflows_to_inf():
    bits = np.array([0x7FC00000, 0x7F800001, 0xFFFFFFFF], dtype=np.uint32)
    assert np.isnan(params.round_bfloat16(bits.view(np.float32))).all()
    given = np.array([np.inf, -np.inf, -0.0, np.finfo(np.float32).max], dtype=np.float32)
    out = params.round_bfloat16(given)
    np.testing.assert_array_equal(out, [np.inf, -np.inf, 0.0, np.inf])
    assert np.signbit(out[2])


def test_bfloat16_rounding_equals_torch():
    torch = pytest.importorskip("torch")
    bits = np.random.default_rng(0).integers(0, 2**32, 20_000, dtype=np.uint32)
    given = bits.view(np.float32)
    given = given[~np.isnan(given)]
    expected = torch.from_numpy(given).bfloat16().float().numpy()
    np.testing.assert_array_equal(params.round_bfloat16(given), expected)


def test_as_dtype_gives_what_a_contender_gets():
    given = np.linspace(0, 1, 7)[::2]
    assert params.as_dtype(given, "float64").dtype == np.float64
    assert params.as_dtype(given, "float32").dtype == np.float32
    np.testing.assert_array_equal(params.as_dtype(given, "bfloat16"), params.round_bfloat16(given))


def test_parameters_survive_a_file_and_another_spec_refuses_them(tmp_path):
    pytest.importorskip("safetensors")
    path, tree = tmp_path / "p.safetensors", params.init(QRNN, 2)
    params.save(path, tree)
    back = params.load(path, QRNN)
    assert back.keys() == tree.keys()
    for name, value in tree.items():
        np.testing.assert_array_equal(back[name], value)
    for other in (replace(QRNN, hidden_size=5), replace(QRNN, layers=1), LSTM):
        with pytest.raises(SpecError, match=r"p\.safetensors holds parameters of another spec"):
            params.load(path, other)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"input_size": 0}, "input_size = 0: give a whole number of at least 1"),
        ({"hidden_size": 2.0}, "hidden_size = 2.0: give a whole number"),
        ({"layers": True}, "layers = True: give a whole number"),
        ({"pooling": "of"}, "pooling = 'of': allowed are 'f', 'fo', 'ifo'"),
        ({"zoneout_mode": ""}, "zoneout_mode = '': allowed are 'keep', 'literal'"),
        ({"zoneout_eval": "on"}, "zoneout_eval = 'on': allowed are 'off', 'expectation'"),
        ({"zoneout": 1.0}, r"zoneout = 1.0: give a probability in \[0, 1\)"),
        ({"zoneout": float("nan")}, "zoneout = nan: give a probability"),
        ({"dense": 1}, "dense = 1: give true or false"),
    ],
)
def test_a_spec_that_names_nothing_is_refused(given, message):
    with pytest.raises(SpecError, match=message):
        ModelSpec(**given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"kind": "train"}, "kind = 'train': allowed are 'forward', 'backward'"),
        ({"x": np.ones((4, 2))}, r"x has shape \(4, 2\): give \[T, B, C\]"),
        ({"kind": "step"}, "kind 'step' takes one time step, x has 4"),
        ({"lengths": np.array([4])}, r"give 2 numbers in 1\.\.4"),
        ({"lengths": np.array([4, 5])}, r"give 2 numbers in 1\.\.4"),
        ({"lengths": np.array([0, 4])}, r"give 2 numbers in 1\.\.4"),
        ({"kind": "backward"}, "kind 'backward' needs dy"),
        ({"kind": "train_step"}, "kind 'train_step' needs target"),
        ({"dy": np.ones((4, 3, 5))}, r"dy has shape \(4, 3, 5\): give \[4, 2, ...\]"),
        ({"target": np.ones((3, 2, 5))}, r"target has shape .*: give \[4, 2, ...\]"),
    ],
)
def test_work_that_does_not_fit_is_refused(given, message):
    with pytest.raises(SpecError, match=message):
        Work(**({"kind": "forward", "x": np.ones((4, 2, 3))} | given))


def test_an_unknown_place_is_refused():
    with pytest.raises(SpecError, match="device = 'gpu': allowed are 'cpu', 'cuda'"):
        Placement("gpu")
    with pytest.raises(SpecError, match="dtype = 'float16': allowed are 'float32', "):
        Placement("cpu", "float16")


def test_spec_fields_begin_with_the_family():
    assert spec_fields()[:3] == ("family", "input_size", "hidden_size")
    assert "zoneout_eval" in spec_fields()
