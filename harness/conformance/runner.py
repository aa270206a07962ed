"""Every check of one implementation as rows: what passed, what failed and by how much."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from time import perf_counter
from typing import Any

import impls
from harness.conformance.cases import Case, for_family, quick_set
from harness.conformance.check import CHECKS, Check, ConformanceError, Measured
from impls.contract import Implementation, Placement

SCHEMA_VERSION = 1
Pair = tuple[Placement, Case, Check, str | None]


def pairs(
    card: Implementation, dtypes: Iterable[str], cases: Iterable[Case] | None, device: str = "cpu"
) -> Iterator[Pair]:
    """What to check: (placement, case, check, reason why it is unsupported or None).

    Checks that do not suit the family, the spec or the dtype are left out.

    Raises:
        KeyError: a case names a check that does not exist.
    """
    chosen = for_family(quick_set() if cases is None else cases, card.family)
    for dtype in dtypes:
        placement = Placement(device, dtype)  # type: ignore[arg-type]
        for case in chosen:
            reason = impls.hindrance(card, case.spec, placement)
            for name in case.checks:
                if CHECKS[name].suits(case.spec, dtype):
                    yield placement, case, CHECKS[name], reason or CHECKS[name].hindrance(case.spec)


def run_checks(
    card: Implementation,
    dtypes: Iterable[str] = ("float32",),
    cases: Iterable[Case] | None = None,
    device: str = "cpu",
) -> Iterator[dict[str, Any]]:
    """Yield one equivalence row per check, case and dtype, as each is done; never raises.

    `cases` is `quick_set()` where it is not given. A row's `status` is "passed", "failed" (the
    claim does not hold, or the implementation raised), "unsupported" (the card refuses the spec,
    the family has no state to carry, or `prepare` raised NotImplementedError) or "missing" (one
    row: the framework is absent). `error` is null where it is not a finite number.
    """
    lacking = impls.missing(card)
    if lacking is not None:
        yield _row(card, None, None, None, "missing", lacking)
        return
    for placement, case, check, reason in pairs(card, dtypes, cases, device):
        if reason is not None:
            yield _row(card, placement, case, check, "unsupported", reason)
        else:
            yield _checked(card, placement, case, check)


def _checked(
    card: Implementation, placement: Placement, case: Case, check: Check
) -> dict[str, Any]:
    start, measured, status, message = perf_counter(), None, "passed", ""
    try:
        measured = check(card, placement, case)
    except ConformanceError as error:
        measured, status, message = error.measured, "failed", str(error)
    except NotImplementedError as error:
        status, message = "unsupported", str(error) or f"{card.name} does not offer this"
    row = _row(card, placement, case, check, status, message, measured)
    row["seconds"] = perf_counter() - start
    return row


def row_of(
    card: Implementation,
    placement: Placement | None,
    check: tuple[str | None, str | None],
    case: tuple[str | None, str | None],
    measured: Measured | None = None,
) -> dict[str, Any]:
    """A row of equivalence.jsonl without status, message and seconds.

    Args:
        check: its name and its claim; case: its name and the spec in words.
    """
    error = None if measured is None else measured.error
    return {
        "schema_version": SCHEMA_VERSION,
        "record": "equivalence",
        "impl": card.name,
        "family": card.family,
        "device": None if placement is None else placement.device,
        "dtype": None if placement is None else placement.dtype,
        "check": check[0],
        "claim": check[1],
        "case": case[0],
        "spec": case[1],
        "quantity": None if measured is None else measured.quantity,
        "error": error if error is not None and math.isfinite(error) else None,
        "tolerance": None if measured is None else measured.tolerance,
    }


def _row(
    card: Implementation,
    placement: Placement | None,
    case: Case | None,
    check: Check | None,
    status: str,
    message: str,
    measured: Measured | None = None,
) -> dict[str, Any]:
    asked = (None, None) if check is None else (check.name, check.claim)
    about = (None, None) if case is None else (case.name, case.label())
    told = {"status": status, "message": message, "seconds": 0.0}
    return row_of(card, placement, asked, about, measured) | told
