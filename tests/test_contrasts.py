"""Tests of paired arms against scipy and statsmodels, worked examples, and identical arms (A/A)."""

import itertools

import numpy as np
import pytest

from harness.analysis import contrasts
from harness.distributions import student_quantile, student_within

scipy_stats = pytest.importorskip("scipy.stats")

RNG = np.random.default_rng(4)
SAMPLES = [RNG.normal(0.4, 1.0, n) for n in (2, 5, 8, 10, 13)]
RUNS, MOST = 200, 21


@pytest.mark.parametrize("gaps", SAMPLES, ids=len)
def test_the_interval_is_students(gaps):
    found = contrasts.paired(gaps + 7.0, np.full(gaps.size, 7.0))
    theirs = scipy_stats.ttest_1samp(gaps, 0.0).confidence_interval(0.95)
    assert (found.lo, found.hi) == pytest.approx((theirs.low, theirs.high), rel=1e-9)
    assert found.dz == pytest.approx(gaps.mean() / gaps.std(ddof=1))


def test_students_series_equals_scipys_distribution():
    for freedom, value in itertools.product(range(1, 40), (0.0, 0.3, 1.0, 2.5, 12.0)):
        within = 1.0 - 2.0 * scipy_stats.t.sf(value, freedom)
        assert student_within(value, freedom) == pytest.approx(within, abs=1e-13)
    for freedom, level in itertools.product((1, 2, 7, 30), (0.9, 0.95, 0.99)):
        quantile = scipy_stats.t.ppf(0.5 + level / 2, freedom)
        assert student_quantile(freedom, level) == pytest.approx(quantile, rel=1e-9)


@pytest.mark.parametrize("gaps", SAMPLES, ids=len)
def test_the_sign_flip_p_is_scipys_exact_permutation_p(gaps):
    theirs = scipy_stats.permutation_test(
        (gaps, np.zeros(gaps.size)), lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples", n_resamples=np.inf,
    )  # fmt: skip
    assert contrasts.sign_flip(gaps) == pytest.approx(theirs.pvalue, abs=1e-12)


@pytest.mark.parametrize(
    ("gaps", "p"),
    [
        ([0.0] * 10, 1.0),  # every pattern is as far from 0
        ([1.0], 1.0),
        ([1.0, 2.0, 3.0], 2 / 8),  # only +++ and ---
        ([1.0, 2.0, -3.0], 1.0),
        ([3.0, 2.0, -1.0], 4 / 8),  # sums 6 and 4 and their negatives
        ([0.0, 0.0, 1.0, 1.0], 2 / 4),  # a zero doubles every pattern alike
        ([0.1, 0.2, -0.3], 1.0),  # a sum of 0 but for rounding
        ([1.0] * 8, 2 / 2**8),
        ([1.0] * 10, 2 / 2**10),
        ([1.0] * 30, 2 / 2**30),
    ],
)
def test_the_sign_flip_p_of_worked_examples(gaps, p):
    assert contrasts.sign_flip(gaps) == pytest.approx(p, abs=1e-15)


def test_no_difference_is_no_difference():
    found = contrasts.paired([3.0] * 8, [3.0] * 8)
    assert (found.mean, found.lo, found.hi, found.p) == (0.0, 0.0, 0.0, 1.0)
    assert found.dz is None
    assert found.improved == 0.5
    assert found.equivalent


def test_one_seed_has_no_interval_and_no_evidence():
    found = contrasts.paired([5.0], [1.0])
    assert (found.mean, found.lo, found.hi, found.p) == (4.0, -np.inf, np.inf, 1.0)
    assert not found.equivalent


def test_ties_count_half_of_an_improvement():
    assert contrasts.paired([2.0, 1.0, 1.0, 0.0], [1.0] * 4).improved == 0.5
    assert contrasts.paired([2.0, 2.0, 1.0, 1.0], [1.0] * 4).improved == 0.75


def test_holm_and_benjamini_hochberg_are_those_of_statsmodels():
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    for size in (1, 2, 6, 9):
        for ps in np.random.default_rng(size).uniform(0, 0.2, (3, size)).round(2):
            for ours, method in (
                (contrasts.holm, "holm"),
                (contrasts.benjamini_hochberg, "fdr_bh"),
            ):
                assert ours(ps) == pytest.approx(multitest.multipletests(ps, method=method)[1])


def test_holm_by_hand():
    given = [0.01, 0.04, 0.03, 0.005, 0.002, 0.5]
    by_hand = [0.04, 0.09, 0.09, 0.025, 0.012, 0.5]  # 6*.002 5*.005 4*.01 3*.03 2*.04<.09 1*.5
    assert contrasts.holm(given) == pytest.approx(by_hand)
    by_hand = [0.02, 0.048, 0.045, 0.015, 0.012, 0.5]  # 6/i times each, from the largest down
    assert contrasts.benjamini_hochberg(given) == pytest.approx(by_hand)


@pytest.mark.parametrize("gaps", SAMPLES[1:], ids=len)
def test_equivalence_is_two_one_sided_tests(gaps):
    ours = contrasts.paired(0.5 * gaps, np.zeros(gaps.size)).p_equivalent
    if abs(0.5 * gaps.mean()) >= 1.0:
        assert ours == 1.0
        return
    low = scipy_stats.ttest_1samp(0.5 * gaps, -1.0, alternative="greater").pvalue
    high = scipy_stats.ttest_1samp(0.5 * gaps, 1.0, alternative="less").pvalue
    assert ours == pytest.approx(max(low, high), rel=1e-9)


def test_the_interquartile_mean_is_scipys_trimmed_mean():
    for size in (1, 3, 4, 7, 30):
        values = RNG.normal(size=size)
        assert contrasts.iqm(values) == pytest.approx(scipy_stats.trim_mean(values, 0.25))


def test_both_arms_are_drawn_with_the_same_seeds():
    noise = [RNG.normal(0, 5.0, 10) for _ in range(3)]
    apart = contrasts.across_tasks([(task + 0.25, task) for task in noise], 0)
    assert (apart.value, apart.lo, apart.hi) == pytest.approx((0.25, 0.25, 0.25))


def test_seeds_are_drawn_within_their_task():
    levels = [np.full(8, level) for level in (0.0, 0.3, 0.9)]
    found = contrasts.across_tasks([(task, task * 0.0) for task in levels], 0)
    assert found.lo == pytest.approx(found.hi)


def test_what_cannot_be_compared_is_refused():
    for arm, reference in (([1.0], [1.0, 2.0]), ([], []), ([np.nan], [1.0])):
        with pytest.raises(ValueError, match=r"seed|finite"):
            contrasts.paired(arm, reference)
    with pytest.raises(ValueError, match="1 to 40"):
        contrasts.sign_flip([1.0] * 41)
    with pytest.raises(ValueError, match="same seeds"):
        contrasts.across_tasks([([1.0], [1.0, 2.0])], 0)


def _noise(kind, rng, shape):
    return rng.standard_normal(shape) if kind == "normal" else rng.standard_t(2, shape)


@pytest.mark.parametrize("seeds", [8, 10])
@pytest.mark.parametrize("kind", ["normal", "heavy-tailed"])
def test_identical_arms_are_rejected_at_most_21_times_in_200(kind, seeds, capsys):
    """A family of 6 arms equal to their reference, on 3 tasks: every run and seed independent."""
    rng = np.random.default_rng(2026)
    wrong = dict.fromkeys(("interval", "sign flip", "Holm, any of 6", "BH, any of 6", "IQM"), 0)
    for _ in range(RUNS):
        scores = _noise(kind, rng, (3, 7, seeds))  # task, arm (the last is the reference), seed
        family = [contrasts.paired(arm, scores[0, 6]) for arm in scores[0, :6]]
        ps = [one.p for one in family]
        across = contrasts.across_tasks([(task[0], task[6]) for task in scores], 0, 200)
        wrong["interval"] += not family[0].lo <= 0.0 <= family[0].hi
        wrong["sign flip"] += ps[0] < contrasts.ALPHA
        wrong["Holm, any of 6"] += min(contrasts.holm(ps)) < contrasts.ALPHA
        wrong["BH, any of 6"] += min(contrasts.benjamini_hochberg(ps)) < contrasts.ALPHA
        wrong["IQM"] += not across.lo <= 0.0 <= across.hi
    with capsys.disabled():
        print(f"\nA/A of {RUNS}, {kind}, {seeds} seeds: {wrong}")
    assert max(wrong.values()) <= MOST


@pytest.mark.parametrize("seeds", [8, 10])
@pytest.mark.parametrize("kind", ["normal", "heavy-tailed"])
def test_a_difference_of_just_the_margin_is_called_none_at_most_21_times_in_200(kind, seeds):
    rng = np.random.default_rng(2026)
    runs = contrasts.MARGIN + 0.3 * _noise(kind, rng, (RUNS, seeds))
    assert sum(contrasts.paired(run, 0.0 * run).equivalent for run in runs) <= MOST


def test_unpaired_noise_is_what_pairing_takes_away():
    """The test has power: a shift of one standard deviation of the gaps is mostly found."""
    runs = 1.5 + np.random.default_rng(3).standard_normal((RUNS, 10))
    assert np.mean([contrasts.sign_flip(run) < contrasts.ALPHA for run in runs]) > 0.9
