"""One layer, one call: every implementation in groups per cell (`nox -s microbench`)."""

from dataclasses import replace

import pytest

import impls
from harness.grid import Point
from impls import params
from impls.contract import ModelSpec, Placement
from tests.microbench.conftest import in_turns, prepared

CELLS = [("forward", 1, 128), ("forward", 8, 128), ("backward", 8, 128)]
SPEC = ModelSpec(input_size=320, hidden_size=320)


def able():
    """Implementations that support the cells and are installed."""
    cards = [impls.get(name) for name in impls.names()]
    fits = [card for card in cards if card.family in params.FAMILIES and not card.compiles]
    return [
        card.name
        for card in fits
        if not impls.missing(card)
        and not card.unsupported(replace(SPEC, family=card.family), Placement())
    ]


@pytest.mark.parametrize("name", able())
@pytest.mark.parametrize("cell", CELLS, ids=lambda c: f"{c[0]}-{c[1]}x{c[2]}")
def test_layer(request, cell, name, measured, replay, benchmark):
    kind, batch, steps = cell
    benchmark.group = f"{kind} {batch} x {steps}, 320 units, fo, K = 2, float32"
    if not benchmark.enabled:  # as a test: one gated call
        benchmark(prepared(name, Point(kind, SPEC, Placement(), batch, steps)))
        return
    if cell not in measured:
        point = Point(kind, SPEC, Placement(), batch, steps)
        measured[cell] = in_turns({name: prepared(name, point) for name in able()})
    samples = measured[cell][name]
    replay.samples = iter(samples)
    benchmark.pedantic(replay.advance, rounds=len(samples), iterations=1)
