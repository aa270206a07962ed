"""Verdicts of recorded training runs: every rule on rows made for it."""

import json
import math
from dataclasses import replace

import pytest

from harness import plots
from harness.ablation import accuracy
from harness.ablation.accuracy import Ablation, TaskFacts
from harness.analysis import board, deviations, effects, findings, outcomes
from harness.errors import UsageError
from tests.recorded.ablation import write_ablation

COUNTING = TaskFacts("counting", chance=0.1, target=0.9, good="ifo", bad="f")
WIGGLE = [0.002, -0.001, 0.0, 0.003, -0.002, 0.001, -0.003, 0.002, 0.0, -0.002]


def rows_of(arm, scores, contrast="primary", task="counting", **more):
    """Final rows of an arm; a word among the scores is the status of a run that failed."""
    shared = {"task": task, "arm": arm, "contrast": contrast, "role": "final", "impl": "numpy_made"}
    shared |= {"framework": "torch", "device": "cpu", "dtype": "float32", "budget_mode": "as_is"}
    shared |= {"changes": {}, "plan_hash": "abc", "metric_name": "accuracy", "ms_per_step": 1.0}
    rows = []
    for seed, score in enumerate(scores):
        failed = isinstance(score, str)
        key = f"{task} {arm} {seed} {more.get('budget_mode')} {more.get('impl')}"
        row = {**shared, "seed": seed, "row_key": key, "steps_to_target": 100, **more}
        status = {"status": score if failed else "ok", "metric": None if failed else score}
        rows.append(row | status)
    return rows


def study_of(*groups, tasks=(COUNTING,), planned=None):
    rows = [row for group in groups for row in group]
    return Ablation(rows, tasks={task.name: task for task in tasks}, planned=planned or {})


def reference(level=0.5, seeds=10, **more):
    return rows_of("fo", [level + w for w in WIGGLE[:seeds]], "reference", **more)


def verdicts(study):
    (subject,) = outcomes.subjects(study)
    return {one.label: one for one in effects.contrasts(study, subject)}


def arm(name, gap, seeds=10, **more):
    noise = WIGGLE[::-1]
    return rows_of(name, [0.5 + gap + w for w in noise[:seeds]], **more)


def test_each_verdict_has_its_rule():
    found = verdicts(
        study_of(
            reference(), arm("up", 0.2), arm("down", -0.2), arm("same", 0.0005),
            rows_of("loud", [0.3, 0.8, 0.5, 0.2, 0.9, 0.4, 0.6, 0.7, 0.1, 0.6]),
        )
    )  # fmt: skip
    assert {name: one.verdict for name, one in found.items()} == {
        "up": "better", "down": "worse", "same": "no effect", "loud": "not resolved",
    }  # fmt: skip
    assert found["up"].result.mean == pytest.approx(20.0, abs=0.2)
    assert found["up"].marked
    assert not found["loud"].marked


@pytest.mark.parametrize(("seeds", "verdict"), [(7, "exploratory"), (8, "better")])
def test_a_claim_needs_eight_seeds(seeds, verdict):
    study = study_of(reference(seeds=seeds), arm("up", 0.2, seeds))
    assert verdicts(study)["up"].verdict == verdict


def test_a_family_is_the_primary_contrasts_of_one_task():
    other = replace(COUNTING, name="other")
    arms = [arm(f"a{i}", 0.2) for i in range(6)]
    study = study_of(reference(), *arms, reference(task="other"), arm("a0", 0.2, task="other"),
                     arm("lstm", 0.2, contrast="secondary"), tasks=(COUNTING, other))  # fmt: skip
    (subject,) = outcomes.subjects(study)
    found = {(o.arm.task.name, o.label): o for o in effects.contrasts(study, subject)}
    p = 2 / 2**10
    assert found["counting", "a0"].p_adjusted == pytest.approx(6 * p)
    assert found["counting", "lstm"].p_adjusted == pytest.approx(p)
    assert found["other", "a0"].p_adjusted == pytest.approx(p)


def test_planned_arms_that_are_missing_stay_in_the_family():
    names = [f"a{i}" for i in range(6)]
    arms = [{"name": name, "contrast": "primary"} for name in names]
    planned = {"registered": {"arms": arms, "tasks": [{"name": "counting"}], "seeds": 10}}
    study = study_of(reference(), arm("a0", 0.2), planned=planned)
    assert verdicts(study)["a0"].p_adjusted == pytest.approx(6 * 2 / 2**10)
    told = " ".join(deviations.deviations(study))
    assert "counting: no run of a1, a2, a3, a4 and a5" in told


@pytest.mark.parametrize("status", ["diverged", "crash", "timeout", "nonfinite", "oom_host"])
def test_a_failed_run_counts_as_chance_and_never_reaches_the_target(status):
    scores = [0.7] * 9 + [status]
    study = study_of(reference(), rows_of("up", scores))
    one = verdicts(study)["up"]
    assert one.result.n == 10
    assert one.arm.scores[9] == pytest.approx(10.0)
    assert one.arm.steps_to_target() == [100.0] * 9 + [math.inf]
    assert "1 of 10 runs failed and count as chance" in one.remarks
    (failure,) = deviations.failures(study)
    assert failure["status"] == status
    assert failure["counts as"] == "chance"


def test_a_failure_of_the_reference_counts_alike():
    study = study_of(reference()[:9] + rows_of("fo", ["x"] * 9 + ["crash"], "reference")[9:],
                     arm("up", 0.0))  # fmt: skip
    assert verdicts(study)["up"].reference.scores[9] == pytest.approx(10.0)


def test_a_run_without_an_outcome_is_not_compared():
    study = study_of(reference(), rows_of("up", [0.7] * 8 + ["interrupted", "skipped"]),
                     rows_of("odd", ["unsupported"] * 10))  # fmt: skip
    found = verdicts(study)
    assert found["up"].result.n == 8
    assert found["odd"].verdict == "no result"
    assert found["odd"].remarks == ("unsupported",)
    assert deviations.failures(study)[0]["counts as"] == "no score"


def test_a_task_that_does_not_separate_is_uninformative():
    flat = study_of(reference(), arm("ifo", 0.004), arm("f", 0.0), arm("up", 0.2))
    found = verdicts(flat)
    assert {one.verdict for one in found.values()} == {"uninformative"}
    assert "they do not separate" in found["up"].remarks[0]
    apart = study_of(reference(), arm("ifo", 0.1), arm("f", 0.0))
    assert verdicts(apart)["ifo"].verdict == "better"


def test_two_arms_at_chance_are_uninformative_and_two_at_the_ceiling_are_marked():
    low = study_of(reference(0.1), rows_of("up", [0.105] * 10))
    assert verdicts(low)["up"].verdict == "uninformative"
    high = study_of(reference(0.997), rows_of("up", [0.998] * 10))
    assert verdicts(high)["up"].verdict == "no effect"
    assert "both at the ceiling" in verdicts(high)["up"].remarks


def test_an_error_is_turned_so_that_more_points_are_better():
    adding = TaskFacts("counting", "mse", False, chance=0.16, ceiling=0.0)
    study = study_of(rows_of("fo", [0.08] * 10, "reference"), rows_of("up", [0.04] * 10),
                     tasks=(adding,))  # fmt: skip
    assert verdicts(study)["up"].result.mean == pytest.approx(25.0)
    assert verdicts(study)["up"].verdict == "better"


def test_a_second_budget_mode_is_secondary():
    study = study_of(reference(), arm("up", 0.2), arm("up", 0.1, budget_mode="params"))
    found = verdicts(study)
    assert (found["up"].kind, found["up (params)"].kind) == ("primary", "secondary")


def test_an_lstm_is_its_own_implementation_and_still_compared():
    lstm = {"impl": "lstm_torch", "changes": {"family": "lstm"}, "contrast": "secondary"}
    study = study_of(reference(params=52_000), arm("lstm", -0.2, params=69_000, **lstm))
    assert verdicts(study)["lstm"].verdict == "worse"
    first = findings.verdict(study)[0]
    assert "an LSTM (69 thousand parameters) the reference (52 thousand parameters)" in first
    assert "scores better on counting (+20.0 points)" in first


def test_the_lead_claims_no_speed_from_trainings_that_were_not_interleaved(tmp_path):
    told = findings.verdict(accuracy.load(write_ablation(tmp_path / "run")))
    assert "Beside an LSTM (69 thousand parameters) the QRNN (fo, " in told[0]
    assert ", 52 thousand parameters) scores" in told[0]
    assert [words for words in told if "fast" in words or "per step" in words] == []


def test_a_difference_is_told_before_its_smallness():
    found = verdicts(study_of(reference(), arm("up", 0.006), arm("down", -0.006), arm("same", 0)))
    assert {name: one.verdict for name, one in found.items()} == {
        "up": "better, but by less than 1 point", "down": "worse, but by less than 1 point",
        "same": "no effect",
    }  # fmt: skip
    (told,) = findings.by_task(list(found.values())).values()
    assert "better, but by less than 1 point: up +0.6" in told


def test_no_effect_needs_the_corrected_equivalence():
    """Alone p = 0.02 suffices; among six primary contrasts Holm makes 0.12 of it."""
    noise = [0.012, -0.010, 0.009, -0.013, 0.011, -0.008, 0.010, -0.012, 0.011, -0.009]
    close = rows_of("close", [0.5 + w + n for w, n in zip(WIGGLE, noise, strict=True)])
    assert verdicts(study_of(reference(), close))["close"].verdict == "no effect"
    loud = [rows_of(f"a{i}", [0.3, 0.8, 0.5, 0.2, 0.9, 0.4, 0.6, 0.7, 0.1, 0.6]) for i in range(5)]
    one = verdicts(study_of(reference(), close, *loud))["close"]
    assert one.result.equivalent
    assert one.p_equivalent == pytest.approx(6 * one.result.p_equivalent)
    assert one.verdict == "not resolved"


def again(gap=0.0, **more):
    rows = arm("again", gap, contrast="control", **more)
    return [row | {"seed": row["seed"] + 100, "row_key": row["row_key"] + "+"} for row in rows]


def test_identical_arms_with_other_seeds_are_the_control():
    study = study_of(reference(), again())
    (subject,) = outcomes.subjects(study)
    (one,) = effects.controls(study, subject)
    assert (one.result.n, one.kind, one.verdict) == (10, "control", "no effect")
    assert effects.contrasts(study, subject) == []


def test_a_plan_of_controls_alone_has_a_lead_a_board_and_its_tasks():
    other = replace(COUNTING, name="other")
    study = study_of(reference(), again(), reference(task="other"), again(0.2, task="other"),
                     tasks=(COUNTING, other))  # fmt: skip
    first, counting, second = findings.verdict(study)
    assert first == (
        "1 of 2 control contrasts of the reference with itself under other seeds (10 seeds) "
        "is rejected at 5 %; expected none."
    )
    assert counting.startswith("counting (reference 50.0 points): the reference with other seeds")
    assert counting.endswith("not rejected.")
    assert second.endswith("p 0.002, rejected.")
    shown = board.html(study)
    assert "the reference with other seeds, control" in shown
    assert "▲ <b>+20.0</b>" in shown
    assert "<b>other</b>" in plots.in_words(study).text
    assert plots.forest(study).text.count("<figure") == 2


def test_over_all_tasks_only_what_separates_counts():
    tasks = [replace(COUNTING, name=name) for name in ("one", "two", "flat")]
    groups = []
    for task in tasks:
        gap = 0.0 if task.name == "flat" else 0.3
        groups += [reference(task=task.name), arm("ifo", gap, task=task.name)]
        groups += [arm("f", 0.0, task=task.name)]
    study = study_of(*groups, tasks=tasks)
    (subject,) = outcomes.subjects(study)
    found, over = effects.overall(study, subject)["ifo"]
    assert over == ["one", "two"]
    assert found.value == pytest.approx(100 * 0.3 / 0.9, abs=0.5)
    few = replace(study, rows=[row for row in study.rows if row["seed"] < 7])
    assert effects.overall(few, subject) == {}


def test_the_words_say_the_answer_first(tmp_path):
    study = accuracy.load(write_ablation(tmp_path / "run"))
    first, second, counting, *_ = findings.verdict(study)
    size = "(fo, K = 2, 2 layers, 64 units, 52 thousand parameters)"
    assert first.startswith(f"Beside an LSTM (69 thousand parameters) the QRNN {size} scores ")
    assert second.startswith("Of 18 primary contrasts with the reference on 3 tasks (10 seeds): ")
    assert "better: ifo +20." in counting
    assert deviations.deviations(study) == []
    assert deviations.command(study) == "python -m harness ablate claim --impl torch_native"


def test_few_seeds_are_said_to_prove_nothing(tmp_path):
    study = accuracy.load(write_ablation(tmp_path / "run", seeds=2, rates=(), mishaps={}))
    told = " ".join(findings.verdict(study))
    assert told.startswith("Exploratory: beside an LSTM")
    assert "At most 2 seeds per arm: this shows where to look and proves nothing" in told
    assert "better" not in told


def test_the_newest_row_of_a_run_counts_and_a_torn_one_does_not(tmp_path):
    folder = write_ablation(tmp_path / "run", seeds=2, rates=(), mishaps={})
    first = json.loads((folder / "ablation.jsonl").read_text().splitlines()[0])
    with (folder / "ablation.jsonl").open("a") as file:
        file.write(json.dumps(first | {"metric": 0.5}) + "\n" + '{"row_key": "to')
    study = accuracy.load(folder)
    assert [r["metric"] for r in study.rows if r["row_key"] == first["row_key"]] == [0.5]
    assert "torn" in study.notes[0]


def test_rows_of_another_schema_are_refused(tmp_path):
    folder = write_ablation(tmp_path / "run", seeds=2, rates=(), mishaps={})
    with (folder / "ablation.jsonl").open("a") as file:
        file.write(json.dumps({"row_key": "x", "schema_version": 99}) + "\n")
    with pytest.raises(UsageError, match="schema version 99"):
        accuracy.load(folder)


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


def test_the_lead_says_on_which_tasks_nothing_is_shown_and_claims_no_points_there():
    lstm = {"impl": "lstm_torch", "changes": {"family": "lstm"}, "contrast": "secondary"}
    study = study_of(reference(), arm("lstm", -0.2, **lstm), arm("ifo", 0.0), arm("f", 0.0))
    first = findings.verdict(study)[0]
    assert first == "Beside an LSTM the reference: nothing to be said on counting."
