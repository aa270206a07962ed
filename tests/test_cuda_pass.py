"""The pass on a CUDA device with fakes in its place: order, modes, a hard end, a bare checkout."""

import json
import os
import statistics
import subprocess
import sys
import time

import pytest

from harness import device_tests, equivalence, proofs, store
from harness.config import load_profile
from harness.errors import UsageError
from harness.machine import telemetry
from harness.progress import Progress
from harness.speed import clock
from harness.speed.arm import Limits
from harness.speed.coordinator import run_speed
from harness.speed.grid import PROTOCOL_VERSION, Contender, points
from harness.speed.plan import Plan
from harness.store import RunFolder
from impls.contract import Placement
from tests.absent import BLOCKER, TOP, command_without
from tests.measuring import FAKES, point, profile, sitting, use_fakes

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="stops workers by Linux signals")

LACKING = ("papermill", "nbconvert", "ipykernel", "nox", "psutil", "torch", "jax")
"""Not pydantic, which newer releases of typer import themselves; nothing here does."""
SMI = """#!/bin/sh
case "$1" in
  *clocks.sm*) echo "1980, 300.5, 50, 0x0000000000000005";;
  *) echo "A GPU, 80000 MiB, 580.1, 9.0, Disabled, Enabled, Enabled, 700.00 W, 1980 MHz";;
esac
"""
MINE = """
[profile]
budget = "8m"
overhead = "20s"
device_tests = "4s"
drop = "last"
threads = 1
modes = ["default", "graph"]
baseline = "fake_replay"
contenders = ["fake_good", "fake_replay"]
min_rounds = 7
max_rounds = 30

[[grid]]
kind = "forward"
device = "cuda"
steps = [16, 9, 8, 7, 6, 5, 4, 3, 2, 1]
batch = [8, 4, 2]
input_size = 8
hidden_size = 8
"""


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """Variables of a bare checkout with a GPU by name, where nothing of LACKING is installed."""
    folder = tmp_path_factory.mktemp("bare")
    (folder / "sitecustomize.py").write_text(BLOCKER % (set(LACKING),))
    smi = folder / "nvidia-smi"
    smi.write_text(SMI)
    smi.chmod(0o755)
    return {
        **os.environ,
        "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": f"{folder}{os.pathsep}{FAKES}",
        "COLUMNS": "200",
    }


def command(*words, env, timeout=100):
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "harness", *map(str, words)],
        cwd=TOP, env=env, capture_output=True, text=True, timeout=timeout, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def passed(bare, tmp_path_factory):
    """One whole pass in half a minute: (process, seconds, run folder, its rows)."""
    folder = tmp_path_factory.mktemp("pass")
    (folder / "mine.toml").write_text(MINE)
    start = time.monotonic()
    done = command(
        "run", folder / "mine.toml", "--budget", "28s", "--out", folder / "run", env=bare
    )
    return done, time.monotonic() - start, folder / "run", store.read_rows(folder / "run")[0]


def test_the_pass_ends_in_time_with_rows_and_one_line_instead_of_pages(passed):
    done, seconds, _, rows = passed
    assert done.returncode == 0, done.stderr
    assert seconds < 28
    assert sum(row["status"] == "ok" for row in rows) >= 10
    assert "no pages: rendering needs ipykernel" in done.stdout
    assert "Traceback" not in done.stderr


def test_the_first_points_of_the_file_are_measured_and_the_last_are_skipped(passed, monkeypatch):
    use_fakes(monkeypatch)
    _, _, run, rows = passed
    asked = [(p.batch, p.steps) for p in points(load_profile(str(run.parent / "mine.toml")), 1)]
    measured = [(r["batch"], r["steps"]) for r in rows if r["status"] != "skipped"]
    measured = list(dict.fromkeys(measured))
    skipped = {(r["batch"], r["steps"]) for r in rows if r["status"] == "skipped"}
    assert measured == asked[: len(measured)]
    assert skipped == set(asked[len(measured) :])
    assert 0 < len(measured) < len(asked)


def test_a_replay_is_ranked_against_the_baselines_replay_and_the_rest_beside_it(passed):
    sittings = [row for row in passed[3] if row["status"] == "ok"]
    first = {Contender(r["impl"], r["twin"], r["mode"]).name: r for r in sittings[:5]}
    assert set(first) == {
        "fake_good", "fake_replay", "fake_replay#twin", "fake_replay:graph",
        "fake_replay:graph#twin",
    }  # fmt: skip

    def of(column, name):
        """Its median over all sittings: this machine may be loud for one of them."""
        asked = (Contender(r["impl"], r["twin"], r["mode"]).name == name for r in sittings)
        return statistics.median(r[column] for r, own in zip(sittings, asked, strict=True) if own)

    assert {first[name]["speedup"] for name in ("fake_replay", "fake_replay:graph")} == {1.0}
    assert 2 < of("speedup", "fake_good") < 8, "four times the plain baseline"
    assert 0.5 < of("graph_speedup", "fake_good") < 2, "as fast as the baseline's replay"
    assert 0.125 < of("graph_speedup", "fake_replay") < 0.5
    assert first["fake_replay:graph"]["graph_speedup"] is None
    assert first["fake_replay:graph#twin"]["baseline"] == "fake_replay"


def test_a_sample_is_a_batch_of_calls_and_the_gpu_is_described(passed):
    timed = [row for row in passed[3] if row["status"] == "ok"]
    sample_ns = statistics.median(row["inner"] * row["median_ns"] for row in timed)
    assert sample_ns > 2 * clock.LEAST_SAMPLE_NS["cpu"], "longer than any sample of a CPU"
    row = timed[0]
    assert (row["sm_mhz"], row["power_w"], row["temp_c"], row["throttle"]) == (
        1980,
        300.5,
        50,
        "0x4",
    )


def test_device_tests_are_stopped_in_time_and_said_in_the_manifest(passed):
    done, _, run, _ = passed
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["gpu_tests"]["ended"] in ("out of time", "done")
    assert manifest["gpu_tests"]["seconds"] < 6
    assert (run / "logs" / device_tests.LOG).exists()
    assert "gpu tests: " in done.stderr


def test_without_a_device_one_line_says_so_and_nothing_is_written(tmp_path):
    out = tmp_path / "run"
    done = command_without(LACKING, "run", "cuda", "--out", str(out), PATH="/nowhere")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "nvidia-smi lists none" in done.stderr
    assert not out.exists()


def test_the_packaged_profile_begins_with_the_papers_thirty_cells():
    packaged = load_profile("cuda")
    asked = points(packaged, threads=1)
    paper = {(b, t) for b in (8, 16, 32, 64, 128, 256) for t in (32, 64, 128, 256, 512)}
    assert {(p.kind, p.spec.hidden_size, p.placement) for p in asked[:30]} == {
        ("forward", 320, Placement("cuda", "float32"))
    }
    assert {(p.batch, p.steps) for p in asked[:30]} == paper
    assert (packaged.budget_s, packaged.drop) == (480, "last")
    assert packaged.modes == ("default", "graph")


def test_the_plan_of_the_pass_is_shown_without_any_framework(bare, tmp_path):
    done = command("plan", "cuda", "--out", tmp_path / "none", env=bare)
    assert done.returncode == 0, done.stderr
    assert "forward float32 8 x 512" in done.stdout


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (('device = "cuda"\n', ""), "are for CUDA"),
        (('modes = ["default", "graph"]', 'modes = ["graph"]'), 'add "default"'),
        (('modes = ["default", "graph"]', 'modes = ["default", "grph"]'), "did you mean 'graph'"),
        (('drop = "last"', 'drop = "first"'), "allowed are 'dearest', 'last'"),
    ],
)
def test_a_mistake_in_the_new_keys_is_one_clear_line(tmp_path, monkeypatch, changes, words):
    use_fakes(monkeypatch)
    path = tmp_path / "mine.toml"
    path.write_text(MINE.replace(*changes))
    with pytest.raises(UsageError, match=words):
        load_profile(str(path))


@pytest.mark.parametrize(("name", "status"), [("fake_hang", "timeout"), ("fake_raises", "crash")])
def test_a_contender_that_fails_twice_is_not_waited_for_again(tmp_path, monkeypatch, name, status):
    use_fakes(monkeypatch)
    both = Contender("fake_good"), Contender(name)
    sittings = [sitting(point(steps=n), *both, share_s=0.5) for n in (3, 4, 5)]
    plan = Plan(profile(), sittings, [], 0, 3, 0.0, 0.0)
    limits = Limits(hello_s=60, prepare_s=1, block_s=10)
    with RunFolder.open(tmp_path / "run", "test", PROTOCOL_VERSION) as folder:
        done = run_speed(plan, folder, profile(), Progress(), limits, left_s=60.0)
        found = [(r["impl"], r["status"]) for r in folder.rows]
    assert done.sittings_done == 3
    assert [word for impl, word in found if impl == name] == [status, status, "skipped"]
    assert [word for impl, word in found if impl == "fake_good"] == ["ok"] * 3


def test_checks_that_run_out_of_time_keep_their_rows_and_say_so(tmp_path, monkeypatch):
    use_fakes(monkeypatch)
    from harness.stop import Stop

    with Stop() as stop:
        found = dict(
            equivalence.check_all(
                ["fake_hang", "fake_good"], ["float32"], "cpu", tmp_path, stop, at_once=1, limit_s=2
            )
        )
    for rows in found.values():
        assert (rows[-1]["status"], rows[-1]["message"]) == ("skipped", equivalence.OUT_OF_TIME)
    assert set(found) == {"fake_hang", "fake_good"}


def test_checks_that_were_cut_short_are_made_again_until_they_end():
    def row(dtype, status="passed", key="k"):
        return {"impl": "a", "stale_key": key, "device": "cpu", "dtype": dtype, "status": status}

    def open_after(*rows, keys=None):
        return equivalence.unfinished(keys or {"a": "k"}, ["float32", "bfloat16"], "cpu", rows)

    both = row("float32"), row("bfloat16")
    assert open_after() == open_after(both[0]) == ["a"]
    assert open_after(*both) == []
    assert open_after(*both, row(None, "skipped")) == ["a"], "rows of each dtype, and yet cut"
    assert open_after(*both, row(None, "skipped"), *both) == []
    assert open_after(*both, keys={"a": "new"}) == ["a"]
    assert open_after(*both, row(None, "skipped", key="old")) == []


@pytest.mark.parametrize(("compiles", "limit"), [(True, 300.0), (False, equivalence.LIMIT_S)])
def test_the_checks_of_every_profile_have_a_limit(tmp_path, monkeypatch, compiles, limit):
    use_fakes(monkeypatch)
    given = []

    def check_all(*_, limit_s, **__):
        given.append(limit_s)
        return iter(())

    monkeypatch.setattr(equivalence, "check_all", check_all)
    grid = {"kind": ["forward"], "batch": [2], "steps": [3]}
    used = profile(compile=compiles, overhead_s=300.0, contenders=("fake_good",), grids=(grid,))
    with RunFolder.open(tmp_path / "run", "test", PROTOCOL_VERSION) as folder:
        assert proofs.prove(used, folder, Progress(), 1800.0) is False
    assert given == [limit]


def test_outcomes_are_counted_from_a_log_that_was_cut_off():
    log = """tests/test_a.py::test_one PASSED   [ 10%]
tests/test_a.py::test_two[a b] FAILED   [ 20%]
tests/test_a.py::test_three SKIPPED (no CUDA device)  [ 30%]
ERROR collecting tests/test_b.py
tests/test_a.py::test_fo"""
    found = device_tests.outcomes(log)
    assert (found["passed"], found["failed"], found["error"], found["skipped"]) == (1, 1, 1, 1)
    assert found["failures"] == ["tests/test_a.py::test_two[a b]", "tests/test_b.py"]
    lines = device_tests.words({**found, "seconds": 3.0, "ended": "out of time"})
    assert "1 passed, 1 failed, 1 error, 1 skipped in 3 s, out of time" in lines[0]
    assert len(lines) == 3
    assert device_tests.wrong({**found, "ended": "done"})


def test_every_module_with_a_gpu_test_is_run():
    names = {path.name for path in device_tests.test_files()}
    assert {"test_torch_cupy_device.py", "test_lstm_torch.py", "test_torch_eager.py"} <= names


def test_a_gauge_joins_its_readings_and_leaves_out_harmless_bits():
    readings = iter([telemetry.Reading(1980, 300, 50, 0x1), telemetry.Reading(1200, 700, 70, 0x24)])
    gauge = telemetry.Gauge(lambda: next(readings))
    gauge.look()
    assert gauge.columns() == {}
    gauge.note()
    gauge.note()
    assert gauge.columns() == {
        "sm_mhz": 1590, "sm_mhz_min": 1200, "power_w": 500, "temp_c": 70, "throttle": "0x24"
    }  # fmt: skip
