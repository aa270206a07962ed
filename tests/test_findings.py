"""The words of the ablation's page: the answer first, no claim without a proof."""

from dataclasses import replace

from harness import plots
from harness.ablation import accuracy
from harness.analysis import board, deviations, findings
from tests.judging import COUNTING, again, arm, reference, study_of, verdicts
from tests.recorded.ablation import write_ablation


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


def test_the_lead_says_on_which_tasks_nothing_is_shown_and_claims_no_points_there():
    lstm = {"impl": "lstm_torch", "changes": {"family": "lstm"}, "contrast": "secondary"}
    study = study_of(reference(), arm("lstm", -0.2, **lstm), arm("ifo", 0.0), arm("f", 0.0))
    first = findings.verdict(study)[0]
    assert first == "Beside an LSTM the reference: nothing to be said on counting."
