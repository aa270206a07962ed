"""Intervals and verdicts for paired timings: NumPy only, the same numbers for the same seed.

The interval of a median over n rounds is the wider, on each side, of two:

* the moving-block percentile bootstrap over rounds (blocks of sqrt(n) rounds), and
* the exact order-statistic interval of the sign test, which assumes no distribution; where the
  rounds' signs about the median show a serial correlation r above 0.5/sqrt(n), its ranks spread
  by sqrt((1 + r)/(1 - r)), the inflation of an AR(1) series.

Either alone would be wrong: a bootstrapped median covers too little with few rounds, and the
sign test with dependent ones. Misses of a true ratio of 1, nominal 5 %, in percent of 1000
simulated runs of n = 7, 15, 30, 100 rounds (test_stats.py prints and bounds such a table;
heavy-tailed is Student's t with 1.5 degrees of freedom):

    noise                         this module       bootstrap alone   sign test alone
    normal, independent           2   3   3   2     29  20  12   9     2   4   4   3
    heavy-tailed, independent     2   2   2   3     32  19  13  10     2   3   4   3
    normal, AR(1) 0.3             6   6   5   2     36  25  15  11     6  10  11   9
    heavy-tailed, AR(1) 0.3       8   6   4   4     41  25  16  11     8  13  12  12
    heavy-tailed, AR(1) 0.5      16   8   8   5     49  30  19  13    16  20  22  22

Noise that jumps to another level every 20 of 300 rounds: 17, 17 and 46. A memory that is long
beside the run stays invisible to every method; the A/A twin is there to show it.
Five rounds or fewer cannot reach 95 % by ranks: they get Student's interval of the mean or the
range, whichever is wider. One round has no interval (lo = 0, hi = inf).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.distributions import (
    LEVEL,
    NORMAL,
    binomial_cdf,
    bisect,
    sign_test_rank,
    student,
)

RESAMPLES = 2000
MARGIN = 0.03
"""Two times closer than this count as the same (harness/README.md, verdict)."""
LONG_MEMORY = 0.9
"""A serial correlation is never taken to be larger: the interval would be the whole range."""
RANKS_FROM = 6
"""Fewest rounds whose range covers their median with 95 %: 1 - 2/2**6 = 0.969."""

Rounds = np.ndarray | Sequence[float] | Sequence[Sequence[float]] | Sequence[np.ndarray]


@dataclass(frozen=True)
class Interval:
    """A positive estimate with its two-sided 95 % interval; unbounded is lo = 0, hi = inf."""

    value: float
    lo: float
    hi: float

    @property
    def halfwidth(self) -> float:
        """Half the width of the interval of log(value): 0.01 is about +-1 %; inf if unbounded."""
        if self.lo <= 0.0 or math.isinf(self.hi):
            return math.inf
        return 0.5 * (math.log(self.hi) - math.log(self.lo))

    @property
    def bounded(self) -> bool:
        """Whether both ends are positive numbers that a row may hold."""
        return math.isfinite(self.halfwidth)

    def contains(self, value: float) -> bool:
        """Whether the value lies in the interval, ends included."""
        return self.lo <= value <= self.hi


def round_medians(samples: Rounds) -> np.ndarray:
    """Median of each round, [rounds], from [rounds], [rounds, k] or rounds of unequal length.

    Raises:
        ValueError: no round, a round without samples, or a sample that is not finite.
    """
    rows = [np.ravel(row) for row in samples]
    if len({row.size for row in rows}) == 1 and rows[0].size:
        medians: np.ndarray = np.median(np.stack(rows), axis=1)
    else:
        medians = np.array([float(np.median(row)) if row.size else np.nan for row in rows], float)
    if medians.size == 0 or not np.isfinite(medians).all():
        raise ValueError(f"{medians.size} rounds, some without a finite sample: give at least one")
    return medians


def paired_ratio(base: Rounds, arm: Rounds, seed: int, resamples: int = RESAMPLES) -> Interval:
    """Ratio base/arm of two contenders measured in the same rounds; > 1: the arm is faster.

    The median of the rounds' log ratios of medians, so that whatever slows a whole round cancels.

    Args:
        base: times of the baseline by round, as in `round_medians`, in any unit.
        arm: times of the arm in the same rounds and unit.
        seed: of the bootstrap.
        resamples: of the bootstrap; 0 leaves it out, for a cheap look while measuring.

    Raises:
        ValueError: unequal numbers of rounds, or a time that is not positive.
    """
    over, under = round_medians(base), round_medians(arm)
    if len(over) != len(under):
        raise ValueError(f"{len(over)} and {len(under)} rounds: a ratio needs the same rounds")
    if min(over.min(), under.min()) <= 0.0:
        raise ValueError("a time of 0 or less has no ratio: use a finer clock or longer samples")
    logs = np.log(over) - np.log(under)
    lo, hi = _of_median(logs, seed, resamples)
    high = math.exp(hi) if hi < 700.0 else math.inf
    return Interval(math.exp(np.median(logs)), math.exp(lo), high)


def median_interval(samples: Rounds, seed: int, resamples: int = RESAMPLES) -> Interval:
    """Median of all samples, in their unit, with the interval of the rounds' medians.

    Raises:
        ValueError: as `round_medians`.
    """
    medians = round_medians(samples)
    value = float(np.median(np.concatenate([np.ravel(row) for row in samples])))
    lo, hi = _of_median(medians, seed, resamples)
    return Interval(value, max(0.0, min(lo, value)), max(hi, value))


def min_ratio(base: Rounds, arm: Rounds) -> float:
    """Smallest base sample over the smallest arm sample: the steadiest ratio of short samples."""
    least = [min(float(np.min(row)) for row in samples) for samples in (base, arm)]
    if min(least) <= 0.0:
        raise ValueError("a time of 0 or less has no ratio: use a finer clock or longer samples")
    return least[0] / least[1]


def verdict(
    interval: Interval, control: Interval | None, margin: float = MARGIN, noisy: bool = False
) -> str | None:
    """FASTER, SLOWER, SAME or AMBIGUOUS; None for a noisy cell, which gets no verdict.

    Args:
        interval: of base/arm.
        control: of the baseline over its own twin in the same sitting; without one that contains
            1 no difference is claimed.
        margin: of equivalence, the same factor 1 + margin on both sides.
    """
    if noisy:
        return None
    near = 1.0 + margin
    if 1.0 / near <= interval.lo and interval.hi <= near:
        return "SAME"
    if control is not None and control.contains(1.0):
        if interval.lo > near:
            return "FASTER"
        if interval.hi < 1.0 / near:
            return "SLOWER"
    return "AMBIGUOUS"


def geometric_mean(values: Sequence[float], seed: int, resamples: int = RESAMPLES) -> Interval:
    """Geometric mean over grid points, with a percentile bootstrap over the points.

    The bootstrap's deviations are stretched by Student's quantile over the normal one and by
    sqrt(n/(n-1)), without which it covers too little for few points.

    Raises:
        ValueError: no value, or one that is not a positive number.
    """
    data = np.asarray(values, float)
    if data.size == 0 or not (np.isfinite(data) & (data > 0.0)).all():
        raise ValueError("a geometric mean needs at least one value, all positive and finite")
    logs, count = np.log(data), data.size
    value = math.exp(logs.mean())
    if count == 1:
        return Interval(value, 0.0, math.inf)
    picks = np.random.default_rng(seed).integers(0, count, (resamples, count))
    deviations = logs[picks].mean(axis=1) - logs.mean()
    stretch = student(count - 1) / NORMAL * math.sqrt(count / (count - 1))
    lo, hi = np.quantile(deviations, [0.5 - LEVEL / 2, 0.5 + LEVEL / 2]) * stretch
    return Interval(value, value * math.exp(lo), value * math.exp(hi))


def clopper_pearson(successes: int, trials: int, level: float = LEVEL) -> tuple[float, float]:
    """Exact interval of a proportion (Clopper and Pearson 1934), by bisection of the tails.

    Raises:
        ValueError: no trial, or more successes than trials.
    """
    if not 0 <= successes <= trials or trials < 1:
        raise ValueError(f"{successes} of {trials}: give 0 <= successes <= trials, trials >= 1")
    tail = 0.5 - level / 2
    lo = hi = 0.0
    if successes > 0:
        lo = bisect(lambda p: 1.0 - binomial_cdf(successes - 1, trials, p) >= tail)
    if successes < trials:
        hi = bisect(lambda p: binomial_cdf(successes, trials, p) <= tail)
    return lo, 1.0 if successes == trials else hi


def _of_median(values: np.ndarray, seed: int, resamples: int) -> tuple[float, float]:
    """95 % interval of the median of values [rounds] in the order in which they were measured."""
    count, ordered = len(values), np.sort(values)
    if count == 1:
        return -math.inf, math.inf
    if count < RANKS_FROM:
        reach = student(count - 1) * float(np.std(values, ddof=1)) / math.sqrt(count)
        mean = float(values.mean())
        return float(min(ordered[0], mean - reach)), float(max(ordered[-1], mean + reach))
    middle = (count + 1) / 2
    spread = (middle - sign_test_rank(count)) * math.sqrt(_inflation(values))
    rank = max(1, math.floor(middle - spread))
    lo, hi = ordered[rank - 1], ordered[count - rank]
    if resamples and rank > 1:  # a resample cannot leave the range
        low, high = _block_bootstrap(values, seed, resamples)
        lo, hi = min(lo, low), max(hi, high)
    return float(lo), float(hi)


def _block_bootstrap(values: np.ndarray, seed: int, resamples: int) -> tuple[float, float]:
    """Percentile interval of the median of overlapping blocks of rounds (Kuensch 1989)."""
    count = len(values)
    block = round(math.sqrt(count))
    starts = np.random.default_rng(seed).integers(
        0, count - block + 1, (resamples, -(-count // block))
    )
    picks = (starts[:, :, None] + np.arange(block)).reshape(resamples, -1)[:, :count]
    halves = [(count - 1) // 2, count // 2]
    medians = np.partition(values[picks], halves, axis=1)[:, halves].mean(axis=1)
    low, high = np.quantile(medians, [0.5 - LEVEL / 2, 0.5 + LEVEL / 2])
    return float(low), float(high)


def _inflation(values: np.ndarray) -> float:
    """Variance of the count of values below the median, relative to that of independent ones."""
    signs = np.sign(values - np.median(values))
    correlation = float(signs[1:] @ signs[:-1]) / max(1.0, float(signs @ signs))
    if correlation < 0.5 / math.sqrt(len(values)):
        return 1.0
    correlation = min(correlation + 1.0 / len(values), LONG_MEMORY)  # removing the median biases it
    return (1.0 + correlation) / (1.0 - correlation)
