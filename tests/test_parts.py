"""Parts of a layer: asked for by a profile, proved before they are timed, compared with no LSTM."""

from dataclasses import replace

import numpy as np
import pytest

import impls
from harness.config import load_profile
from harness.errors import UsageError
from harness.floors import Ceilings
from harness.speed import arm, gate, parts
from harness.speed.forecast import Forecast
from harness.speed.grid import Contender, params_of, work_of
from harness.speed.plan import build
from harness.speed.rows import Scene, rows_of
from impls import parts as given
from impls.contract import ModelSpec, Placement
from impls.reference import qrnn
from tests.measuring import point, profile
from tests.planning import card, use_cards

SPEC = ModelSpec(input_size=7, hidden_size=37, kernel_width=3)


@pytest.fixture
def cards(monkeypatch):
    return use_cards(monkeypatch)


def setting(kind="backward", dtype="float32", **spec):
    at = point(kind=kind, spec=replace(SPEC, **spec), placement=Placement(dtype=dtype),
               batch=3, steps=35)  # fmt: skip
    return at, params_of(at.spec, at, 3), work_of(at, at.spec, 3)


class Exact:
    """A part computed in float64, one of its results changed."""

    def __init__(self, part, spec, params, work, key=None, scale=1.0):
        taps, weight = given.taps(spec, work.x), given.weight(spec, params)
        sums, dsums = given.gate_sums(spec, work.x), given.gate_sums(spec, work.dy)
        if part == "gemm":
            flat = dsums.reshape(len(taps), -1)
            steps = len(work.x)
            self.out = {
                "y": (taps @ weight).reshape(steps, -1, weight.shape[1]),
                "grad.x": (flat @ weight.T).reshape(steps, -1, weight.shape[0]),
                "grad.weight": taps.T @ flat,
            }
        else:
            summed = sums.astype(float) + given.bias(spec, params)
            zero = np.zeros((sums.shape[1], spec.hidden_size))
            saved = qrnn.pool(spec, summed, zero, np.full(len(zero), len(sums)))
            by_sums, by_c = qrnn.pool_backward(spec, saved, work.dy.astype(float), zero)
            self.out = {"y": qrnn.output(saved), "state.c": saved.states[-1], "grad.x": by_sums}
            self.out |= {"grad.c": by_c, "grad.bias": by_sums.sum(axis=(0, 1))}
        if key is not None:
            self.out[key] = self.out[key] * scale

    def result(self):
        return self.out


@pytest.mark.parametrize("part", ["gemm", "pooling"])
def test_a_right_part_passes_and_any_wrong_result_of_it_does_not(part):
    at, params, work = setting()
    right = Exact(part, at.spec, params, work)
    found, rows = parts.check(part, right, at.spec, params, work, "float32")
    assert found.error < 1e-6
    assert list(rows) == [0, 1, 2]
    for key in right.out:
        wrong = Exact(part, at.spec, params, work, key, 1 + 1e-5)
        with pytest.raises(gate.GateError, match=f"{key} differs from float64 NumPy"):
            parts.check(part, wrong, at.spec, params, work, "float32")
        absent = Exact(part, at.spec, params, work)
        del absent.out[key]
        with pytest.raises(gate.GateError, match=key):
            parts.check(part, absent, at.spec, params, work, "float32")


def test_one_wrong_row_of_a_large_product_is_seen():
    at, params, work = setting()
    run = Exact("gemm", at.spec, params, work)
    run.out["y"][17, 1] *= 1.01
    with pytest.raises(gate.GateError, match="y differs"):
        parts.check("gemm", run, at.spec, params, work, "float32")


def test_gates_are_given_different_numbers():
    x = setting()[2].x
    sums = np.split(given.gate_sums(SPEC, x), 3, axis=-1)
    assert not np.array_equal(sums[0], sums[1])
    assert set(np.unique(sums[2])) == set(np.unique(x))


def test_the_taps_times_the_weight_are_the_gate_sums_of_the_oracle():
    at, params, work = setting()
    weights = {name.removeprefix("layers.0.fwd."): v for name, v in params.items()}
    line = np.concatenate([np.zeros((2, 3, 7)), work.x])
    sums = qrnn._convolution(at.spec, weights, line) - given.bias(at.spec, params)
    ours = given.taps(at.spec, work.x) @ given.weight(at.spec, params)
    np.testing.assert_allclose(ours.reshape(sums.shape), sums, atol=1e-5)


@pytest.mark.parametrize("part", ["gemm", "pooling"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
@pytest.mark.parametrize("pooling", ["f", "fo", "ifo"])
def test_the_parts_of_torch_native_are_right(part, dtype, pooling):
    pytest.importorskip("torch")
    found = impls.get("torch_native")
    if reason := impls.missing(found):
        pytest.skip(reason)
    for kind in ("forward", "backward"):
        at, params, work = setting(kind, dtype, pooling=pooling)
        run = found.parts[part](at.spec, params, at.placement, work)
        for _ in range(2):  # a second call starts from the same state
            run()
            run.wait()
            parts.check(part, run, at.spec, params, work, dtype)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"spec": replace(SPEC, layers=2)}, "one layer in one direction"),
        ({"spec": replace(SPEC, bidirectional=True)}, "one layer in one direction"),
        ({"spec": replace(SPEC, zoneout=0.1)}, "full sequences without zoneout"),
        ({"ragged": True}, "full sequences without zoneout"),
        ({"kind": "train_step"}, "not 'train_step'"),
    ],
)
def test_where_a_part_has_no_meaning_it_is_unsupported(cards, changes, words):
    cards["fast"] = replace(card("fast"), parts={"gemm": None})
    grid = {"kind": ["forward"], "batch": [1], "steps": [4]}
    assert parts.hindrance(point()) is None
    assert words in parts.hindrance(point(**changes))
    used = profile(parts=("gemm", "pooling"), baseline="auto", overhead_s=1.0)
    plain = build(replace(used, grids=(grid,)), [], Ceilings.nominal()).sittings[0]
    assert [one.name for one in plain.contenders] == [
        "fast", "fast:gemm", "lstm_jax", "plain", "lstm_jax#twin",
    ]  # fmt: skip
    deep = build(replace(used, grids=({**grid, "layers": [2]},)), [], Ceilings.nominal())
    (absent,) = deep.sittings[0].absent
    assert (absent[0].name, absent[1]) == ("fast:gemm", "unsupported")


def test_a_profile_asks_for_parts_by_name(tmp_path):
    assert load_profile("floor").parts == ("gemm", "pooling")
    assert load_profile("default").parts == ()
    text = '[profile]\nbudget = "9s"\nparts = ["gem"]\n[[grid]]\nkind = "forward"\n'
    (tmp_path / "mine.toml").write_text(text + "batch = 1\nsteps = 1\n")
    with pytest.raises(UsageError, match=r"parts = 'gem': .* did you mean 'gemm'"):
        load_profile(str(tmp_path / "mine.toml"))


def timed(contender, ns):
    made = arm.Arm(contender, None)
    made.wall = made.cpu = [[ns + n] for n in range(8)]
    made.columns = {"tokens": 24}
    return made


def test_a_part_has_a_time_and_no_ratio_to_the_lstm_and_is_never_the_baseline():
    names = [
        Contender("lstm_torch"),
        Contender("torch_native"),
        Contender("torch_native", mode="gemm"),
        Contender("torch_native", mode="pooling"),
    ]
    arms = [timed(name, 4000 - 1000 * at) for at, name in enumerate(names)]
    scene = Scene(point(), {}, {}, {}, Ceilings.nominal(), "auto", 1, 99.0)
    lstm, layer, gemm, pooling = rows_of(arms, [], scene)
    assert (lstm["baseline"], layer["baseline"]) == ("lstm_torch", "lstm_torch")
    assert layer["speedup"] == pytest.approx(4 / 3, rel=1e-2)
    for row in (gemm, pooling):
        assert row["median_ns"] > 0
        assert row["speedup"] is row["verdict"] is row["baseline"] is row["x_of_floor"] is None
    assert gemm["tflops"] > 0
    assert pooling["tflops"] is None
    spec, moved = point().spec, point().batch * point().steps * 4
    moved *= (3 + 1) * spec.hidden_size  # fo: three gate sums in, y out
    assert pooling["gbps"] == pytest.approx(moved / pooling["median_ns"])
    assert gemm["gbps"] is None
    assert arm.choose_baseline(arms, "torch_native").contender == names[1]


def test_the_time_of_a_part_does_not_predict_that_of_its_layer(cards):
    at, forecast = point(), None
    row = {**at.fields(), "family": "qrnn", "impl": "fast", "status": "ok", "prepare_s": 0.1}
    whole, part = row | {"median_ns": 9e9}, row | {"mode": "gemm", "median_ns": 2e9}
    forecast = Forecast([whole, part], Ceilings.nominal())
    assert forecast.call_s(Contender("fast"), "qrnn", at) == 9.0
    assert forecast.call_s(Contender("fast", mode="gemm"), "qrnn", at) == 2.0
