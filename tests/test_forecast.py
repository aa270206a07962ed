"""What a sitting is expected to cost: as its rows say where there are any, else by its floor."""

import math
from dataclasses import replace

import pytest

from harness import floors
from harness.config import FEWEST_ROUNDS
from harness.speed.forecast import COMPILE_S, Forecast
from harness.speed.grid import Contender
from harness.speed.plan import build
from tests.planning import CEILINGS, GRID, card, profile, rows_of, use_cards


@pytest.fixture
def cards(monkeypatch):
    return use_cards(monkeypatch)


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
