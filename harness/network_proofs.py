"""Whole networks around one implementation's core, checked: each claim, and training curves.

The checks of `harness.conformance` ask layers; these ask a trainer, and take longer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from time import perf_counter
from typing import Any, cast

import impls
from harness.agreement import Lesson, agreement, lessons
from harness.conformance import NETWORK_CHECKS, ConformanceError, NetworkCheck
from harness.conformance.runner import row_of
from impls.contract import Dtype, Implementation, ModelSpec, Placement, SpecError
from impls.training import framework_of

PLAIN = ("torch_eager", "jax_scan")
"""Asked first where training needs something to compare with: without code of their own."""
Row = dict[str, Any]


def run(
    card: Implementation,
    dtypes: Iterable[str],
    device: str = "cpu",
    chosen: Iterable[Lesson] | None = None,
) -> Iterator[Row]:
    """Yield one equivalence row per check or lesson and dtype, as it is done; never raises.

    Rows are those of `harness.conformance.run_checks`. `chosen` is `lessons()` where it is not
    given; "unsupported" says why the card, or the other framework, has nothing to check.
    """
    taught = lessons() if chosen is None else tuple(chosen)
    for dtype in dtypes:
        placement = Placement(device, cast(Dtype, dtype))
        for check in NETWORK_CHECKS.values():
            yield _checked(card, check, placement)
        other = partner(card, placement)
        pair = [card] if other is None else [card, other]
        for row in agreement(pair, taught, placement):
            if row["impl"] != card.name:
                continue
            if other is None and row["status"] == "missing":
                message = f"no {card.family} core of another framework is here to compare with"
                row |= {"status": "unsupported", "message": message}
            yield row


def partner(card: Implementation, placement: Placement) -> Implementation | None:
    """An implementation of the same family with a core in the other framework, or None."""
    try:
        own = framework_of(card)
    except SpecError:
        return None
    spec = ModelSpec(family=card.family, input_size=8, hidden_size=8, heads=2)
    for name in dict.fromkeys((*PLAIN, *impls.names())):
        try:
            other = impls.get(name)
            alike = other.family == card.family and framework_of(other) != own
        except (impls.BrokenImplementation, impls.UnknownImplementation, SpecError):
            continue
        runs = alike and impls.missing(other) is None and not other.compiles
        if runs and impls.hindrance(other, spec, placement) is None:
            return other
    return None


def _checked(card: Implementation, check: NetworkCheck, placement: Placement) -> Row:
    started, measured, message = perf_counter(), None, check.hindrance(card, placement)
    status = "passed" if message is None else "unsupported"
    if message is None:
        try:
            measured = check(card, placement)
        except ConformanceError as error:
            measured, status, message = error.measured, "failed", str(error)
    asked, about = (check.name, check.claim), ("network", "a network around the core")
    return row_of(card, placement, asked, about, measured) | {
        "status": status,
        "message": message or "",
        "seconds": perf_counter() - started,
    }
