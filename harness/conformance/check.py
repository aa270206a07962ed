"""What a check is: a claim in words that holds for one implementation, placement and case."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from harness.conformance.cases import Case
from harness.conformance.subject import Subject
from impls.contract import DTYPES, Implementation, ModelSpec, Placement
from impls.params import stream_hindrance
from impls.reference import has_oracle


@dataclass(frozen=True)
class Measured:
    """The worst quantity that a check looked at.

    Attributes:
        quantity: the name of the array, e.g. "grad.x".
        error: relative Frobenius error, infinite where the array is absent or not finite.
        tolerance: the largest error that passes.
        note: what is wrong in words, where the error alone does not say it.
    """

    quantity: str
    error: float
    tolerance: float
    note: str = ""

    @property
    def passed(self) -> bool:
        """Whether the error is within the tolerance; NaN never is."""
        return self.error <= self.tolerance


class ConformanceError(AssertionError):
    """A claim that does not hold; the message names it, and the attributes carry the numbers."""

    def __init__(
        self, check: Check, card: Implementation, dtype: str, case: Case, measured: Measured
    ):
        self.impl, self.dtype, self.spec = card.name, dtype, case.spec
        self.check, self.claim, self.measured = check.name, check.claim, measured
        what = measured.note or (
            f"{measured.quantity} is off by {measured.error:.2e} (relative Frobenius norm), "
            f"allowed are {measured.tolerance:.0e}"
        )
        super().__init__(
            f"{card.name} breaks the claim '{check.claim}' ({check.name}): {what} "
            f"[{dtype}; {case.name}: {case.label()}]"
        )


@dataclass(frozen=True)
class Check:
    """One conformance check; call it with (card, placement, case).

    Attributes:
        name: the function's name without `check_`.
        claim: what must hold, in words.
        needs_oracle: it compares with `impls.reference`, so the family must have an oracle.
        applies: whether the claim says anything about a ModelSpec.
        kinds: the kinds of Work that it asks for.
        dtypes: the dtypes for which it means anything.
        streams: it carries a state from one work to the next.
    """

    name: str
    claim: str
    measure: Callable[[Subject], Measured]
    needs_oracle: bool
    applies: Callable[[ModelSpec], bool]
    kinds: tuple[str, ...]
    dtypes: tuple[str, ...]
    streams: bool = False

    def suits(self, spec: ModelSpec, dtype: str) -> bool:
        """Whether the check can be asked of this spec in this dtype at all."""
        known = has_oracle(spec.family) or not self.needs_oracle
        return known and dtype in self.dtypes and self.applies(spec)

    def hindrance(self, spec: ModelSpec) -> str | None:
        """Why the check cannot be made of this family, or None."""
        return stream_hindrance(spec) if self.streams else None

    def __call__(self, card: Implementation, placement: Placement, case: Case) -> Measured:
        """Return the worst measured quantity.

        Raises:
            ConformanceError: the claim does not hold, or the implementation raised on the way.
            NotImplementedError: the implementation's `prepare` does not offer this kind of work.
        """
        try:
            measured = self.measure(Subject(card, placement, case))
        except NotImplementedError:
            raise
        except Exception as error:
            text = f"it raised {type(error).__name__}: {error}"
            measured = Measured("exception", math.inf, 0.0, text)
            raise ConformanceError(self, card, placement.dtype, case, measured) from error
        if not measured.passed:
            raise ConformanceError(self, card, placement.dtype, case, measured)
        return measured


CHECKS: dict[str, Check] = {}
"""Every check by name, in the order of definition."""


def every_spec(spec: ModelSpec) -> bool:
    """The claim holds for any spec."""
    return True


def check(
    claim: str,
    *,
    needs_oracle: bool = False,
    applies: Callable[[ModelSpec], bool] = every_spec,
    kinds: tuple[str, ...] = ("forward",),
    dtypes: tuple[str, ...] = DTYPES,
    streams: bool = False,
) -> Callable[[Callable[[Subject], Measured]], Check]:
    """Make a `check_<name>(subject) -> Measured` function a registered Check."""

    def register(measure: Callable[[Subject], Measured]) -> Check:
        name = measure.__name__.removeprefix("check_")
        CHECKS[name] = Check(name, claim, measure, needs_oracle, applies, kinds, dtypes, streams)
        return CHECKS[name]

    return register


def relative_error(given: np.ndarray, expected: np.ndarray) -> float:
    """||given - expected|| / ||expected|| in float64; infinite where `given` is not finite.

    Where the expected array is zero the error is ||given|| itself.
    """
    given, expected = np.asarray(given, np.float64), np.asarray(expected, np.float64)
    if not np.all(np.isfinite(given)):
        return math.inf
    return float(np.linalg.norm(given - expected) / (np.linalg.norm(expected) or 1.0))


def worst(
    given: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray], tolerance: float
) -> Measured:
    """The quantity on which `given` is furthest from `expected`; their names must agree."""
    found = Measured("nothing", math.inf, tolerance, "there is nothing to compare")
    for at, name in enumerate([*expected, *(given.keys() - expected.keys())]):
        one = _one(name, given, expected, tolerance)
        if at == 0 or one.error > found.error:
            found = one
    return found


def _one(
    name: str,
    given: Mapping[str, np.ndarray],
    expected: Mapping[str, np.ndarray],
    tolerance: float,
) -> Measured:
    if name not in given or name not in expected:
        word = "is missing" if name not in given else "is not a name that belongs there"
        return Measured(name, math.inf, tolerance, f"{name} {word}")
    shapes = np.shape(given[name]), np.shape(expected[name])
    if shapes[0] != shapes[1]:
        text = f"{name} has shape {shapes[0]}, it must be {shapes[1]}"
        return Measured(name, math.inf, tolerance, text)
    error = relative_error(given[name], expected[name])
    note = "" if math.isfinite(error) else f"{name} holds values that are not finite"
    return Measured(name, error, tolerance, note)


def exactly(given: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> Measured:
    """Like `worst`, but the bits must be equal."""
    measured = worst(given, expected, 0.0)
    if measured.passed or measured.note:
        return measured
    text = f"{measured.quantity} differs by {measured.error:.2e} where the bits must be equal"
    return Measured(measured.quantity, measured.error, 0.0, text)


def named(prefix: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays whose name begins with `prefix`."""
    return {name: value for name, value in arrays.items() if name.startswith(prefix)}
