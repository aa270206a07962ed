"""What is finished is done, and what has changed since is due again."""

import pytest

from harness.machine import identity
from harness.speed.forecast import Forecast
from harness.speed.grid import Contender
from harness.speed.plan import build
from tests.planning import CEILINGS, card, profile, rows_of, use_cards


@pytest.fixture
def cards(monkeypatch):
    return use_cards(monkeypatch)


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


def test_a_contender_that_is_listed_later_needs_its_row_even_where_it_is_missing(cards):
    rows = [r for s in build(profile(), [], CEILINGS).sittings for r in rows_of(s)]
    cards["needy"] = card("needy", requires=("no_such_framework",))
    assert build(profile(), rows, CEILINGS).done == 0


def test_rows_from_before_a_field_was_still_end_and_predict_their_points(cards):
    (first, *_) = build(profile(), [], CEILINGS).sittings
    rows = rows_of(first, median_ns=7e6)
    for row in rows:
        del row["dilated"], row["heads"]
    made = build(profile(), rows, CEILINGS)
    assert made.done == 1
    assert Forecast(rows, CEILINGS).call_s(Contender("fast"), "qrnn", first.point) == 0.007
