"""The plan is pure and deterministic, keeps the budget and says what it leaves out."""

import math

import pytest

from harness.config import FEWEST_ROUNDS
from harness.errors import UsageError
from harness.speed.forecast import HOPED_FACTOR, Forecast
from harness.speed.plan import build
from tests.absent import run_without
from tests.planning import CEILINGS, GRID, profile, use_cards


@pytest.fixture
def cards(monkeypatch):
    return use_cards(monkeypatch)


def test_a_new_folder_gets_every_point_with_every_contender_and_one_twin(cards):
    made = build(profile(), [], CEILINGS)
    assert (made.total, made.done, len(made.sittings), made.dropped) == (8, 0, 8, [])
    names = [one.name for one in made.sittings[0].contenders]
    assert names == ["fast", "lstm_jax", "plain", "lstm_jax#twin"]
    assert made.stale_keys == {name: f"key of {name}" for name in cards}


def test_the_plan_is_deterministic(cards):
    assert build(profile(), [], CEILINGS) == build(profile(), [], CEILINGS)


def test_shares_fill_the_budget_and_no_more(cards):
    made = build(profile(), [], CEILINGS, budget_s=80.0)
    assert made.estimate_s == pytest.approx(80.0)
    assert sum(s.share_s for s in made.sittings) == pytest.approx(30.0)
    assert made.overhead_s == 50.0
    assert build(profile(), [], CEILINGS, budget_s=80.0, overhead_s=5.0).overhead_s == 5.0


def test_dearer_points_get_larger_shares(cards):
    made = build(profile(), [], CEILINGS, budget_s=80.0)
    by_cost = sorted(made.sittings, key=lambda s: s.predicted_s)
    assert by_cost[0].share_s < by_cost[-1].share_s
    assert all(s.predicted_s > 0 for s in made.sittings)


def test_a_large_budget_is_not_spent_beyond_the_most_rounds(cards):
    made = build(profile(), [], CEILINGS, budget_s=1e6)
    assert made.estimate_s < 1e5
    more = build(profile(max_rounds=600), [], CEILINGS, budget_s=1e6)
    assert more.estimate_s > 1.3 * made.estimate_s


def test_a_small_budget_drops_the_dearest_points_and_says_so(cards):
    whole = build(profile(), [], CEILINGS)
    small = build(profile(), [], CEILINGS, budget_s=55.0)
    assert 0 < len(small.sittings) < 8
    assert len(small.sittings) + len(small.dropped) == small.total == 8
    cost = {s.point: s.predicted_s for s in whole.sittings}
    kept = [cost[s.point] for s in small.sittings]
    assert max(kept) <= min(cost[point] for point, _ in small.dropped)
    for _, reason in small.dropped:
        assert "3 rounds" in reason
        assert "--budget" in reason
    assert small.estimate_s <= 55.0 + 1e-9


@pytest.mark.parametrize("available", [2.0, 4.0, 6.0, 9.0])
def test_points_are_dropped_only_as_far_as_the_budget_demands(cards, available):
    def hoped(points):
        arms = build(profile(), [], CEILINGS).sittings[0].contenders
        forecast = Forecast([], CEILINGS)
        return [forecast.sitting_s(point, arms, FEWEST_ROUNDS, HOPED_FACTOR) for point in points]

    made = build(profile(), [], CEILINGS, budget_s=50.0 + available)
    kept, dropped = hoped(s.point for s in made.sittings), hoped(p for p, _ in made.dropped)
    assert sum(kept) <= available
    assert sum(kept) + min(dropped) > available


@pytest.mark.parametrize("budget", [0.001, 50.0])
def test_a_budget_below_the_overhead_drops_everything(cards, budget):
    made = build(profile(), [], CEILINGS, budget_s=budget)
    assert made.sittings == []
    assert len(made.dropped) == 8


@pytest.mark.parametrize("budget", [52, 54, 57, 60, 75, 100, 200, 1000])
def test_every_budget_is_kept_and_every_point_accounted_for(cards, budget):
    made = build(profile(), [], CEILINGS, budget_s=budget)
    assert len(made.sittings) + len(made.dropped) + made.done == made.total
    assert made.estimate_s <= budget + 1e-9
    assert all(math.isfinite(s.share_s) and s.share_s > 0 for s in made.sittings)


def test_filters_keep_their_points(cards):
    made = build(profile(), [], CEILINGS, only={"batch": "8", "kind": "forward"})
    assert made.total == 2
    assert {(s.point.batch, s.point.kind) for s in made.sittings} == {(8, "forward")}
    with pytest.raises(UsageError, match="no point has it"):
        build(profile(), [], CEILINGS, only={"batch": "9"})


def test_filters_that_exclude_each_other_are_refused(cards):
    grids = ({**GRID, "batch": [1], "steps": [16]}, {**GRID, "batch": [8], "steps": [64]})
    with pytest.raises(UsageError, match="no point has all of these values"):
        build(profile(grids=grids), [], CEILINGS, only={"batch": "8", "steps": "16"})


def test_more_threads_than_cores_are_refused():
    with pytest.raises(UsageError, match="threads = 4096"):
        build(profile(threads=4096), [], CEILINGS)


PLAN = """
from harness.config import load_profile
from harness.floors import Ceilings
from harness.speed.plan import build, chosen
made = build(load_profile("default"), [], Ceilings.nominal())
assert made.total == 28, made.total
heavy = {"torch", "jax", "jaxlib", "pandas", "cupy"} & set(sys.modules)
assert not heavy, heavy
"""


def test_planning_needs_and_imports_no_framework():
    for blocked in ((), ("torch", "jax", "jaxlib", "cupy", "pandas", "pydantic", "psutil")):
        done = run_without(blocked, "import sys" + PLAN)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_the_test_above_would_notice_an_import(framework, tmp_path):
    (tmp_path / f"{framework}.py").write_text("# stands for the framework, which loads slowly")
    code, path = f"import sys, {framework}" + PLAN, str(tmp_path)
    loaded = run_without((), code, PYTHONPATH=path)
    assert loaded.returncode == 1
    assert loaded.stderr.strip().splitlines()[-1] == f"AssertionError: {{{framework!r}}}"
    blocked = run_without((framework,), code, PYTHONPATH=path)
    assert blocked.returncode == 1
    assert "blocked by the test" in blocked.stderr
