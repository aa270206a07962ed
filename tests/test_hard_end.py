"""A hard end holds: one deadline for all who are asked, and nobody is waited for beyond it."""

import sys
import time

import pytest

from harness import ceilings, speed
from harness.arm import TOO_LATE, Arm, Limits
from harness.grid import PROTOCOL_VERSION, Contender
from harness.plan import Plan
from harness.process import WorkerFailure
from harness.progress import Progress
from harness.sitting import finish, prepare
from harness.store import RunFolder
from impls.contract import Placement
from tests.measuring import point, profile, sitting, use_fakes

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="stops workers by Linux signals")


class Deaf:
    """A worker that uses up what it is given, at most 0.2 s, and never answers."""

    def __init__(self):
        self.given = []

    def ask(self, command, **arguments):
        pass

    def answer(self, timeout, finish=False):
        self.given.append(timeout)
        time.sleep(min(timeout, 0.2))
        raise WorkerFailure("timeout", "Timeout", "no answer")

    def kill(self):
        pass


def deaf(device):
    return [Arm(Contender(f"fake_{n}"), Deaf(), device) for n in "abc"]


@pytest.mark.parametrize("step", ["prepare", "finish"])
def test_arms_that_are_asked_together_have_one_deadline(step):
    arms, limits = deaf("cuda"), Limits(prepare_s=0.5)
    if step == "prepare":
        prepare(arms, point(placement=Placement("cuda")), 1, "", limits)
    else:
        finish(arms, limits)
    first, second, third = (arm.worker.given[0] for arm in arms)
    assert first == pytest.approx(0.5, abs=0.1)
    assert second < 0.35
    assert third < 0.15
    assert {arm.status for arm in arms} == {"timeout"}


def test_arms_that_are_asked_in_turn_share_what_is_left_before_the_end():
    arms = deaf("cpu")
    prepare(arms, point(), 1, "", Limits(end=time.monotonic() + 0.3))
    assert sum(min(arm.worker.given[0], 0.2) for arm in arms) < 0.32
    assert {(arm.status, arm.reason) for arm in arms} == {("skipped", TOO_LATE)}


def test_contenders_that_hang_cannot_hold_up_the_end(tmp_path, monkeypatch):
    use_fakes(monkeypatch)
    monkeypatch.setattr(speed, "FINISH_S", 0.5)
    who = (Contender("fake_good"), Contender("fake_hang"), Contender("fake_hang", twin=True))
    plan = Plan(profile(), [sitting(point(), *who, share_s=0.5)], [], 0, 1, 0.0, 0.0)
    with RunFolder.open(tmp_path / "run", "test", PROTOCOL_VERSION) as folder:
        start = time.monotonic()
        speed.run_speed(plan, folder, profile(), Progress(), left_s=4.0)
        assert time.monotonic() - start < 5.0
        found = {(row["impl"], row["twin"]): row["status"] for row in folder.rows}
    assert set(found) == {("fake_good", False), ("fake_hang", False), ("fake_hang", True)}
    assert set(found.values()) == {"skipped"}, "nobody was timed, and hanging was not proved"


def test_too_few_rounds_before_the_end_are_no_row(tmp_path, monkeypatch):
    use_fakes(monkeypatch)
    whole = speed.sample

    def cut(arms, rule, baseline, rng, limits, check):  # the end comes as the first round begins
        return whole(arms, rule, baseline, rng, Limits(end=time.monotonic()), check)

    monkeypatch.setattr(speed, "sample", cut)
    plan = Plan(profile(), [sitting(point(), Contender("fake_good"))], [], 0, 1, 0.0, 0.0)
    with RunFolder.open(tmp_path / "run", "test", PROTOCOL_VERSION) as folder:
        speed.run_speed(plan, folder, profile(), Progress())
        assert [(row["status"], row["median_ns"]) for row in folder.rows] == [("skipped", None)]


def test_ceilings_end_at_their_limit_whoever_hangs(tmp_path, monkeypatch):
    (tmp_path / "hangs.py").write_text("import threading\nthreading.Event().wait()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(ceilings, "FRAMEWORKS", ("hangs", "numpy"))
    start = time.monotonic()
    with pytest.raises(WorkerFailure, match="no answer within 1 s"):
        ceilings.measure(1, ["float32"], "cpu", tmp_path, limit_s=1.0)
    assert time.monotonic() - start < 3.0
