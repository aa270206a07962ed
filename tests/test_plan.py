"""The plan is pure and deterministic, resumes what is missing and says what it leaves out."""

import math
from dataclasses import replace

import pytest

import impls
from harness import floors
from harness.config import FEWEST_ROUNDS, Profile
from harness.errors import UsageError
from harness.floors import Ceilings
from harness.machine import identity, system
from harness.speed.forecast import COMPILE_S, HOPED_FACTOR, Forecast
from harness.speed.grid import Contender, cell_id
from harness.speed.plan import build, chosen
from impls.contract import Implementation
from tests.absent import run_without

CEILINGS = Ceilings.nominal()
GRID = {"kind": ["forward", "backward"], "batch": [1, 8], "steps": [16, 64], "hidden_size": [32]}


def profile(**changes):
    usual = {
        "name": "mine", "about": "", "budget_s": 400.0, "threads": 1, "baseline": "auto",
        "contenders": "all", "twins": "baseline", "repeats": 1, "compile": False,
        "grids": (GRID,), "overhead_s": 50.0,
    }  # fmt: skip
    return Profile(**{**usual, **changes})


def card(name, family="qrnn", requires=(), reason=lambda spec, placement: None):
    return Implementation(name, "", requires, reason, lambda *_: None, family)


@pytest.fixture
def cards(monkeypatch):
    """Three implementations that need nothing; a test may change them."""
    known = {name: card(name) for name in ("fast", "plain")}
    known["lstm_jax"] = card("lstm_jax", "lstm")
    monkeypatch.setattr(impls, "names", lambda: sorted(known))
    monkeypatch.setattr(impls, "get", lambda name: known[name])
    monkeypatch.setattr(identity, "fingerprint", lambda threads: {"comparable": threads})
    monkeypatch.setattr(identity, "stale_key", lambda name, fp, threads: f"key of {name}")
    return known


def rows_of(sitting, status="ok", sitting_id="s1", median_ns=1e6, **more):
    """What a finished sitting leaves in the folder."""
    absent = {contender: status for contender, status, _ in sitting.absent}
    family = {name: impls.get(name).family for name in impls.names()}
    return [
        {
            **sitting.point.fields(),
            "family": family[one.impl], "point_id": sitting.point.point_id, "impl": one.impl,
            "cell_id": cell_id(sitting.point, one), "sitting_id": sitting_id,
            "stale_key": f"key of {one.impl}", "status": absent.get(one, status),
            "median_ns": median_ns, "prepare_s": 0.1, "first_call_s": 0.01, **more,
        }
        for one in (*sitting.contenders, *absent)
    ]  # fmt: skip


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


def test_finished_points_are_done_and_the_others_are_left(cards):
    first = build(profile(), [], CEILINGS)
    rows = [r for s in first.sittings[:3] for r in rows_of(s)]
    left = build(profile(), rows, CEILINGS)
    assert (left.done, left.total) == (3, 8)
    assert [s.point for s in left.sittings] == [s.point for s in first.sittings[3:]]
    everything = [r for s in first.sittings for r in rows_of(s)]
    done = build(profile(), everything, CEILINGS)
    assert (done.done, done.sittings) == (8, [])
    again = build(profile(), everything, CEILINGS, again=True)
    assert [s.point for s in again.sittings] == [s.point for s in first.sittings]


def test_a_changed_implementation_makes_its_points_due(cards, monkeypatch):
    rows = [r for s in build(profile(), [], CEILINGS).sittings for r in rows_of(s)]
    keys = {"fast": "key of the changed fast"}
    monkeypatch.setattr(identity, "stale_key", lambda n, fp, t: keys.get(n, f"key of {n}"))
    assert build(profile(), rows, CEILINGS).done == 0
    keys.clear()
    assert build(profile(), rows, CEILINGS).done == 8


def test_an_added_contender_makes_every_point_due(cards):
    rows = [r for s in build(profile(), [], CEILINGS).sittings for r in rows_of(s)]
    assert build(profile(), rows, CEILINGS).done == 8
    cards["added"] = card("added")
    assert build(profile(), rows, CEILINGS).done == 0


def test_twins_of_all_are_due_where_only_the_baseline_had_one(cards):
    rows = [r for s in build(profile(), [], CEILINGS).sittings for r in rows_of(s)]
    made = build(profile(twins="all"), rows, CEILINGS)
    assert made.done == 0
    assert [c.name for c in made.sittings[0].contenders if c.twin] == [
        "fast#twin", "lstm_jax#twin", "plain#twin",
    ]  # fmt: skip


def test_a_missing_framework_is_absent_with_the_hint_and_its_points_can_be_done(cards):
    cards["needy"] = card("needy", requires=("no_such_framework",))
    made = build(profile(), [], CEILINGS)
    ((contender, status, reason),) = made.sittings[0].absent
    assert (contender, status) == (Contender("needy"), "missing")
    assert "pip install no_such_framework" in reason
    assert "needy" not in [c.impl for c in made.sittings[0].contenders]
    rows = [r for s in made.sittings for r in rows_of(s)]
    assert build(profile(), rows, CEILINGS).done == 8


def test_a_contender_that_is_listed_later_needs_its_row_even_where_it_is_missing(cards):
    rows = [r for s in build(profile(), [], CEILINGS).sittings for r in rows_of(s)]
    cards["needy"] = card("needy", requires=("no_such_framework",))
    assert build(profile(), rows, CEILINGS).done == 0


def test_what_a_card_does_not_support_is_absent_with_its_reason(cards):
    cards["plain"] = card(
        "plain", reason=lambda spec, placement: "no ifo" if spec.pooling == "ifo" else None
    )
    made = build(profile(grids=({**GRID, "pooling": ["fo", "ifo"]},)), [], CEILINGS)
    absent = {s.point.spec.pooling: s.absent for s in made.sittings}
    assert absent == {"fo": (), "ifo": ((Contender("plain"), "unsupported", "no ifo"),)}


def test_cards_are_asked_about_their_own_family(cards):
    asked = set()
    cards["lstm_jax"] = card("lstm_jax", "lstm", reason=lambda spec, _: asked.add(spec.family))
    build(profile(), [], CEILINGS)
    assert asked == {"lstm"}


def test_a_card_that_cannot_be_loaded_is_a_crash_row_and_stops_nobody(cards, monkeypatch):
    def get(name):
        if name == "plain":
            raise impls.BrokenImplementation("implementation 'plain' cannot be loaded")
        return cards[name]

    monkeypatch.setattr(impls, "get", get)
    made = build(profile(), [], CEILINGS)
    assert made.sittings[0].absent[0][:2] == (Contender("plain"), "crash")
    assert len(made.sittings[0].contenders) == 3


def test_cuda_points_without_a_device_are_missing(cards, monkeypatch):
    monkeypatch.setattr(system, "gpus", tuple)
    made = build(profile(grids=({**GRID, "device": ["cuda"]},)), [], CEILINGS)
    assert {status for _, status, _ in made.sittings[0].absent} == {"missing"}
    assert made.sittings[0].contenders == ()
    assert made.dropped == []


def test_a_step_of_both_directions_is_unsupported(cards):
    grid = {"kind": ["step"], "batch": [1], "steps": [1], "bidirectional": [True]}
    made = build(profile(grids=(grid,)), [], CEILINGS)
    assert {status for _, status, _ in made.sittings[0].absent} == {"unsupported"}


def test_without_an_lstm_there_is_no_twin_and_the_plan_still_works(cards):
    del cards["lstm_jax"]
    made = build(profile(), [], CEILINGS)
    assert [c.name for c in made.sittings[0].contenders] == ["fast", "plain"]
    named = build(profile(baseline="plain"), [], CEILINGS)
    assert [c.name for c in named.sittings[0].contenders] == ["fast", "plain", "plain#twin"]


def test_the_twin_is_of_lstm_torch_first(cards):
    cards["lstm_torch"] = card("lstm_torch", "lstm")
    twins = [c.name for c in build(profile(), [], CEILINGS).sittings[0].contenders if c.twin]
    assert twins == ["lstm_torch#twin"]


def test_a_profile_chooses_its_contenders(cards):
    made = build(profile(contenders=("fast",)), [], CEILINGS)
    assert [c.name for c in made.sittings[0].contenders] == ["fast"]
    with pytest.raises(UsageError, match="'gone' is not installed"):
        build(profile(contenders=("gone",)), [], CEILINGS)


def test_what_compiles_for_minutes_is_measured_where_the_profile_says_so_or_names_it(cards):
    cards["slow"] = replace(card("slow"), compiles=True)

    def arms(**changes):
        return {c.impl for c in build(profile(**changes), [], CEILINGS).sittings[0].contenders}

    assert arms() == {"fast", "lstm_jax", "plain"}
    assert arms(compile=True, budget_s=4000.0) == {"fast", "lstm_jax", "plain", "slow"}
    assert arms(contenders=("slow",), budget_s=4000.0) == {"slow"}


def test_a_profile_may_leave_some_of_all_out_and_others_of_the_large_points(cards):
    limited = profile(without=("plain",), up_to={"fast": 64})
    assert chosen(limited) == ("fast", "lstm_jax")
    made = build(limited, [], CEILINGS)
    sizes = {one.point.batch * one.point.steps for one in made.sittings}
    assert min(sizes) <= 64 < max(sizes)
    for one in made.sittings:
        small = one.point.batch * one.point.steps <= 64
        assert ("fast" in {arm.impl for arm in one.contenders}) is small
    done = [row for one in made.sittings for row in rows_of(one)]
    assert build(limited, done, CEILINGS).sittings == []


def test_rows_from_before_a_field_was_still_end_and_predict_their_points(cards):
    (first, *_) = build(profile(), [], CEILINGS).sittings
    rows = rows_of(first, median_ns=7e6)
    for row in rows:
        del row["dilated"], row["heads"]
    made = build(profile(), rows, CEILINGS)
    assert made.done == 1
    assert Forecast(rows, CEILINGS).call_s(Contender("fast"), "qrnn", first.point) == 0.007


def test_a_step_of_a_family_without_state_is_unsupported_with_the_reason(cards):
    cards["attention"] = card("attention", "attention")
    stepping = profile(grids=({"kind": ["step"], "batch": [2], "steps": [1]},))
    (only,) = build(stepping, [], CEILINGS).sittings
    ((who, status, reason),) = only.absent
    assert (who.impl, status) == ("attention", "unsupported")
    assert "carries no state" in reason


def test_a_broken_card_is_kept_among_all(cards, monkeypatch):
    def get(name):
        if name == "plain":
            raise impls.BrokenImplementation("no")
        return cards[name]

    monkeypatch.setattr(impls, "get", get)
    assert chosen(profile()) == ("fast", "lstm_jax", "plain")


def test_minutes_of_compiling_are_planned_for_and_then_taken_from_the_rows(cards):
    cards["slow"] = replace(card("slow"), compiles=True)
    mine = profile(contenders=("slow",), budget_s=4000.0)

    def price(rows, at):
        return Forecast(rows, CEILINGS).sitting_s(at, (Contender("slow"),), FEWEST_ROUNDS)

    first, other = (sitting.point for sitting in build(mine, [], CEILINGS).sittings[:2])
    assert COMPILE_S < price([], first) < COMPILE_S + 10
    rows = rows_of(build(mine, [], CEILINGS).sittings[0], prepare_s=150.0)
    rows += [{**rows[0], "steps": 2 * first.steps + 1, "prepare_s": 200.0}]
    assert 150 < price(rows, first) < 160
    assert 200 < price(rows, other) < 210
    assert build(mine, [], CEILINGS, budget_s=120.0).dropped


def test_recorded_times_replace_the_forecast(cards):
    first = build(profile(), [], CEILINGS)
    slow = rows_of(first.sittings[0], median_ns=2e9, stale_key="of another machine")
    made = build(profile(), slow, CEILINGS)
    assert made.sittings[0].point == first.sittings[0].point
    assert made.sittings[0].predicted_s == pytest.approx(2.0 * 4)
    assert made.sittings[1].predicted_s > 10 * first.sittings[1].predicted_s


def test_a_new_contender_is_expected_at_three_times_its_floor_or_more(cards):
    made = build(profile(contenders=("fast",)), [], CEILINGS)
    for sitting in made.sittings:
        point, dtype = sitting.point, sitting.point.placement.dtype
        cost = floors.cost(point.spec, point.kind, point.batch, point.steps, dtype)
        assert sitting.predicted_s >= 3 * floors.floor_s(cost, CEILINGS, dtype)


def test_a_family_without_a_formula_and_a_dtype_without_a_rate_are_planned(cards):
    cards["foreign"] = card("foreign", "mingru")
    bare = replace(CEILINGS, gemm_flops={"float32": 5e10})
    made = build(profile(grids=({**GRID, "dtype": ["bfloat16"]},)), [], bare)
    assert len(made.sittings) == 8
    assert all(math.isfinite(s.predicted_s) for s in made.sittings)


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
