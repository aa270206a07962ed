"""The conformance suite as a pytest decorator, for this project's tests and for anybody else's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import impls
from harness.conformance.cases import Case, covering_set
from harness.conformance.check import Check, Measured
from harness.conformance.runner import pairs
from impls.contract import KINDS, Implementation, Placement


@dataclass(frozen=True)
class BoundCheck:
    """One check of one implementation on one case; call it without arguments."""

    check: Check
    card: Implementation
    placement: Placement
    case: Case

    @property
    def id(self) -> str:
        """E.g. "torch_eager-float32-fo-2-causality"."""
        return f"{self.card.name}-{self.placement.dtype}-{self.case.name}-{self.check.name}"

    def __call__(self) -> Measured:
        """Raise ConformanceError where the claim does not hold; skip what is not offered.

        Which work an implementation offers is known only when its `prepare` is asked. Those of this
        project say it in their cards, so that no check of theirs is skipped.
        """
        import pytest

        try:
            return self.check(self.card, self.placement, self.case)
        except NotImplementedError as error:
            if self.card.load.__module__.startswith("impls."):
                raise
            pytest.skip(str(error) or f"{self.card.name} does not offer this")


def parametrize_with_checks(
    names_or_cards: Iterable[str | Implementation] | None = None,
    cases: Iterable[Case] | None = None,
    dtypes: Iterable[str] = ("float32", "float64"),
    device: str = "cpu",
    kinds: Iterable[str] = KINDS,
    expected_failures: Mapping[str, str] | None = None,
) -> Any:
    """A pytest decorator that hands a test every supported check as its argument `check`.

        @parametrize_with_checks(["my_impl"])
        def test_conformance(check):
            check()

    Args:
        names_or_cards: implementations; all registered ones where it is None.
        cases: `covering_set()` where it is None.
        dtypes: only those that a card supports are collected.
        device: "cpu" or "cuda".
        kinds: the kinds of Work that the implementations offer; checks that need others are left
            out.
        expected_failures: id pattern (as in a shell) -> reason. A matching check must fail: it
            is an xfail with strict=True.

    Raises:
        ValueError: a pattern that matches nothing.
    """
    import pytest

    offered, params, unused = set(kinds), [], set(expected_failures or {})
    chosen = tuple(covering_set() if cases is None else cases)
    for given in impls.names() if names_or_cards is None else names_or_cards:
        card = impls.get(given) if isinstance(given, str) else given
        lacking = impls.missing(card)
        if lacking is not None:
            mark = pytest.mark.skip(reason=lacking)
            params.append(pytest.param(None, id=f"{card.name}-missing", marks=mark))
            unused -= {pattern for pattern in unused if pattern.startswith(card.name)}
            continue
        for placement, case, check, reason in pairs(card, dtypes, chosen, device):
            if reason is None and offered.issuperset(check.kinds):
                bound = BoundCheck(check, card, placement, case)
                params.append(_param(bound, expected_failures or {}, unused))
    if unused:
        raise ValueError(
            f"expected_failures names {', '.join(sorted(unused))}, which matches no check; "
            "remove it or correct the pattern (id: impl-dtype-case-check)"
        )
    return pytest.mark.parametrize("check", params)


def _param(bound: BoundCheck, gaps: Mapping[str, str], unused: set[str]) -> Any:
    """The check with a mark for every gap that names it; those are taken out of `unused`."""
    import pytest

    known = [pattern for pattern in gaps if fnmatchcase(bound.id, pattern)]
    unused.difference_update(known)
    marks = [pytest.mark.xfail(strict=True, reason=gaps[pattern]) for pattern in known]
    return pytest.param(bound, id=bound.id, marks=marks)
