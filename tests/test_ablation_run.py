"""The engine trains what it planned, a row for each training whatever happens, nothing twice."""

import json
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness import config, report
from harness.ablation import accuracy, after_timing, slots
from harness.analysis import deviations, outcomes
from harness.cli import main
from tests.ablating import K1, ablate, rows, use_fakes, written

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="stops workers by Linux signals")


@pytest.fixture(autouse=True)
def _fakes(monkeypatch):
    use_fakes(monkeypatch)
    monkeypatch.setattr(report, "lacking", lambda: "a test that is in no hurry")


def test_every_arm_and_seed_has_a_row_and_a_second_call_trains_nothing(tmp_path, capsys):
    file, out = written(tmp_path, workers=2), tmp_path / "run"
    assert ablate(file, out) == 0
    found = rows(out)
    assert {(r["arm"], r["seed"]) for r in found} == {(a, s) for a in ("k2", "k1") for s in (0, 1)}
    assert {row["status"] for row in found} == {"ok"}
    assert len(rows(out, "curves")) == len(found)
    assert {row["row_key"] for row in rows(out, "curves")} == {row["row_key"] for row in found}
    assert not list((out / "checkpoints").glob("*")) if (out / "checkpoints").exists() else True
    assert "plan" in capsys.readouterr().out
    assert ablate(file, out) == 0
    assert rows(out) == found
    assert "nothing was left to train" in capsys.readouterr().err
    study = accuracy.load(out)
    assert set(study.arms) == {"k2", "k1"}
    assert {row["row_key"] for row in study.rows} == set(study.curves)
    assert deviations.deviations(study) == deviations.failures(study) == []
    data = {(row["arm"], row["seed"]): row["data_sha256"] for row in found}
    assert data["k1", 0] == data["k2", 0] != data["k1", 1], "data follow the seed, not the arm"


FATES = """
[[changes]]
name = "nan"
layers = 3
[[changes]]
name = "abort"
layers = 4
[[changes]]
name = "hang"
layers = 5
[[changes]]
name = "memory"
layers = 6
[[changes]]
name = "diverge"
layers = 7
"""


def test_each_way_to_fail_is_a_row_and_the_others_go_on(tmp_path, capsys):
    file, out = written(tmp_path, changes=FATES, timeout="3s"), tmp_path / "run"
    assert ablate(file, out, "--seeds", "1") == 1
    found = {row["arm"]: row for row in rows(out)}
    assert {arm: row["status"] for arm, row in found.items()} == {
        "k2": "ok", "nan": "nonfinite", "abort": "crash", "hang": "timeout",
        "memory": "oom_host", "diverge": "diverged",
    }  # fmt: skip
    assert found["abort"]["error_type"] == "SIGABRT"
    assert "last words of the fake" in found["abort"]["error_msg"]
    assert found["diverge"]["stop_reason"] == found["nan"]["stop_reason"] == "diverged"
    assert all(row["metric"] is None for arm, row in found.items() if arm != "k2")
    assert found["diverge"]["steps_done"] < found["k2"]["steps_done"]
    assert ablate(file, out, "--seeds", "1") == 0, "a failure stands"
    assert len(rows(out)) == 6
    assert ablate(file, out, "--seeds", "1", "--retry", "crash") == 1
    assert [(row["arm"], row["attempt"]) for row in rows(out)[6:]] == [("abort", 2)]
    assert {row["attempt"] for row in rows(out)[:6]} == {1}


GRID = "tuning_seeds = 2\nrunoff_seeds = 1\nlearning_rates = [2e-3, 8e-3, 3.2e-2]"
K4 = '[[changes]]\nname = "k4"\nkernel_width = 4\n'


def test_rates_are_tuned_on_seeds_and_data_of_their_own_and_an_edge_is_flagged(tmp_path):
    file, out = written(tmp_path, changes=K4, more=GRID, steps=30), tmp_path / "run"
    assert ablate(file, out) == 0
    found = rows(out)
    tuned = [row for row in found if row["role"] == "tune"]
    final = [row for row in found if row["role"] == "final"]
    assert not {row["seed"] for row in tuned} & {row["seed"] for row in final}
    assert all(row["metric"] is None for row in tuned), "tuning has looked at the test set"
    assert {(r["learning_rate"], r["lr_edge"]) for r in final if r["arm"] == "k2"} == {
        (8e-3, False)
    }
    assert {(r["learning_rate"], r["lr_edge"]) for r in final if r["arm"] == "k4"} == {
        (0.128, True)
    }
    tried = {row["learning_rate"] for row in tuned if row["arm"] == "k4"}
    assert tried == {2e-3, 8e-3, 3.2e-2, 0.128}, "a grid grows once, by one rate"
    seeds = Counter(row["learning_rate"] for row in tuned if row["arm"] == "k4")
    assert sorted(seeds.values()) == [2, 2, 3, 3], "the best two meet once more"
    assert seeds[0.128] == 3


def test_what_the_time_does_not_hold_has_a_row_that_says_so_and_is_trained_later(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("FAKE_STEP_S", "0.05")
    file, out = written(tmp_path, more='limit = "6s"', steps=400), tmp_path / "run"
    assert ablate(file, out) == 0
    assert {row["status"] for row in rows(out)} == {"skipped"}
    assert {row["attempt"] for row in rows(out)} <= {0, 1}, "at most one was begun"
    assert len(rows(out)) == 4
    monkeypatch.setenv("FAKE_STEP_S", "0")
    assert ablate(written(tmp_path, steps=400), out) == 0
    assert [row["status"] for row in rows(out)[4:]] == ["ok"] * 4


def test_training_again_that_is_cut_off_keeps_the_old_results(tmp_path, monkeypatch):
    out = tmp_path / "run"
    assert ablate(written(tmp_path, steps=400), out, "--seeds", "1") == 0
    before = accuracy.load(out).rows
    assert {row["status"] for row in before} == {"ok"}
    monkeypatch.setenv("FAKE_STEP_S", "0.05")
    short = written(tmp_path, more='limit = "4s"', steps=400)
    for words in (["--again"], ["--retry", "ok"]):
        assert ablate(short, out, "--seeds", "1", *words) == 0
    rows_now = {row["row_key"]: row for row in accuracy.load(out).rows}
    assert {row["row_key"]: row for row in before} == rows_now
    told = [row["status"] for row in rows(out)]
    assert told.count("ok") == 2
    assert ablate(written(tmp_path, steps=400), out, "--seeds", "1") == 0
    assert [row["status"] for row in rows(out)] == told, "a result that stands was trained again"


def test_a_worker_that_fails_before_it_trains_is_no_score_of_the_arm(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        absent = SimpleNamespace(requires=("no_such_module_anywhere",))
        patch.setattr(slots, "impls", SimpleNamespace(get=lambda name: absent))
        out = tmp_path / "run"
        assert ablate(written(tmp_path), out) == 1
    first = rows(out)
    assert [row["status"] for row in first] == ["missing"] * 4
    assert "no_such_module_anywhere" in first[0]["error_msg"]
    study = accuracy.load(out)
    found = outcomes.arms(study, outcomes.subjects(study)[0])
    assert all(arm.scores == {} for arm in found.values()), "counted as chance"
    assert ablate(written(tmp_path), out) == 0
    assert [row["status"] for row in rows(out)[4:]] == ["ok"] * 4


def test_a_run_that_was_not_reached_under_a_new_plan_hides_no_result_of_the_old_one(tmp_path):
    out = tmp_path / "run"
    assert ablate(written(tmp_path), out, "--seeds", "1") == 0
    with (out / "ablation.jsonl").open("a") as file:
        for row in rows(out):
            later = {"row_key": row["row_key"][::-1], "status": "skipped", "metric": None}
            file.write(json.dumps({**row, **later, "plan_hash": "of another plan"}) + "\n")
    assert [row["status"] for row in accuracy.load(out).rows] == ["ok", "ok"]


@pytest.mark.slow
def test_a_row_of_another_plan_stands_where_the_training_is_the_same(tmp_path):
    out, wider = tmp_path / "run", tmp_path / "wider"
    wider.mkdir()
    assert ablate(written(tmp_path), out) == 0
    before = rows(out)
    both = written(wider, changes=K1 + K4)
    assert ablate(both, out) == 0
    later = rows(out)[len(before) :]
    adopted = [row for row in later if row["trained_under"]]
    assert {row["row_key"] for row in adopted} == {row["row_key"] for row in before}
    assert {row["arm"] for row in later if not row["trained_under"]} == {"k4"}
    manifest = json.loads((out / "manifest.json").read_text())
    assert {row["plan_hash"] for row in later} == {manifest["ablation"]["plan_hash"]}
    study = accuracy.load(out)
    assert {row["arm"] for row in study.before_plan} == {"k2", "k1"}
    assert len(study.before_plan) == 4
    assert [one["plan_hash"] for one in study.plans] == [
        before[0]["plan_hash"], later[0]["plan_hash"]
    ]  # fmt: skip
    assert ablate(written(tmp_path), out) == 0, "back to the first plan"
    study = accuracy.load(out)
    assert study.plans[0]["plan_hash"] == before[0]["plan_hash"]
    assert len(study.plans) == 2
    assert study.registered_at == study.plans[0]["registered_at"]
    assert {row["arm"] for row in study.foreign} <= {"k4"}
    assert study.before_plan == []


@pytest.mark.slow
def test_equal_seconds_are_as_many_steps_as_were_calibrated_once(tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_STEP_S", "0.01")
    wall = K1 + 'budgets = ["wall"]\n'
    file, out = written(tmp_path, changes=wall, more='seconds = "0.5s"'), tmp_path / "run"
    assert ablate(file, out, "--seeds", "1") == 0
    found = {(row["arm"], row["budget_mode"]): row for row in rows(out)}
    assert set(found) == {("k2", "as_is"), ("k2", "wall"), ("k1", "wall")}
    known = json.loads((out / "manifest.json").read_text())["calibration"]["fake_net"]
    for row in found.values():
        if row["budget_mode"] == "wall":
            label = f"selective_copy {row['arm']} (wall)"
            assert row["steps"] == row["steps_done"] == round(0.5 / known[label]["step_s"]) < 50
    assert found["k1", "wall"]["contrast"] == "secondary"
    assert ablate(file, out, "--seeds", "1") == 0
    assert len(rows(out)) == 3, "it was calibrated again"


def test_a_profile_of_an_unknown_ablation_is_refused_before_anything_is_timed(tmp_path, capsys):
    smoke = Path(config.__file__).parent / "configs" / "smoke.toml"
    mine, out = tmp_path / "mine.toml", tmp_path / "run"
    mine.write_text(smoke.read_text().replace("[profile]", '[profile]\nablation = "qick"', 1))
    assert main(["run", str(mine), "--out", str(out)]) == 2
    assert "did you mean 'quick'" in capsys.readouterr().err
    assert not out.exists()


def test_a_speed_profile_trains_its_ablation_in_its_own_folder_by_what_is_there(
    tmp_path, monkeypatch
):
    asked = []
    monkeypatch.setattr(after_timing, "ablate", lambda *words, **more: asked.append((words, more)))
    after_timing.train("default", tmp_path, repair=False)
    after_timing.train("smoke", tmp_path, repair=False)
    absent = {"torch_native": "no compiler"}
    monkeypatch.setattr(after_timing.impls, "missing", lambda card: absent.get(card.name))
    after_timing.train("default", tmp_path, repair=True)
    more = {"repair": False, "profile": "default", "run": "default"}
    assert asked == [
        (("quick", "torch_native", tmp_path), more),
        (("quick", "torch_eager", tmp_path), more | {"repair": True}),
    ]
    monkeypatch.setattr(after_timing.impls, "missing", lambda card: "nothing is there")
    assert after_timing.train("default", tmp_path, repair=False) == 0
    assert len(asked) == 2
