"""A hard end holds: one deadline for all who are asked, and nobody is waited for beyond it."""

import math
import random
import sys
import time

import pytest

from harness.machine import ceilings
from harness.process import WorkerFailure
from harness.progress import Progress
from harness.speed import coordinator
from harness.speed.arm import TOO_LATE, Arm, Limits
from harness.speed.grid import PROTOCOL_VERSION, Contender
from harness.speed.plan import Plan
from harness.speed.sitting import Rules, finish, prepare, sample
from harness.store import RunFolder
from impls.contract import Placement
from tests.measuring import point, profile, sitting, use_fakes

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="stops workers by Linux signals")


class Clock:
    """Seconds that pass only while a worker is waited for."""

    now = 100.0

    def monotonic(self):
        return self.now

    perf_counter = monotonic


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr("harness.speed.arm.time", made)
    monkeypatch.setattr("harness.speed.sitting.time", made)
    return made


class Stub:
    """A worker that takes `needs` seconds for every answer."""

    def __init__(self, clock, needs):
        self.clock, self.needs, self.given, self.killed = clock, needs, [], False

    def ask(self, command, **arguments):
        pass

    def answer(self, timeout, finish=False):
        self.given.append(timeout)
        self.clock.now += min(timeout, self.needs)
        if timeout < self.needs:
            raise WorkerFailure("timeout", "Timeout", "no answer")
        return {"wall_ns": [1e9], "cpu_ns": [1e9], "burn_ns": []}

    def kill(self):
        self.killed = True


def deaf(clock, device):
    return [Arm(Contender(f"fake_{n}"), Stub(clock, math.inf), device) for n in "abc"]


@pytest.mark.parametrize("step", ["prepare", "finish"])
def test_arms_that_are_asked_together_have_one_deadline(clock, step):
    arms, limits = deaf(clock, "cuda"), Limits(prepare_s=5.0)
    if step == "prepare":
        prepare(arms, point(placement=Placement("cuda")), 1, "", limits)
    else:
        finish(arms, limits)
    assert [arm.worker.given for arm in arms] == [[5.0], [0.0], [0.0]]
    assert {arm.status for arm in arms} == {"timeout"}


def test_arms_that_are_asked_in_turn_share_what_is_left_before_the_end(clock):
    arms = deaf(clock, "cpu")
    prepare(arms, point(), 1, "", Limits(prepare_s=5.0, end=clock.now + 8.0))
    assert [arm.worker.given for arm in arms] == [[5.0], [3.0], [0.0]]
    assert [arm.status for arm in arms] == ["timeout", "skipped", "skipped"]
    assert arms[1].reason == TOO_LATE


@pytest.mark.parametrize(("left_s", "status", "rounds"), [(4.5, "ok", 4), (2.5, "skipped", 0)])
def test_no_round_begins_that_would_outlast_the_end(clock, left_s, status, rounds):
    arm = Arm(Contender("fake_a"), Stub(clock, 1.0), warm=[1e9])
    rule = Rules(deadline=math.inf, least=99, most=99, floor=7, target=0.01)
    limits = Limits(end=clock.now + left_s)
    sample([arm], rule, "fake_a", random.Random(1), limits, lambda: None)
    assert arm.status == status, "of fewer than three rounds no interval is made"
    assert len(arm.wall) == rounds
    assert not arm.worker.killed


def test_contenders_that_hang_cannot_hold_up_the_end(tmp_path, monkeypatch):
    use_fakes(monkeypatch)
    monkeypatch.setattr(coordinator, "FINISH_S", 0.5)
    who = (Contender("fake_good"), Contender("fake_hang"), Contender("fake_hang", twin=True))
    plan = Plan(profile(), [sitting(point(), *who, share_s=0.5)], [], 0, 1, 0.0, 0.0)
    with RunFolder.open(tmp_path / "run", "test", PROTOCOL_VERSION) as folder:
        start = time.monotonic()
        coordinator.run_speed(plan, folder, profile(), Progress(), left_s=4.0)
        assert time.monotonic() - start < 5.0
        found = {(row["impl"], row["twin"]): row["status"] for row in folder.rows}
    assert set(found) == {("fake_good", False), ("fake_hang", False), ("fake_hang", True)}
    assert set(found.values()) == {"skipped"}, "nobody was timed, and hanging was not proved"


def test_ceilings_end_at_their_limit_whoever_hangs(tmp_path, monkeypatch):
    (tmp_path / "hangs.py").write_text("import threading\nthreading.Event().wait()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(ceilings, "FRAMEWORKS", ("hangs", "numpy"))
    start = time.monotonic()
    with pytest.raises(WorkerFailure, match="no answer within 1 s"):
        ceilings.measure(1, ["float32"], "cpu", tmp_path, limit_s=1.0)
    assert time.monotonic() - start < 3.0
