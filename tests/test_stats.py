"""Intervals cover what they claim, by simulation, and the tempting wrong methods do not."""

import math
import time

import numpy as np
import pytest

from harness.distributions import sign_test_rank, student
from harness.speed import stats
from harness.speed.stats import Interval

RUNS = 300
ROUNDS = (7, 15, 30, 100)
CASES = {  # noise of the log ratio: innovations, serial correlation, most misses allowed in percent
    "normal, independent": ("normal", 0.0, 8.0),
    "heavy-tailed, independent": ("heavy", 0.0, 8.0),
    "normal, AR(1) 0.3": ("normal", 0.3, 11.0),
    "heavy-tailed, AR(1) 0.3": ("heavy", 0.3, 11.0),
}


def series(kind, correlation, runs, rounds, seed=5):
    """[runs, rounds] of stationary AR(1) noise with median 0."""
    rng = np.random.default_rng(seed)
    shape = (runs, rounds + 50)
    noise = rng.standard_normal(shape) if kind == "normal" else rng.standard_t(1.5, shape)
    for t in range(1, shape[1]):
        noise[:, t] += correlation * noise[:, t - 1]
    return noise[:, 50:]


def ours(logs, seed):
    base = 1e6 * np.exp(logs)
    return stats.paired_ratio(base, np.full(len(logs), 1e6), seed, resamples=400)


def bootstrap_of_single_rounds(logs, seed):
    """Mutant: the naive percentile bootstrap."""
    picks = np.random.default_rng(seed).integers(0, len(logs), (400, len(logs)))
    lo, hi = np.quantile(np.median(logs[picks], axis=1), [0.025, 0.975])
    return Interval(1.0, math.exp(lo), math.exp(hi))


def sign_test_without_memory(logs, seed):
    """Mutant: rounds taken to be independent."""
    rank, ordered = sign_test_rank(len(logs)), np.sort(logs)
    return Interval(1.0, math.exp(ordered[rank - 1]), math.exp(ordered[-rank]))


def missed(method, kind, correlation, rounds):
    """Percent of simulated runs whose interval does not contain the true ratio of 1."""
    runs = 0.01 * series(kind, correlation, RUNS, rounds)
    return 100 * np.mean([not method(logs, seed).contains(1.0) for seed, logs in enumerate(runs)])


def test_false_positives_stay_near_five_percent(capsys):
    lines, worst = [], {}
    for name, (kind, correlation, most) in CASES.items():
        found = [missed(ours, kind, correlation, rounds) for rounds in ROUNDS]
        worst[name] = (max(found), most)
        lines.append(f"{name:28}" + "".join(f"{value:7.1f}" for value in found))
    print("\n".join([f"{'misses in % at rounds':28}" + "".join(f"{n:7}" for n in ROUNDS), *lines]))
    assert all(value <= most for value, most in worst.values()), capsys.readouterr().out


def test_a_naive_bootstrap_would_fail_that_test():
    assert (
        missed(bootstrap_of_single_rounds, "normal", 0.0, 7) > 2 * CASES["normal, independent"][2]
    )


def test_ignoring_the_memory_of_the_rounds_would_fail_that_test():
    most = CASES["heavy-tailed, AR(1) 0.3"][2]
    assert max(missed(sign_test_without_memory, "heavy", 0.3, n) for n in ROUNDS) > most
    for rounds in (15, 30, 100):
        without = missed(sign_test_without_memory, "heavy", 0.5, rounds)
        assert missed(ours, "heavy", 0.5, rounds) < 0.6 * without


def test_blocks_of_rounds_see_levels_that_last_longer_than_a_neighbour():
    rng = np.random.default_rng(11)
    misses = {0: 0, 400: 0}
    for seed in range(150):
        levels = np.repeat(rng.standard_normal(16), 20)[rng.integers(20) :][:300]
        base = np.exp(0.01 * (rng.standard_normal(300) + levels))
        for resamples in misses:
            found = stats.paired_ratio(base, np.ones(300), seed, resamples)
            misses[resamples] += not found.contains(1.0)
    assert misses[400] < 0.7 * misses[0]


def test_intervals_are_not_bought_with_width():
    for rounds in (30, 100):
        runs = 0.01 * series("normal", 0.0, 100, rounds)
        usual = np.median([ours(logs, seed).halfwidth for seed, logs in enumerate(runs)])
        assert usual < 1.4 * 0.01 * 1.96 * math.sqrt(math.pi / 2 / rounds)


def test_whatever_slows_a_whole_round_cancels():
    rng = np.random.default_rng(2)
    weather = rng.lognormal(0.0, 1.0, 30)
    base, arm = 1.05 * rng.lognormal(0, 0.005, 30), rng.lognormal(0, 0.005, 30)
    quiet = stats.paired_ratio(base, arm, 1)
    stormy = stats.paired_ratio(weather * base, weather * arm, 1)
    assert stormy.value == pytest.approx(quiet.value)
    assert (stormy.lo, stormy.hi) == pytest.approx((quiet.lo, quiet.hi))
    unpaired = stats.paired_ratio(weather * base, rng.permutation(weather * arm), 1)
    assert unpaired.halfwidth > 10 * stormy.halfwidth
    assert stats.verdict(stormy, Interval(1.0, 0.99, 1.01)) == "FASTER"
    assert stats.verdict(unpaired, Interval(1.0, 0.99, 1.01)) == "AMBIGUOUS"


def test_a_shorter_time_is_a_speedup_above_one_and_swapping_inverts_it():
    rng = np.random.default_rng(3)
    base, arm = rng.lognormal(1, 0.1, (20, 3)), rng.lognormal(0, 0.1, (20, 3))
    forth, back = stats.paired_ratio(base, arm, 1), stats.paired_ratio(arm, base, 1)
    assert forth.lo < forth.value < forth.hi
    assert forth.value == pytest.approx(math.e, rel=0.1)
    assert back.value == pytest.approx(1 / forth.value)
    assert forth.contains(math.e)
    assert stats.min_ratio(base, arm) == base.min() / arm.min()


def test_rounds_of_any_form_give_the_same_interval():
    table = np.random.default_rng(4).lognormal(0, 0.1, (12, 5))
    other = np.ones(12)
    found = stats.paired_ratio(table, other, 1)
    assert stats.paired_ratio(table.tolist(), other, 1) == found
    assert stats.paired_ratio(np.median(table, axis=1), other[:, None], 1) == found
    uneven = [row if number else [row[0]] for number, row in enumerate(table.tolist())]
    expected = [table[0, 0], *np.median(table[1:], axis=1)]
    assert stats.round_medians(uneven).tolist() == expected


def test_the_seed_decides_and_nothing_else():
    rng = np.random.default_rng(6)
    base, arm = rng.lognormal(0, 0.1, (2, 61))
    state = np.random.get_state()[1].copy()
    bounds = [stats._block_bootstrap(base, seed, 200) for seed in (1, 1, 2)]
    assert bounds[0] == bounds[1] != bounds[2]
    assert stats.paired_ratio(base, arm, 1) == stats.paired_ratio(base, arm, 1)
    assert (np.random.get_state()[1] == state).all()


def test_few_rounds_widen_the_interval_and_one_has_none():
    logs = 0.01 * series("normal", 0.0, RUNS, 5)
    for rounds in (2, 3, 5):
        assert np.mean([not ours(row[:rounds], 0).contains(1.0) for row in logs]) < 0.08
    alone = stats.paired_ratio([2.0], [1.0], 0)
    assert alone == Interval(2.0, 0.0, math.inf)
    assert not alone.bounded
    assert alone.halfwidth == math.inf
    assert stats.median_interval([[3.0, 5.0]], 0) == Interval(4.0, 0.0, math.inf)


def test_six_rounds_reach_from_the_least_to_the_largest_ratio():
    found = stats.paired_ratio([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], np.ones(6), 0)
    assert (found.lo, found.hi) == pytest.approx((1.0, 6.0))


def test_sign_test_ranks_are_the_tabulated_ones():
    table = {6: 1, 8: 1, 9: 2, 12: 3, 15: 4, 20: 6, 25: 8, 30: 10, 50: 18, 100: 40}
    assert {count: sign_test_rank(count) for count in table} == table


def test_student_quantiles_are_the_tabulated_ones():
    table = {1: 12.706, 4: 2.776, 5: 2.571, 10: 2.228, 29: 2.045, 120: 1.980}
    assert {freedom: student(freedom) for freedom in table} == pytest.approx(table, rel=2e-3)


def test_the_median_of_all_samples_lies_in_its_interval():
    rng = np.random.default_rng(7)
    samples = [rng.lognormal(3, 0.2, size) for size in (5, 1, 3, 5, 5, 2, 4, 5)]
    found = stats.median_interval(samples, 1)
    assert found.value == np.median(np.concatenate(samples))
    assert found.lo <= found.value <= found.hi
    covered = [
        stats.median_interval(np.exp(row)[:, None], 0, 200).contains(1.0)
        for row in series("normal", 0.0, RUNS, 20)
    ]
    assert np.mean(covered) > 0.92


@pytest.mark.parametrize(
    ("bounds", "control", "noisy", "expected"),
    [
        ((1.04, 1.30), (0.99, 1.01), False, "FASTER"),
        ((0.70, 0.96), (0.99, 1.01), False, "SLOWER"),
        ((0.98, 1.02), (0.99, 1.01), False, "SAME"),
        ((1.01, 1.02), (0.99, 1.01), False, "SAME"),
        ((0.975, 1.029), None, False, "SAME"),
        ((1.02, 1.30), (0.99, 1.01), False, "AMBIGUOUS"),
        ((0.80, 0.98), (0.99, 1.01), False, "AMBIGUOUS"),
        ((0.90, 1.10), (0.99, 1.01), False, "AMBIGUOUS"),
        ((1.04, 1.30), (1.01, 1.05), False, "AMBIGUOUS"),
        ((0.70, 0.96), (0.90, 0.99), False, "AMBIGUOUS"),
        ((1.04, 1.30), None, False, "AMBIGUOUS"),
        ((0.0, math.inf), (0.99, 1.01), False, "AMBIGUOUS"),
        ((1.04, 1.30), (0.99, 1.01), True, None),
    ],
)
def test_a_verdict_needs_the_margin_and_a_control_that_contains_one(
    bounds, control, noisy, expected
):
    twin = None if control is None else Interval(1.0, *control)
    assert stats.verdict(Interval(1.0, *bounds), twin, noisy=noisy) == expected


def test_clopper_pearson_matches_published_values():
    assert stats.clopper_pearson(0, 10) == pytest.approx((0.0, 0.3084971), abs=1e-6)
    assert stats.clopper_pearson(10, 10) == pytest.approx((0.6915029, 1.0), abs=1e-6)
    assert stats.clopper_pearson(4, 20) == pytest.approx((0.0573340, 0.4366140), abs=1e-6)


@pytest.mark.parametrize(("successes", "trials"), [(1, 7), (7, 54), (53, 54), (300, 20_000)])
def test_clopper_pearson_leaves_two_and_a_half_percent_in_each_tail(successes, trials):
    lo, hi = stats.clopper_pearson(successes, trials)

    def at_most(count, chance):
        ways = [
            math.lgamma(trials + 1) - math.lgamma(k + 1) - math.lgamma(trials - k + 1)
            for k in range(count + 1)
        ]
        return sum(
            math.exp(way + k * math.log(chance) + (trials - k) * math.log1p(-chance))
            for k, way in enumerate(ways)
        )

    assert 1 - at_most(successes - 1, lo) == pytest.approx(0.025, rel=1e-6)
    assert at_most(successes, hi) == pytest.approx(0.025, rel=1e-6)


def test_the_geometric_mean_covers_with_few_points():
    rng = np.random.default_rng(8)
    assert stats.geometric_mean([1.0, 4.0], 0).value == pytest.approx(2.0)
    assert stats.geometric_mean([3.0], 0) == Interval(pytest.approx(3.0), 0.0, math.inf)
    for points in (4, 18):
        runs = rng.lognormal(0.0, 0.5, (RUNS, points))
        found = [stats.geometric_mean(run, seed, 400) for seed, run in enumerate(runs)]
        assert 0.91 <= np.mean([one.contains(1.0) for one in found]) <= 0.985


def test_the_geometric_mean_is_as_wide_as_student_says():
    runs = np.random.default_rng(10).lognormal(0.0, 0.5, (RUNS, 5))
    wide = [stats.geometric_mean(run, seed).halfwidth for seed, run in enumerate(runs)]
    usual = student(4) * np.log(runs).std(axis=1, ddof=1) / math.sqrt(5)
    assert np.mean(wide / usual) == pytest.approx(1.0, abs=0.05)


def test_unusable_samples_are_refused_in_words():
    with pytest.raises(ValueError, match="3 and 2 rounds: a ratio needs the same rounds"):
        stats.paired_ratio([1.0, 1.0, 1.0], [1.0, 1.0], 0)
    for bad in ([1.0, math.nan], [[1.0], []], []):
        with pytest.raises(ValueError, match="without a finite sample"):
            stats.median_interval(bad, 0)
    with pytest.raises(ValueError, match="a time of 0 or less has no ratio"):
        stats.paired_ratio([1.0, 0.0], [1.0, 1.0], 0)
    with pytest.raises(ValueError, match="a time of 0 or less has no ratio"):
        stats.min_ratio([[1.0]], [[0.0]])
    with pytest.raises(ValueError, match="all positive and finite"):
        stats.geometric_mean([1.0, -1.0], 0)
    with pytest.raises(ValueError, match="3 of 2: give 0 <= successes <= trials"):
        stats.clopper_pearson(3, 2)


def test_a_full_cell_takes_under_thirty_milliseconds_of_cpu():
    base, arm = np.random.default_rng(9).lognormal(0, 0.1, (2, 300, 5))
    spent = []
    for _ in range(5):
        start = time.process_time()
        stats.paired_ratio(base, arm, 1)
        spent.append(time.process_time() - start)
    assert min(spent) < 0.030
