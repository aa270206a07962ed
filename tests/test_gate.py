"""The gate: right work passes, wrong work does not, and a slice says the same as the whole."""

from dataclasses import replace

import numpy as np
import pytest

from harness.speed import gate, slices
from harness.speed.grid import params_of, work_of
from harness.speed.oracle import oracle
from impls import reference
from impls.contract import LEARNING_RATE, ModelSpec, Placement
from tests.measuring import point

DTYPE = "float32"


class OracleRun:
    """The oracle as a Run, its results changed by `change(work, result)`."""

    def __init__(self, session, work):
        self.session, self.work = session, work
        self.out = reference.run(session.spec, session.params, work)

    def __call__(self):
        pass

    def wait(self):
        pass

    def result(self):
        kept = {k: v.astype(np.float32) if v.dtype == float else v for k, v in self.out.items()}
        kept = {k: v for k, v in kept.items() if not k.startswith("param.")}
        return self.session.change(self.work, kept)


class OracleSession:
    def __init__(self, spec, params, change=lambda work, out: out, new=None):
        self.spec, self.params, self.change, self.new = spec, params, change, new

    def prepare(self, work):
        return OracleRun(self, work)

    def export(self):
        return self.new


def setting(kind="backward", batch=20, ragged=True, family="qrnn"):
    spec = ModelSpec(family=family, input_size=4, hidden_size=5, layers=2, kernel_width=3)
    at = point(kind=kind, spec=spec, placement=Placement(), batch=batch, steps=7, ragged=ragged)
    return spec, params_of(spec, at, 3), work_of(at, spec, 3)


def check(tmp_path, change=lambda work, out: out, limit=0, kind="backward", new=None):
    spec, params, work = setting(kind)
    session = OracleSession(spec, params, change, new)
    return gate.check(session, session.prepare(work), spec, params, work, DTYPE, tmp_path, limit)


def altered(key, scale=1.01, where=None):
    def change(work, out):
        value = out[key].copy()
        value[() if where is None else where] *= scale
        return out | {key: value}

    return change


@pytest.mark.parametrize("family", ["qrnn", "lstm"])
def test_the_oracle_of_a_slice_equals_the_slice_of_the_whole(family):
    spec, params, work = setting(family=family)
    rows = slices.chosen(work, spec, limit=0)
    assert list(rows) == [0, 3, 5, 8, 11, 14, 16, 19]
    part = reference.run(spec, params, slices.take(work, rows))
    muted = reference.run(spec, params, slices.mute(work, rows))
    assert set(part) == set(muted)
    for key, error, _ in gate.compare(muted, part, rows, "float64"):
        assert error <= 1e-13, key
    assert all(error == 0 for _, error, _ in gate.outside_zero(muted, rows))


def test_a_slice_keeps_the_rows_of_the_zoneout_mask():
    spec, params, work = setting()
    spec = replace(spec, zoneout=0.4)
    work = replace(work, seed=11)
    rows = slices.chosen(work, spec, limit=0)
    part = reference.run(spec, params, slices.take(work, rows))
    assert gate.distance(reference.run(spec, params, work)["y"][:, rows], part["y"]) == 0


def test_right_work_passes_sliced_and_whole(tmp_path):
    sliced, rows = check(tmp_path, limit=0)
    whole, all_rows = check(tmp_path, limit=10**9)
    assert (sliced.sequences, whole.sequences, len(rows), len(all_rows)) == (8, 20, 8, 20)
    assert 0 < sliced.error < 2e-7
    assert 0 < whole.error < 2e-7


@pytest.mark.parametrize("limit", [0, 10**9], ids=["slice", "whole"])
@pytest.mark.parametrize(
    "key", ["y", "grad.x", "grad.layers.1.fwd.f.weight", "grad.layers.0.fwd.z.bias",
            "state.layers.0.fwd.window", "grad.state.layers.1.fwd.c"]
)  # fmt: skip
def test_each_wrong_result_is_named(tmp_path, key, limit):
    with pytest.raises(gate.GateError) as caught:
        check(tmp_path, altered(key), limit)
    assert caught.value.status == "mismatch"
    assert caught.value.details["gate_worst"] == key
    assert caught.value.details["gate_error"] == pytest.approx(0.01, rel=1e-2)
    assert key in str(caught.value)


def test_a_gradient_that_leaks_out_of_the_slice_is_caught(tmp_path):
    def leak(work, out):
        value = out["grad.x"].copy()
        value[:, 1] += 1e-20
        return out | {"grad.x": value}

    with pytest.raises(gate.GateError, match=r"grad\.x \(other sequences\)"):
        check(tmp_path, leak)


def test_a_missing_result_and_a_wrong_counter_are_mismatches(tmp_path):
    def without(work, out):
        return {key: value for key, value in out.items() if key != "state.layers.0.fwd.c"}

    with pytest.raises(gate.GateError, match="absent"):
        check(tmp_path, without)
    with pytest.raises(gate.GateError, match=r"state\.t0"):
        check(tmp_path, lambda work, out: out | {"state.t0": out["state.t0"] + 1})


def test_not_finite_has_a_status_of_its_own(tmp_path):
    with pytest.raises(gate.GateError) as caught:
        check(tmp_path, altered("y", np.inf, where=(0, 1, 0)))
    assert caught.value.status == "nonfinite"


def trained(params, spec, work, scale=1.0):
    out = reference.run(spec, params, work)
    step = {name: out[f"param.{name}"] - value for name, value in params.items()}
    return {name: (value + scale * step[name]).astype(np.float32) for name, value in params.items()}


def test_a_train_step_is_judged_by_its_update_not_by_its_parameters(tmp_path):
    spec, params, work = setting("train_step")
    good = trained(params, spec, work)
    found, rows = check(tmp_path, kind="train_step", new=good)
    assert found.error < 2e-6
    assert len(rows) == 20
    for wrong in (dict(params), trained(params, spec, work, 2.0), trained(params, spec, work, -1)):
        with pytest.raises(gate.GateError, match="update"):
            check(tmp_path, kind="train_step", new=wrong)
    gradient = (reference.run(spec, params, work)["param.layers.1.fwd.z.bias"]
                - params["layers.1.fwd.z.bias"]) / LEARNING_RATE  # fmt: skip
    assert np.linalg.norm(gradient) > 1e-3, "the update would be too small to judge"


def test_the_oracle_is_computed_once_and_then_read(tmp_path, monkeypatch):
    check(tmp_path)
    monkeypatch.setattr(reference, "run", None)
    spec, params, work = setting()
    rows = slices.chosen(work, spec, 0)
    again = oracle(spec, params, slices.take(work, rows), tmp_path)
    assert again["y"].dtype == np.float64
    with pytest.raises(TypeError):
        oracle(replace(spec, zoneout=0.1), params, work, tmp_path)


def test_a_result_that_changes_while_it_is_timed_is_a_mismatch(tmp_path):
    spec, params, work = setting()
    session = OracleSession(spec, params)
    run = session.prepare(work)
    _, rows = gate.check(session, run, spec, params, work, DTYPE, tmp_path)
    kept = gate.keep(run, rows)
    gate.unchanged(run, kept, rows, DTYPE)
    session.change = altered("grad.x", 1.1)
    with pytest.raises(gate.GateError, match="while it was timed"):
        gate.unchanged(run, kept, rows, DTYPE)


class MeanSession:
    """A family without an oracle; `leak` lets sequences see the batch."""

    def __init__(self, leak=0.0):
        self.leak, self.count = leak, 0

    def prepare(self, work):
        return MeanRun(self, work)


class MeanRun(OracleRun):
    def __init__(self, session, work):
        self.session, self.work = session, work

    def result(self):
        x = self.work.x.astype(np.float64)
        return {"y": np.cumsum(x + self.session.leak * x.mean(axis=1, keepdims=True), axis=0)}


@pytest.mark.parametrize("batch", [1, 2, 6])
def test_a_family_without_oracle_must_not_see_its_neighbours(batch):
    _, _, work = setting("forward", batch, ragged=False)
    good, bad = MeanSession(), MeanSession(1e-3)
    found, _ = gate.check_foreign(good, good.prepare(work), work, DTYPE)
    assert found.worst == "no oracle: batch independence"
    with pytest.raises(gate.GateError, match="in another batch"):
        gate.check_foreign(bad, bad.prepare(work), work, DTYPE)
