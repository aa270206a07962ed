"""Verdicts of recorded training runs: every rule on rows made for it."""

import math
from dataclasses import replace

import pytest

from harness.ablation.accuracy import TaskFacts
from harness.analysis import deviations, effects, outcomes
from tests.judging import COUNTING, WIGGLE, again, arm, reference, rows_of, study_of, verdicts


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


def test_identical_arms_with_other_seeds_are_the_control():
    study = study_of(reference(), again())
    (subject,) = outcomes.subjects(study)
    (one,) = effects.controls(study, subject)
    assert (one.result.n, one.kind, one.verdict) == (10, "control", "no effect")
    assert effects.contrasts(study, subject) == []


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
