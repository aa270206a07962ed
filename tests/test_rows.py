"""Rows from known samples: ratios, verdicts, which clock ranks, rates and floors."""

from dataclasses import replace

import numpy as np
import pytest

from harness.floors import Ceilings
from harness.speed import rows
from harness.speed.arm import Arm, choose_baseline
from harness.speed.grid import Contender
from tests.measuring import by_name, point, use_fakes

QUIET, LOUD = 0.5, 9.0


@pytest.fixture(autouse=True)
def _fakes(monkeypatch):
    use_fakes(monkeypatch)


def arm(name, call_ns, seed, noise=0.004, cpu_noise=0.002):
    """30 rounds of 4 samples around `call_ns`."""
    rng = np.random.default_rng(seed)

    def times(spread):
        return (call_ns * np.exp(spread * rng.standard_normal((30, 4)))).tolist()

    out = Arm(Contender(name.partition("#")[0], "#" in name), None)
    out.columns = {"tokens": 24, "parameters": 7, "gate_error": 1e-7}
    out.warm, out.wall, out.cpu = [call_ns], times(noise), times(cpu_noise)
    return out


def scene(load=QUIET, ceilings=None, **changes):
    return rows.Scene(
        point=point(**changes),
        fixed={"load_before": load, "load_after": load, "run_id": "r"},
        stale_keys={"fake_good": "key"},
        attempts={},
        ceilings=ceilings,
        baseline="fake_good",
        seed=1,
        load=3.0,
    )


def arms(noise=0.004, cpu_noise=0.002, slow=2e6):
    return [
        arm("fake_good", 1e6, 5, noise, cpu_noise),
        arm("fake_slow", slow, 15, noise, cpu_noise),
        arm("fake_good#twin", 1e6, 25, noise, cpu_noise),
    ]


def found(where, **noise):
    return by_name(rows.rows_of(arms(**noise), [], where))


def test_on_a_quiet_host_wall_time_ranks_and_the_verdict_is_certain():
    got = found(scene())
    row = got["fake_slow"]
    assert (row["clock"], row["noisy"], row["verdict"]) == ("wall", False, "SLOWER")
    assert row["speedup"] == pytest.approx(0.5, rel=0.005)
    assert row["speedup_lo"] < row["speedup"] < row["speedup_hi"]
    assert row["speedup_hi"] - row["speedup_lo"] < 0.01
    assert row["control_lo"] < 1 < row["control_hi"]
    assert got["fake_good"]["stale_key"] == "key"
    assert (row["n"], row["rounds"]) == (120, 30)


def test_equal_arms_are_the_same():
    assert found(scene(), slow=1.002e6)["fake_slow"]["verdict"] == "SAME"


def test_on_a_loud_host_one_thread_ranks_by_cpu_time():
    row = found(scene(LOUD))["fake_slow"]
    assert (row["clock"], row["noisy"], row["verdict"]) == ("cpu", False, "SLOWER")
    assert row["median_ns"] == row["cpu_median_ns"]


def test_a_control_that_spreads_falls_back_to_cpu_time_too():
    assert found(scene(), noise=0.4)["fake_slow"]["clock"] == "cpu"


@pytest.mark.parametrize("changes", [{"threads": 2}, {}], ids=["many threads", "cpu time loud too"])
def test_a_loud_cell_without_a_fallback_is_noisy_and_gets_no_verdict(changes):
    row = found(scene(LOUD, **changes), cpu_noise=0.4)["fake_slow"]
    assert (row["clock"], row["noisy"], row["verdict"]) == ("wall", True, None)
    assert row["speedup"] == pytest.approx(0.5, rel=0.01), "the number stays"


def test_without_a_twin_no_difference_is_claimed():
    row = by_name(rows.rows_of(arms()[:2], [], scene()))["fake_slow"]
    assert row["control"] is None
    assert row["verdict"] not in ("FASTER", "SLOWER")


def test_the_automatic_baseline_is_the_faster_lstm_that_is_still_there():
    three = [arm("lstm_torch", 3e6, 1), arm("lstm_jax", 2e6, 2), arm("fake_good", 1e6, 3)]
    assert choose_baseline(three, "auto") is three[1]
    three[1].status = "mismatch"
    assert choose_baseline(three, "auto") is three[0]
    assert choose_baseline(three, "fake_good") is three[2]
    three[0].status = "crash"
    assert choose_baseline(three, "auto") is None


def test_rates_and_floors_follow_from_the_median():
    ceilings = replace(Ceilings.nominal(), gemm_flops={"float32": 1e9})
    row = found(scene(ceilings=ceilings))["fake_good"]
    seconds = row["median_ns"] * 1e-9
    assert row["tokens_per_s"] == pytest.approx(24 / seconds)
    assert row["tflops"] == pytest.approx(row["flops"] / seconds / 1e12)
    assert row["gbps"] == pytest.approx(row["bytes"] / seconds / 1e9)
    assert row["x_of_floor"] == pytest.approx(seconds / row["floor_s"])
    assert row["floor_s"] <= row["staged_floor_s"]
    assert found(scene())["fake_good"]["floor_s"] is None
    bf16 = replace(point().placement, dtype="bfloat16")
    assert found(scene(ceilings=ceilings, placement=bf16))["fake_good"]["floor_s"] is None


def test_one_round_gives_a_value_and_an_open_interval_as_null():
    few = arms()
    for one in few:
        one.wall, one.cpu, one.wanted = one.wall[:1], one.cpu[:1], 7
    row = by_name(rows.rows_of(few, [], scene()))["fake_slow"]
    assert row["speedup"] == pytest.approx(0.5, rel=0.02)
    assert row["speedup_hi"] is None
    assert row["reason"] == "1 of 7 rounds: its time was spent"
