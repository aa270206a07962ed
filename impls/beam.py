"""Beam search over a batched step function, with the paper's score of a candidate; no framework.

Score (Bradbury et al., arXiv 1611.01576, section 3.3): the candidate's log-probability times the
product over t = n .. n_max of (t + alpha) / t, where n is its length with the end mark and n_max
the source's length + 5; 1 where n > n_max. alpha = 0 is plain beam search, a beam of 1 greedy
search.

After every step the `beam` best of all extensions by one symbol and of the candidates that have
ended stay; both are ranked by the score, an extension as if it ended here. Equal scores stand in
the order of their parents, then of their symbols. A sentence is over once no extension can
overtake its best ended candidate.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from impls.contract import SpecError

END = 1
"""The end mark: it closes every target and is what the decoder reads first."""
BEYOND_SOURCE = 5
"""n_max = source length + 5."""

Step = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""step(symbols [N], parents [N]) -> logits or log-probabilities [N, O] of the next symbol.

N = sentences * beam rows, a sentence's together. Row n goes on from the state that row parents[n]
(of the same sentence) had after the step before, and reads symbols[n]; the first call goes on from
the states behind the source, the same in all rows of a sentence.
"""


class Candidate(NamedTuple):
    """What a search found for a sentence.

    symbols: without the end mark; log_probability: of the symbols and, if `ended`, the end mark;
    score: its log-probability with the paper's factor; ended: False where the limit cut it off.
    """

    symbols: list[int]
    log_probability: float
    score: float
    ended: bool


def longest(source_lengths: np.ndarray) -> np.ndarray:
    """Steps after which a candidate is cut off, twice n_max."""
    return 2 * (np.asarray(source_lengths) + BEYOND_SOURCE)


def factor(length: np.ndarray, most: np.ndarray, alpha: float) -> np.ndarray:
    """The score's factor for candidates of `length` >= 1, end mark included; `most` is n_max."""
    t = np.arange(1, int(most.max(initial=1)) + 1)
    up_to = np.concatenate([[1.0], np.cumprod((t + alpha) / t)])
    # From n up to n_max is up to n_max without up to n - 1; beyond n_max nothing is left.
    out: np.ndarray = up_to[most] / up_to[np.minimum(length - 1, most)]
    return out


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """log p along the last axis in float64; never above 0."""
    wide = np.asarray(logits, np.float64)
    shifted = wide - wide.max(axis=-1, keepdims=True)
    out: np.ndarray = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return out


class _Beams:
    """The hypotheses of all sentences, [S, beam] each, best first; -inf marks an empty slot."""

    def __init__(self, source_lengths: np.ndarray, beam: int, alpha: float) -> None:
        self.alpha = alpha
        self.most = np.asarray(source_lengths, np.int64)[:, None] + BEYOND_SOURCE
        self.limit = longest(source_lengths)[:, None]
        shape = (len(self.most), beam)
        self.log_p = np.full(shape, -np.inf)
        self.log_p[:, 0] = 0.0
        self.length = np.zeros(shape, np.int64)
        self.ended = np.zeros(shape, bool)
        self.symbols = np.zeros((*shape, 0), np.int64)

    def factors(self, later: int = 0) -> np.ndarray:
        """The factors [S, beam] of the hypotheses' scores, `later` symbols on."""
        return factor(np.maximum(self.length + later, 1), self.most, self.alpha)

    def extend(self, log_p: np.ndarray) -> np.ndarray:
        """Take the best of all extensions; returns each new hypothesis' parent slot [S, beam].

        Args:
            log_p: [S, beam, O] of the next symbol of each slot.
        """
        sentences, beam, count = log_p.shape
        # What cannot grow has one extension, itself, in a column before the symbols.
        going = self._going()
        stays = np.where(going, -np.inf, self.log_p)[:, :, None]
        grown = np.where(going[:, :, None], self.log_p[:, :, None] + log_p, -np.inf)
        totals = np.concatenate([stays, np.where(np.isnan(grown), -np.inf, grown)], axis=2)
        factors = np.stack([self.factors(), self.factors(1)], axis=2)
        ranked = totals * np.repeat(factors, (1, count), axis=2)
        best = np.argsort(-ranked.reshape(sentences, -1), axis=1, kind="stable")[:, :beam]
        parents, column = np.divmod(best, count + 1)
        self.log_p = np.take_along_axis(totals.reshape(sentences, -1), best, axis=1)
        self.length = np.take_along_axis(self.length, parents, axis=1) + (column > 0)
        self.ended = np.take_along_axis(self.ended, parents, axis=1) | (column == END + 1)
        self.ended &= np.isfinite(self.log_p)
        history = np.take_along_axis(self.symbols, parents[:, :, None], axis=1)
        # What stays repeats the end mark, which its length cuts off again.
        new = np.where(column > 0, column - 1, END)[:, :, None]
        self.symbols = np.concatenate([history, new], axis=2)
        return parents

    def _going(self) -> np.ndarray:
        """bool [S, beam]: hypotheses that can grow."""
        going: np.ndarray = ~self.ended & (self.length < self.limit) & np.isfinite(self.log_p)
        return going

    def over(self) -> bool:
        """Whether no sentence has an extension that could overtake its best ended candidate."""
        going = self._going()
        best = np.where(self.ended, self.log_p * self.factors(), -np.inf).max(axis=1)
        # A later score is at most the log-probability now: that only falls, and factors are >= 1.
        hope = np.where(going, self.log_p, -np.inf).max(axis=1)
        return bool(np.all(~going.any(axis=1) | (best > hope)))

    def found(self) -> list[Candidate]:
        """The best candidate of each sentence, one that ended where there is any."""
        scores = self.log_p * self.factors()
        ranked = np.where(self.ended, scores, -np.inf)
        chosen = np.where(self.ended.any(axis=1), ranked.argmax(axis=1), scores.argmax(axis=1))
        out = []
        for s, slot in enumerate(chosen):
            ended = bool(self.ended[s, slot])
            symbols = self.symbols[s, slot, : self.length[s, slot] - ended].tolist()
            log_p, score = float(self.log_p[s, slot]), float(scores[s, slot])
            out.append(Candidate(symbols, log_p, score, ended))
        return out


def check(beam: int, alpha: float) -> None:
    """Raise SpecError for a beam below 1 or an alpha that is negative or not finite."""
    if isinstance(beam, bool) or not isinstance(beam, int) or beam < 1:
        raise SpecError(f"beam = {beam!r}: give a whole number of at least 1")
    number = isinstance(alpha, (int, float)) and not isinstance(alpha, bool)
    if not number or not 0 <= alpha < math.inf:
        raise SpecError(f"alpha = {alpha!r}: give a finite number of at least 0")


def search(
    step: Step, source_lengths: np.ndarray, beam: int = 1, alpha: float = 0.0
) -> list[Candidate]:
    """The best candidate of every sentence.

    Args:
        source_lengths: [S], of the sources in symbols.
        beam: hypotheses kept per sentence; 1 is greedy search.
        alpha: of the score, at least 0; larger values favour longer candidates.

    Raises:
        SpecError: see `check`.
    """
    check(beam, alpha)
    beams = _Beams(source_lengths, beam, alpha)
    sentences = len(beams.log_p)
    first = np.arange(sentences)[:, None] * beam
    parents = np.tile(np.arange(beam), (sentences, 1))
    symbols = np.full((sentences, beam), END)
    while not beams.over():
        logits = step(symbols.ravel(), (first + parents).ravel())
        parents = beams.extend(log_softmax(logits).reshape(sentences, beam, -1))
        symbols = beams.symbols[:, :, -1]
    return beams.found()
