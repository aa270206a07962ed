"""The few distributions that the statistics need, without SciPy: binomial and Student's t."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from statistics import NormalDist

import numpy as np

LEVEL = 0.95
NORMAL = NormalDist().inv_cdf(0.5 + LEVEL / 2)
STUDENT = (12.706, 4.303, 3.182, 2.776)
"""Two-sided 95 % quantiles for 1 to 4 degrees of freedom."""


@lru_cache(maxsize=1024)
def sign_test_rank(count: int) -> int:
    """Rank, from 1, of the order statistic that bounds the median from below with 97.5 %."""
    below = np.exp(binomial_logs(count, 0.5)).cumsum()
    return max(1, int(np.searchsorted(below, 0.5 - LEVEL / 2, side="right")))


def student(freedom: int) -> float:
    """Two-sided 95 % quantile of Student's t, to 0.1 % (Abramowitz and Stegun 26.7.5)."""
    if freedom <= len(STUDENT):
        return STUDENT[freedom - 1]
    z = NORMAL
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / freedom + second / freedom**2 + third / freedom**3


def binomial_logs(trials: int, chance: float) -> np.ndarray:
    """Logarithm of the binomial probability of 0..trials successes; 0 < chance < 1."""
    factorials = np.concatenate([[0.0], np.log(np.arange(1, trials + 1)).cumsum()])
    successes = np.arange(trials + 1)
    ways = factorials[-1] - factorials - factorials[::-1]
    logs: np.ndarray = ways + successes * math.log(chance) + successes[::-1] * math.log1p(-chance)
    return logs


def binomial_cdf(successes: int, trials: int, chance: float) -> float:
    """Probability of at most `successes`; 0 < chance < 1."""
    return float(np.exp(binomial_logs(trials, chance)[: successes + 1]).sum())


def bisect(reached: Callable[[float], bool]) -> float:
    """The point of (0, 1) from which on a monotone condition holds."""
    lo, hi = 0.0, 1.0
    for _ in range(60):
        middle = (lo + hi) / 2
        lo, hi = (lo, middle) if reached(middle) else (middle, hi)
    return (lo + hi) / 2


def student_within(value: float, freedom: int) -> float:
    """Probability that |T| <= value of Student's t with `freedom` degrees of freedom.

    The finite series of Abramowitz and Stegun 26.7.3 and 26.7.4, exact for whole degrees.

    Raises:
        ValueError: no degree of freedom.
    """
    if freedom < 1:
        raise ValueError(f"{freedom} degrees of freedom: Student's t needs at least 1")
    angle = math.atan(abs(value) / math.sqrt(freedom))
    cosine, odd = math.cos(angle), freedom % 2 == 1
    term = cosine if odd else 1.0
    total = term if freedom > 1 else 0.0
    for power in range(3 if odd else 2, freedom - 1, 2):
        term *= cosine**2 * (power - 1) / power
        total += term
    within = math.sin(angle) * total
    return 2.0 / math.pi * (angle + within) if odd else within


def student_quantile(freedom: int, level: float = LEVEL) -> float:
    """The value that |T| stays within with probability `level`."""
    share = bisect(
        lambda x: student_within(math.sqrt(freedom) * math.tan(math.pi / 2 * x), freedom) >= level
    )
    return math.sqrt(freedom) * math.tan(math.pi / 2 * share)
