"""One layer, one call: every implementation in groups per cell (`nox -s microbench`)."""

from dataclasses import replace

import pytest

import impls
from harness.speed.grid import Contender, Point
from impls import params
from impls.contract import ModelSpec, Placement

CELLS = [
    ("forward", 1, 128, "float32"),
    ("forward", 8, 128, "float32"),
    ("backward", 8, 128, "float32"),
    ("forward", 8, 128, "bfloat16"),
]
SPEC = ModelSpec(input_size=320, hidden_size=320)


def able():
    """Implementations that support the cells and are installed."""
    cards = [impls.get(name) for name in impls.names()]
    fits = [card for card in cards if card.family in params.FAMILIES and not card.compiles]
    return [
        Contender(card.name)
        for card in fits
        if not impls.missing(card)
        and not card.unsupported(replace(SPEC, family=card.family), Placement())
    ]


@pytest.mark.parametrize("contender", able(), ids=lambda one: one.name)
@pytest.mark.parametrize("cell", CELLS, ids=lambda c: f"{c[0]}-{c[1]}x{c[2]}-{c[3]}")
def test_layer(cell, contender, measure):
    kind, batch, steps, dtype = cell
    group = f"layer, {kind} {batch} x {steps}, 320 units, fo, K = 2, {dtype}"
    at = Point(kind, SPEC, Placement(dtype=dtype), batch, steps)
    measure(group, contender, able(), at)
