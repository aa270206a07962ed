"""Which contenders and twins a point gets, and which are absent for which reason."""

from dataclasses import replace

import pytest

import impls
from harness.errors import UsageError
from harness.machine import system
from harness.speed.grid import Contender
from harness.speed.plan import build, chosen
from tests.planning import CEILINGS, GRID, card, profile, rows_of, use_cards


@pytest.fixture
def cards(monkeypatch):
    return use_cards(monkeypatch)


def test_a_missing_framework_is_absent_with_the_hint_and_its_points_can_be_done(cards):
    cards["needy"] = card("needy", requires=("no_such_framework",))
    made = build(profile(), [], CEILINGS)
    ((contender, status, reason),) = made.sittings[0].absent
    assert (contender, status) == (Contender("needy"), "missing")
    assert "pip install no_such_framework" in reason
    assert "needy" not in [c.impl for c in made.sittings[0].contenders]
    rows = [r for s in made.sittings for r in rows_of(s)]
    assert build(profile(), rows, CEILINGS).done == 8


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
