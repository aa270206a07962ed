"""Beam search against exhaustive enumeration, the paper's score, ties, limits."""

from functools import cache
from itertools import product

import numpy as np
import pytest

from impls import beam
from impls.contract import SpecError

SYMBOLS = 4
WIDE = 128  # more than the 81 + 40 prefixes of at most 4 symbols


@cache
def drawn(seed, prefix):
    return 2 * np.random.default_rng([seed, *prefix]).standard_normal(SYMBOLS)


class Table:
    """A language whose next symbol depends on everything so far, drawn from a seed.

    As a step function it keeps each row's prefix, so that it notices a wrong parent.
    """

    def __init__(self, seeds, width, logits=None):
        self.seeds, self.width, self.chosen = seeds, width, logits
        self.prefixes = [()] * (len(seeds) * width)
        self.calls = 0

    def logits(self, seed, prefix):
        if self.chosen is not None:
            return np.asarray(self.chosen(prefix), np.float64)
        return drawn(int(seed), prefix)

    def __call__(self, symbols, parents):
        old, self.calls = self.prefixes, self.calls + 1
        assert np.array_equal(np.arange(len(old)) // self.width, parents // self.width)
        begun = self.calls > 1
        self.prefixes = [
            (*old[p], s) if begun else () for s, p in zip(symbols.tolist(), parents, strict=True)
        ]
        assert begun or set(symbols.tolist()) == {beam.END}
        rows = zip(np.repeat(self.seeds, self.width), self.prefixes, strict=True)
        return np.stack([self.logits(seed, prefix) for seed, prefix in rows])

    def log_probability(self, seed, sequence):
        return sum(
            beam.log_softmax(self.logits(seed, sequence[:t]))[symbol]
            for t, symbol in enumerate(sequence)
        )


def plain_score(log_p, length, source, alpha):
    """The paper's score, written down."""
    for t in range(length, source + 5 + 1):
        log_p *= (t + alpha) / t
    return log_p


def every_candidate(most):
    others = [s for s in range(SYMBOLS) if s != beam.END]
    for length in range(most):
        for words in product(others, repeat=length):
            yield (*words, beam.END)


@pytest.fixture
def short(monkeypatch):
    """Candidates of at most 4 symbols, so that all 40 can be enumerated; n_max is source + 1."""
    monkeypatch.setattr(beam, "longest", lambda lengths: np.full(np.shape(lengths), 4))


@pytest.mark.parametrize("alpha", [0.0, 0.6, 3.0])
@pytest.mark.parametrize("source", [1, 2, 9])
def test_a_beam_as_wide_as_the_language_finds_the_best_of_all_candidates(short, alpha, source):
    seeds = np.arange(6)
    table = Table(seeds, WIDE)
    found = beam.search(table, np.full(6, source), WIDE, alpha)
    for seed, best in zip(seeds, found, strict=True):
        scored = {}
        for sequence in every_candidate(4):
            log_p = table.log_probability(seed, sequence)
            scored[sequence] = plain_score(log_p, len(sequence), source, alpha)
        expected = max(scored, key=scored.get)
        assert (*best.symbols, beam.END) == expected
        assert best.ended
        assert best.score == pytest.approx(scored[expected], rel=1e-12)
        assert best.log_probability == pytest.approx(
            table.log_probability(seed, expected), rel=1e-12
        )


def test_the_exponent_alpha_changes_the_winner_somewhere(short):
    seeds, lengths = np.arange(20), np.full(20, 9)
    plain, long = (beam.search(Table(seeds, WIDE), lengths, WIDE, alpha) for alpha in (0.0, 3.0))
    grown = [len(b.symbols) - len(a.symbols) for a, b in zip(plain, long, strict=True)]
    assert min(grown) >= 0
    assert max(grown) > 0


@pytest.mark.parametrize("alpha", [0.0, 0.6])
def test_a_beam_of_one_is_greedy_search(alpha):
    seeds, lengths = np.arange(30), np.arange(30) % 4 + 1
    table = Table(seeds, 1)
    for seed, length, found in zip(
        seeds, lengths, beam.search(table, lengths, 1, alpha), strict=True
    ):
        greedy = []
        while len(greedy) < 2 * (length + 5) and beam.END not in greedy:
            greedy.append(int(np.argmax(table.logits(seed, tuple(greedy)))))
        assert found.ended == (beam.END in greedy)
        assert found.symbols == [s for s in greedy if s != beam.END]
        assert found.log_probability == pytest.approx(table.log_probability(seed, tuple(greedy)))


def test_a_wider_beam_is_nearly_never_less_probable_than_greedy_search():
    seeds, lengths = np.arange(200), np.full(200, 3)
    greedy, wide = (beam.search(Table(seeds, k), lengths, k) for k in (1, 8))
    better = [b.log_probability >= a.log_probability for a, b in zip(greedy, wide, strict=True)]
    assert np.mean(better) >= 0.99


def test_sentences_of_a_batch_do_not_touch_each_other():
    seeds, lengths = np.arange(5), np.array([1, 4, 2, 3, 1])
    together = beam.search(Table(seeds, 3), lengths, 3, 0.5)
    alone = [
        beam.search(Table(seeds[s : s + 1], 3), lengths[s : s + 1], 3, 0.5)[0] for s in range(5)
    ]
    assert together == alone


def test_the_factor_is_the_product_of_the_definition_and_one_beyond_n_max():
    length, most = np.array([1, 3, 8, 9, 30]), np.array([8, 8, 8, 8, 8])
    given = beam.factor(length, most, 0.6)
    expected = [plain_score(1.0, n, m - 5, 0.6) for n, m in zip(length, most, strict=True)]
    np.testing.assert_allclose(given, expected, rtol=1e-14)
    assert given[-2:].tolist() == [1, 1]
    assert beam.factor(length, most, 0.0).tolist() == [1] * 5


def test_equal_scores_stand_in_the_order_of_their_parents_then_of_their_symbols():
    def even(prefix):
        return [0.0, -50.0, 0.0, 0.0] if len(prefix) < 2 else [-50.0, 0.0, -50.0, -50.0]

    found = beam.search(Table([0], 4, even), np.array([1]), 4)
    assert found[0].symbols == [0, 0]

    def tied(prefix):
        """Ending at once is as probable as 3 and then surely the end."""
        return [-np.inf, 0.0, -np.inf, 0.0] if not prefix else [-np.inf, 0.0, -np.inf, -np.inf]

    found = beam.search(Table([0], 4, tied), np.array([1]), 4)
    assert found[0].symbols == []
    assert found[0].log_probability == pytest.approx(np.log(0.5))


def test_a_sentence_without_an_end_is_cut_off_at_twice_n_max():
    def endless(prefix):
        return [-np.inf, -np.inf, 0.0, 0.5]

    table = Table([0], 2, endless)
    found = beam.search(table, np.array([2]), 2)[0]
    assert found.symbols == [3] * 14
    assert not found.ended
    assert table.calls == 14


def test_an_ended_candidate_is_preferred_to_one_that_was_cut_off():
    def rarely(prefix):
        return [-np.inf, -6.0, -np.inf, 0.0]

    found = beam.search(Table([0], 2, rarely), np.array([1]), 2)[0]
    assert found.ended


def test_the_search_stops_once_nothing_can_overtake_the_best():
    def sure(prefix):
        return [-20.0, 0.0 if len(prefix) == 3 else -20.0, 0.0 if len(prefix) < 3 else -20.0, -20.0]

    table = Table([0], 8, sure)
    assert beam.search(table, np.array([50]), 8)[0].symbols == [2, 2, 2]
    assert table.calls == 4


def test_a_network_that_gives_no_numbers_decodes_to_nothing():
    found = beam.search(Table([0, 1], 3, lambda _: [np.nan] * SYMBOLS), np.array([2, 3]), 3)
    assert [c.symbols for c in found] == [[], []]
    assert not any(c.ended for c in found)


@pytest.mark.parametrize("wrong", [0, -1, 2.0, True])
def test_a_beam_that_is_no_whole_number_above_zero_is_refused(wrong):
    with pytest.raises(SpecError, match="give a whole number of at least 1"):
        beam.search(Table([0], 1), np.array([1]), wrong)


@pytest.mark.parametrize("wrong", [-0.1, float("nan")])
def test_an_alpha_below_zero_is_refused(wrong):
    with pytest.raises(SpecError, match="give a finite number of at least 0"):
        beam.search(Table([0], 1), np.array([1]), 1, wrong)
