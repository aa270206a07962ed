"""Pooling alone, and the products alone, of every implementation that offers its parts."""

import pytest

import impls
from harness.speed.grid import Contender, Point
from impls.contract import PARTS, ModelSpec, Placement

CELLS = [
    (kind, batch, 128, dtype)
    for dtype in ("float32", "bfloat16")
    for kind in ("forward", "backward")
    for batch in (1, 8)
]
SPEC = ModelSpec(input_size=320, hidden_size=320)


def able(part):
    """Implementations that offer the part and are installed."""
    cards = [impls.get(name) for name in impls.names()]
    return [Contender(c.name, mode=part) for c in cards if part in c.parts and not impls.missing(c)]


@pytest.mark.parametrize("contender", [c for p in PARTS for c in able(p)], ids=lambda c: c.name)
@pytest.mark.parametrize("cell", CELLS, ids=lambda c: f"{c[0]}-{c[1]}x{c[2]}-{c[3]}")
def test_part(cell, contender, measure):
    kind, batch, steps, dtype = cell
    group = f"{contender.mode} alone, {kind} {batch} x {steps}, 320 units, fo, K = 2, {dtype}"
    at = Point(kind, SPEC, Placement(dtype=dtype), batch, steps)
    measure(group, contender, able(contender.mode), at)
