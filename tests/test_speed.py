"""A sitting: every failure is a row, the others go on, the order is random and recorded."""

import gzip
import json
import os
import random
import signal
import statistics
import sys

import pytest

from harness.speed import coordinator
from harness.speed import rows as rows_module
from harness.speed.arm import Limits
from harness.speed.grid import Contender, cell_id
from tests.measuring import by_name, point, profile, run, sitting, use_fakes

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="stops workers by Linux signals")

STATUS = {
    "fake_good": "ok",
    "fake_good#twin": "ok",
    "fake_slow": "ok",
    "fake_family": "ok",
    "fake_abort": "crash",
    "fake_abort_later": "crash",
    "fake_raises": "crash",
    "fake_hang": "timeout",
    "fake_memory": "oom_host",
    "fake_nan": "nonfinite",
    "fake_wrong": "mismatch",
    "fake_drift": "mismatch",
    "fake_mixer": "mismatch",
    "fake_refuses": "unsupported",
    "fake_absent": "missing",
}
HELD = [name for name, status in STATUS.items() if status != "missing"]


def contender(name):
    return Contender(name.partition("#")[0], name.endswith("#twin"))


@pytest.fixture(scope="module")
def patch():
    with pytest.MonkeyPatch.context() as context:
        use_fakes(context)
        yield context


@pytest.fixture(scope="module")
def crowd(tmp_path_factory, patch):
    """One sitting with everybody, well-behaved or not: (folder, outcome, rows by name)."""
    path = tmp_path_factory.mktemp("crowd")
    absent = [(Contender("fake_absent"), "missing", "framework_of_nowhere not installed")]
    one = sitting(point(), *map(contender, HELD), absent=absent, share_s=6.0)
    limits = Limits(hello_s=60, prepare_s=4, block_s=20)
    outcome, rows = run(path, profile(), [one], limits)
    return path, outcome, by_name(rows)


@pytest.mark.parametrize("name", STATUS)
def test_each_ending_is_a_row_with_its_status(crowd, name):
    row = crowd[2][name]
    assert row["status"] == STATUS[name]
    assert row["status"] == "ok" or row["reason"]
    assert (row["median_ns"] is not None) == (row["status"] == "ok"), "no time is shown otherwise"


def test_every_row_has_every_column_and_no_nan(crowd):
    path, _, rows = crowd
    assert len(rows) == len(STATUS)
    for line in (path / "cells.jsonl").read_text().splitlines():
        row = json.loads(line, parse_constant=lambda word: pytest.fail(f"{word} in a row"))
        assert set(row) >= set(rows_module.COLUMNS)
        assert row["sitting_id"] == rows["fake_good"]["sitting_id"]
        assert row["attempt"] == 1


def test_reasons_say_what_happened(crowd):
    rows = crowd[2]
    assert "only on Sundays" in rows["fake_refuses"]["reason"]
    assert "no answer within" in rows["fake_hang"]["reason"]
    assert "while it was timed" in rows["fake_drift"]["reason"]
    assert rows["fake_raises"]["error_type"] == "ValueError"
    assert len(rows["fake_raises"]["reason"]) == 500
    assert rows["fake_abort_later"]["error_type"] == "SIGABRT"
    assert rows["fake_wrong"]["gate_error"] == pytest.approx(1e-3)
    assert rows["fake_family"]["gate_worst"] == "no oracle: batch independence"


def test_twice_the_work_takes_twice_the_time(crowd):
    row, base = crowd[2]["fake_slow"], crowd[2]["fake_good"]
    assert row["baseline"] == "fake_good"
    assert 0.42 < base["cpu_min_ns"] / row["cpu_min_ns"] < 0.58
    assert row["speedup_lo"] <= row["speedup"] <= row["speedup_hi"]
    on_time = row["speedup_lo"] < 0.58 and row["speedup_hi"] > 0.42
    assert row["noisy"] or on_time, "only a loud host may say otherwise, and it says so"
    assert row["verdict"] in ("SLOWER", None, "AMBIGUOUS"), "never FASTER or SAME"
    control_is_one = row["control_lo"] <= 1.0 <= row["control_hi"]
    certain = row["speedup_hi"] < 1 / 1.03 and control_is_one
    assert row["verdict"] == ("SLOWER" if certain else "AMBIGUOUS") or row["noisy"]


def test_the_control_is_the_twin_of_the_baseline(crowd):
    rows = crowd[2]
    twin = rows["fake_good#twin"]
    assert twin["baseline"] == "fake_good"
    assert twin["speedup"] == twin["control"] == rows["fake_slow"]["control"]
    assert 0.8 < rows["fake_good"]["cpu_min_ns"] / twin["cpu_min_ns"] < 1.25
    assert rows["fake_good"]["speedup"] == 1.0


def test_short_calls_are_repeated_within_a_sample(crowd):
    row = crowd[2]["fake_good"]
    assert row["rounds"] >= 7
    assert row["n"] == row["rounds"] * round(row["n"] / row["rounds"])
    assert row["min_ns"] <= row["q1_ns"] <= row["median_ns"] <= row["q3_ns"]
    assert row["warmup_n"] >= 6


def turns_of(path):
    with gzip.open(path / "samples.jsonl.gz", "rt") as file:
        return [json.loads(line) for line in file]


def test_failed_arms_leave_no_samples(crowd):
    path, _, rows = crowd
    ids = {row["cell_id"]: name for name, row in rows.items()}
    sampled = {ids[turn["cell_id"]] for turn in turns_of(path)}
    assert sampled == {name for name, row in rows.items() if row["status"] == "ok"}


def test_samples_agree_with_the_row(crowd):
    path, _, rows = crowd
    row = rows["fake_slow"]
    turns = [turn for turn in turns_of(path) if turn["cell_id"] == row["cell_id"]]
    key = "cpu_ns" if row["clock"] == "cpu" else "wall_ns"
    samples = [ns for turn in turns for ns in turn[key]]
    assert len(samples) == row["n"]
    assert statistics.median(samples) == pytest.approx(row["median_ns"])


def test_a_second_sitting_keeps_the_workers_and_counts_the_attempt(tmp_path, patch):
    seen = []
    pool_arms = coordinator.Pool.arms

    def arms(self, contenders, threads):
        found = pool_arms(self, contenders, threads)
        seen.append({arm.contender: arm.worker.pid for arm in found})
        return found

    with pytest.MonkeyPatch.context() as context:
        context.setattr(coordinator.Pool, "arms", arms)
        pair = Contender("fake_good"), Contender("fake_abort")
        sittings = [sitting(point(), *pair, share_s=0.2)] * 2
        outcome, rows = run(tmp_path, profile(max_rounds=3), sittings)
    assert outcome.sittings_done == 2
    assert seen[0][pair[0]] == seen[1][pair[0]], "a healthy worker stays"
    assert seen[0][pair[1]] != seen[1][pair[1]], "a crashed one is replaced"
    assert [row["attempt"] for row in rows] == [1, 1, 2, 2]
    assert rows[0]["reason"] is None, "three rounds are all that the profile asks for"


@pytest.fixture(scope="module")
def family(tmp_path_factory, patch):
    """One sitting where every contender has a twin: (folder, rows by name)."""
    path = tmp_path_factory.mktemp("family")
    names = [Contender(n, twin) for n in ("fake_good", "fake_slow") for twin in (False, True)]
    one = sitting(point(), *names, share_s=1.0)
    _, rows = run(path, profile(twins="all", max_rounds=12), [one])
    return path, by_name(rows)


def test_the_recorded_order_is_random_and_follows_from_its_seed(family):
    path, rows = family
    ids = {row["cell_id"]: name for name, row in rows.items()}
    order = {}
    for turn in turns_of(path):
        order.setdefault(turn["round"], {})[turn["place"]] = ids[turn["cell_id"]]
        assert len(turn["wall_ns"]) == len(turn["cpu_ns"])
        assert len(turn["burn_ns"]) == turn["burn"] == 1
    rng = random.Random(rows["fake_good"]["order_seed"])
    for number in sorted(order):
        expected = list(rows)
        rng.shuffle(expected)
        assert order[number] == dict(enumerate(expected))
    assert len({tuple(sorted(one.items())) for one in order.values()}) > 1


def test_with_twins_for_all_each_twin_is_compared_with_its_original(family):
    found = family[1]
    assert found["fake_slow#twin"]["baseline"] == "fake_slow"
    pair = found["fake_slow"], found["fake_slow#twin"]
    assert 0.8 < pair[0]["cpu_min_ns"] / pair[1]["cpu_min_ns"] < 1.25
    assert found["fake_slow#twin"]["control"] == found["fake_slow#twin"]["speedup"]
    assert found["fake_slow"]["control"] == found["fake_good#twin"]["speedup"]


def test_without_a_baseline_there_is_a_time_but_no_ratio(tmp_path, patch):
    one = sitting(point(), Contender("fake_good"), share_s=0.2)
    _, (row,) = run(tmp_path, profile(baseline="auto", max_rounds=3), [one])
    assert row["status"] == "ok"
    assert row["median_ns"] > 0
    assert row["speedup"] is row["verdict"] is row["baseline"] is None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_block_and_leaves_no_half_sitting(tmp_path, patch, number):
    workers, asked, original = [], [], coordinator.sample
    before = signal.getsignal(signal.SIGINT)  # ignored in a shell's background job

    def interrupted_sample(arms, *rest):
        workers.extend(arm.worker for arm in arms)
        if arms[0].columns["tokens"] == 24:
            return original(arms, *rest)
        os.kill(os.getpid(), number)
        for arm in arms:
            ask = arm.worker.ask
            arm.worker.ask = lambda *a, ask=ask, **k: (asked.append(a), ask(*a, **k))[1]
        return original(arms, *rest)

    pair = Contender("fake_good"), Contender("fake_good", True)
    sittings = [sitting(point(), *pair, share_s=0.3), sitting(point(batch=5), *pair, share_s=0.3)]
    with pytest.MonkeyPatch.context() as context:
        context.setattr(coordinator, "sample", interrupted_sample)
        outcome, rows = run(tmp_path, profile(max_rounds=5), sittings)
    assert outcome.interrupted
    assert outcome.sittings_done == 1
    assert asked == [("block",)], "the block that ran was finished, no other begun"
    assert {row["point_id"] for row in rows} == {point().point_id}
    assert len(rows) == len((tmp_path / "cells.jsonl").read_text().splitlines()) == 2
    assert not any(worker.alive for worker in workers)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_signal_while_a_contender_is_prepared_stops_at_once(tmp_path, patch):
    class Interrupts:
        def start(self, total):
            pass

        def sitting(self, *words):
            os.kill(os.getpid(), signal.SIGINT)

        def note(self, text):
            self.text = text

    progress = Interrupts()
    one = sitting(point(), Contender("fake_hang"))
    outcome, rows = run(tmp_path, profile(), [one], Limits(prepare_s=300), progress)
    assert outcome.interrupted
    assert rows == []
    assert "interrupted" in progress.text


def test_cells_of_twins_and_originals_have_ids_of_their_own():
    assert cell_id(point(), Contender("a")) != cell_id(point(), Contender("a", True))
