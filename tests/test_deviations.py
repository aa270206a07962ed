"""Failures, and whatever differs from the registered plan, are told."""

import json
from dataclasses import replace

import pytest

from harness.ablation import accuracy
from harness.analysis import deviations
from tests.judging import arm, reference, rows_of, study_of
from tests.recorded.ablation import write_ablation


def test_what_differs_from_the_plan_is_listed(tmp_path):
    stopped = {("mqar", "f", 3): ("interrupted", "stopped")}
    folder = write_ablation(tmp_path / "run", mishaps=stopped)
    rows = [json.loads(line) for line in (folder / "ablation.jsonl").read_text().splitlines()]
    rows = [row for row in rows if (row["task"], row["arm"]) != ("counting", "k4")]
    rows[0]["plan_hash"] = "another"
    next(row for row in rows if row["role"] == "tune")["seed"] = 4
    (folder / "ablation.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    told = " ".join(deviations.deviations(accuracy.load(folder)))
    expected = ["before this plan was registered, under another", "counting: no run of k4"]
    expected += ["mqar: 1 of 10 seeds (interrupted) of f", "Seeds 4 tuned the learning rate"]
    assert [words for words in expected if words not in told] == []


def study_with(planned, *groups):
    return study_of(*groups, planned={"plan_hash": "abc", "registered": planned})


def test_trainings_from_before_the_plan_are_counted_though_it_adopted_them():
    old = [row | {"trained_under": "older"} for row in reference()]
    told = deviations.deviations(study_with({"seeds": 10}, old))[0]
    assert told == "10 of 10 trainings were made before this plan was registered, under older."


def test_the_plans_of_a_folder_and_what_was_made_under_each_are_told():
    plans = [{"plan_hash": "older", "registered_at": "2026-11-01T00:00:00+00:00"},
             {"plan_hash": "abc", "registered_at": "2026-11-02T00:00:00+00:00"}]  # fmt: skip
    old = {"trained_under": "older", "started_at": "2026-11-01T10:00:00+00:00"}
    late = {"plan_hash": "older", "started_at": "2026-11-03T10:00:00+00:00"}
    rows = reference(seeds=3, **old) + arm("k4", 0.0, 2, **late)
    study = study_of(rows, planned={"plan_hash": "abc", "plans": plans, "registered": {"seeds": 3}})
    several, before, after = deviations.deviations(study)[:3]
    assert several.startswith("2 plans were registered in this folder; the page is of the last")
    assert before == "3 of 5 trainings were made before this plan was registered, under older."
    assert after == "2 of 5 trainings were made after this plan was registered, under older."


def test_what_rows_lack_or_mix_is_a_deviation_whatever_the_manifest_says():
    arms = [{"name": "fo", "contrast": "reference"},
            {"name": "k4", "contrast": "primary", "budgets": ["as_is", "params"]}]  # fmt: skip
    planned = {"seeds": 10, "tuning_seeds": 2, "arms": arms, "tasks": [{"name": "counting"}]}
    changed = [row | {"stale_key": "new"} for row in arm("k4", 0.1)]
    tuned = [row | {"role": "tune", "seed": 1000} for row in reference()[:1]]
    rows = reference(seeds=8, stale_key="old"), changed, tuned
    told = " ".join(deviations.deviations(study_with(planned, *rows)))
    expected = ["counting: 2 of 10 seeds of fo", "no run in budget mode params of k4"]
    expected += ["Code or machine changed between final runs that are compared: counting ("]
    expected += ["Fewer than 2 tuning seeds chose the learning rate of counting fo"]
    assert [words for words in expected if words not in told] == []


@pytest.mark.parametrize(("seeds", "few"), [(6, False), (5, True), (2, True)])
def test_a_runoff_with_one_rate_alone_chose_on_too_few_seeds(seeds, few):
    def tuned(rate, number):
        return [row | {"role": "tune", "seed": 1000 + row["seed"], "learning_rate": rate}
                for row in reference(seeds=number)]  # fmt: skip

    planned = {"seeds": 10, "tuning_seeds": 2, "runoff_seeds": 4, "tasks": [{"name": "counting"}],
               "arms": [{"name": "fo", "contrast": "reference"}]}  # fmt: skip
    study = study_with(planned, reference(), tuned(1e-3, 2), tuned(4e-3, seeds), tuned(8e-3, 6))
    told = " ".join(deviations.deviations(study))
    assert ("Fewer than 6 tuning seeds chose the learning rate of counting fo" in told) == few


def test_a_failed_tuning_run_counts_in_the_choice_and_a_divergence_is_told_in_words():
    wild = [row | {"steps_done": 7 + row["seed"], "role": "tune", "seed": 1000 + row["seed"]}
            for row in rows_of("ifo", ["diverged"] * 2, budget_mode="params")]  # fmt: skip
    study = study_of(reference(), wild)
    curves = {row["row_key"]: {"loss": [2.8, 14.0 + row["seed"] - 1000]} for row in wild}
    (told,) = deviations.failures(replace(study, curves=curves))
    assert told["counts as"] == "chance in the choice of the rate"
    assert told["arms"] == "ifo (params)"
    rule = "the validation loss rose above 3 times its first value"
    assert told["reason"] == f"{rule} (step 7 to 8 and loss 14 to 15)"
