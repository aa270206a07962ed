"""Do two arms differ? Tests and intervals of paired training runs: NumPy only, no framework.

Everything works on differences in points, one per seed that both arms share. The tests'
false positives on identical arms, of 200 simulated runs at nominal 5 % (test_contrasts.py prints
and bounds the table), are at most 21.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.distributions import LEVEL, NORMAL, student, student_quantile, student_within

ALPHA = 0.05
MARGIN = 1.0
"""Points; differences that surely are smaller count as none."""
ENOUGH = 8
"""Fewest seeds of a claim: the sign-flip test's smallest p is 2/2**n, and Holm divides by 6."""
MOST = 40
"""Most seeds whose sign patterns are counted."""
RESAMPLES = 4000
TRIMMED = 0.25

Values = Sequence[float] | np.ndarray


@dataclass(frozen=True)
class Paired:
    """What the differences arm - reference over shared seeds say.

    Attributes:
        n: seeds; mean: of the differences; lo, hi: 95 % interval of the mean by Student's t
            (infinite with one seed).
        p: exact two-sided sign-flip test; improved: share of seeds where the arm is better, ties
            count half; dz: mean over standard deviation (Cohen), None where all seeds agree.
        p_equivalent: two one-sided t tests that the mean lies within +-`MARGIN`.
    """

    n: int
    mean: float
    lo: float
    hi: float
    p: float
    improved: float
    dz: float | None
    p_equivalent: float

    @property
    def equivalent(self) -> bool:
        """Whether the mean surely lies within the margin."""
        return self.p_equivalent < ALPHA


@dataclass(frozen=True)
class Estimate:
    """A value with its two-sided 95 % interval."""

    value: float
    lo: float
    hi: float


def paired(arm: Values, reference: Values, margin: float = MARGIN) -> Paired:
    """Compare two arms seed by seed; the same seed stands at the same place in both.

    Raises:
        ValueError: different numbers of seeds, none, or a value that is not finite.
    """
    arm, reference = np.asarray(arm, float), np.asarray(reference, float)
    if arm.shape != reference.shape or arm.ndim != 1 or arm.size == 0:
        raise ValueError(f"{arm.shape} and {reference.shape}: give the same seeds, at least one")
    gaps = arm - reference
    if not np.isfinite(gaps).all():
        raise ValueError("a score that is not finite: a failed run counts as the chance level")
    count, mean = gaps.size, float(gaps.mean())
    spread = float(gaps.std(ddof=1)) if count > 1 else math.inf
    if spread <= 1e-12 * float(np.abs(gaps).max()):  # the same difference in every seed
        spread = 0.0
    reach = student_quantile(count - 1) * spread / math.sqrt(count) if count > 1 else math.inf
    return Paired(
        n=count,
        mean=mean,
        lo=mean - reach,
        hi=mean + reach,
        p=sign_flip(gaps),
        improved=float(((gaps > 0) + 0.5 * (gaps == 0)).mean()),
        dz=mean / spread if 0.0 < spread < math.inf else None,
        p_equivalent=_equivalence(mean, spread, count, margin),
    )


def sign_flip(differences: Values) -> float:
    """Exact two-sided p of the mean under all 2**n signs of the differences (Fisher 1935).

    The share of sign patterns whose sum is at least as far from 0; where all differences are 0
    that is every pattern. The patterns are counted, in two halves, not drawn.

    Raises:
        ValueError: no difference, or more than `MOST`.
    """
    gaps = np.abs(np.asarray(differences, float))
    if not 1 <= gaps.size <= MOST:
        raise ValueError(f"{gaps.size} differences: the exact test takes 1 to {MOST}")
    limit = abs(float(np.sum(differences))) - 1e-9 * float(gaps.sum())  # rounding is no evidence
    left, right = _sums(gaps[::2]), np.sort(_sums(gaps[1::2]))
    reached = right.size - np.searchsorted(right, limit - left, side="left")
    return float(min(1.0, 2.0 * reached.sum() / (left.size * right.size)))


def _sums(values: np.ndarray) -> np.ndarray:
    """Sums of the values under every pattern of signs."""
    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate([sums + value, sums - value])
    return sums


def _equivalence(mean: float, spread: float, count: int, margin: float) -> float:
    """The larger p of the two one-sided t tests (Schuirmann 1987)."""
    if count < 2 or abs(mean) >= margin:
        return 1.0
    if spread == 0.0:
        return 0.0
    value = (margin - abs(mean)) * math.sqrt(count) / spread
    return 0.5 * (1.0 - student_within(value, count - 1))


def holm(ps: Values) -> list[float]:
    """Adjusted p values that keep the family's error (Holm 1979), in the order given."""
    values = np.asarray(ps, float)
    order = np.argsort(values, kind="stable")
    steps = np.maximum.accumulate((values.size - np.arange(values.size)) * values[order])
    return _back(steps, order)


def benjamini_hochberg(ps: Values) -> list[float]:
    """Adjusted p values that keep the false discovery rate (1995), in the order given."""
    values = np.asarray(ps, float)
    order = np.argsort(values, kind="stable")
    steps = values[order] * values.size / np.arange(1, values.size + 1)
    return _back(np.minimum.accumulate(steps[::-1])[::-1], order)


def _back(adjusted: np.ndarray, order: np.ndarray) -> list[float]:
    out = np.empty(order.size)
    out[order] = np.minimum(adjusted, 1.0)
    return [float(value) for value in out]


def iqm(values: Values) -> float:
    """Interquartile mean: without the lowest and the highest quarter of the runs."""
    return float(_iqm(np.asarray(values, float)[None])[0])


def _iqm(values: np.ndarray) -> np.ndarray:
    cut = int(TRIMMED * values.shape[1])
    means: np.ndarray = np.sort(values, axis=1)[:, cut : values.shape[1] - cut].mean(axis=1)
    return means


def across_tasks(
    pairs: Sequence[tuple[Values, Values]], seed: int, resamples: int = RESAMPLES
) -> Estimate:
    """Difference of the interquartile means of two arms over all runs of several tasks.

    The interval is a percentile bootstrap, stratified by task: the seeds of each task are drawn
    with replacement, the same ones for both arms. As in `harness.speed.stats.geometric_mean` its
    deviations are stretched by Student's quantile over the normal one and by sqrt(n/(n-1)).

    Args:
        pairs: per task the scaled scores of (arm, reference), seeds at the same places.

    Raises:
        ValueError: no task, or one with different numbers of seeds.
    """
    both = [(np.asarray(arm, float), np.asarray(ref, float)) for arm, ref in pairs]
    if not both or any(a.shape != r.shape or a.size == 0 for a, r in both):
        raise ValueError("give at least one task, and the same seeds of both arms")
    sides = [np.concatenate(side)[None] for side in zip(*both, strict=True)]
    value = float(_iqm(sides[0])[0] - _iqm(sides[1])[0])
    fewest = min(arm.size for arm, _ in both)
    if fewest < 2:
        return Estimate(value, -math.inf, math.inf)
    rng = np.random.default_rng(seed)
    picks = [rng.integers(0, arm.size, (resamples, arm.size)) for arm, _ in both]
    drawn = [
        np.concatenate([pair[side][pick] for pair, pick in zip(both, picks, strict=True)], axis=1)
        for side in (0, 1)
    ]
    deviations = _iqm(drawn[0]) - _iqm(drawn[1]) - value
    stretch = student(fewest - 1) / NORMAL * math.sqrt(fewest / (fewest - 1))
    lo, hi = np.quantile(deviations, [0.5 - LEVEL / 2, 0.5 + LEVEL / 2]) * stretch
    return Estimate(value, value + float(lo), value + float(hi))
