"""Equal seconds: steps follow today's seconds and a step's time, which holds for one code only."""

import pytest

from harness.ablation import calibration
from harness.ablation import plan as ablation_plan
from harness.ablation.config import parse
from harness.ablation.slots import Answer, Slot
from harness.process import WorkerFailure
from harness.speed.grid import PROTOCOL_VERSION
from harness.store import RunFolder
from tests.ablating import K1, text, use_fakes

WALL = K1 + 'budgets = ["wall"]\n'


@pytest.fixture(autouse=True)
def _fakes(monkeypatch):
    use_fakes(monkeypatch)


@pytest.fixture
def answers(monkeypatch):
    """What slots answer instead of a worker: {"step_s": ...} or a failure."""
    given = {"found": {"step_s": 0.1}, "failure": None}
    asked = []

    def answer(slot, question):
        asked.append(question.about.label)
        return Answer(slot, question, **given)

    monkeypatch.setattr(Slot, "_answer", answer)
    return given, asked


def planned(seconds, changes=WALL):
    return ablation_plan.build(parse(text(changes, more=f'seconds = "{seconds}"'), "small"))


def steps(plan):
    return {cell.label: cell.steps for cell in plan.cells if cell.mode == "wall"}


def timed(plan, out):
    """The plan once its folder was calibrated, and the folder's manifest."""
    with RunFolder.open(out, "ablation-small", PROTOCOL_VERSION) as folder:
        calibration.calibrate(plan, folder)
        return calibration.applied(plan, folder.manifest, tried=True), folder.manifest


def test_steps_follow_todays_seconds_without_another_measurement(tmp_path, answers):
    assert set(steps(timed(planned("2s"), tmp_path)[0]).values()) == {20}
    assert set(steps(timed(planned("4s"), tmp_path)[0]).values()) == {40}
    assert len(answers[1]) == 2, "it was measured again"


def test_a_time_of_other_code_or_of_another_network_is_measured_again(
    tmp_path, answers, monkeypatch
):
    timed(planned("2s"), tmp_path)
    answers[0]["found"] = {"step_s": 0.2}
    other = WALL.replace("kernel_width = 1", "kernel_width = 3")
    made, _ = timed(planned("2s", other), tmp_path)
    assert steps(made) == {
        "selective_copy k2 (wall)": 20, "selective_copy k1 (wall)": 12
    }  # fmt: skip
    monkeypatch.setattr(calibration, "stale_key", lambda impl, task: "other code")
    assert set(steps(timed(planned("4s"), tmp_path)[0]).values()) == {20}


def test_a_cell_that_cannot_be_timed_is_a_deviation(tmp_path, answers):
    answers[0].update(found=None, failure=WorkerFailure("crash", "ValueError", "no"))
    made, _ = timed(planned("2s"), tmp_path)
    assert len(made.deviations) == 2
    assert "keeps 40 steps instead of 2 s" in made.deviations[0]
    assert set(steps(made).values()) == {40}
    assert calibration.applied(planned("2s"), {}).deviations == (), "nobody has tried"
