"""Hashed ternary features of tokens (pQRNN): no table of embeddings, no list of known words.

The B features of a token are read from B/4 bytes, byte k giving features 4k to 4k+3 from its bit
pairs, lowest first: 0 -> 0, 1 -> +1, 2 -> -1, 3 -> 0, so half of them are 0. The bytes are
SHAKE-256 of b"quasibench ternary 1\\n" followed by the token in UTF-8: the same on every machine,
and another token, known or not, has other features.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np

from harness.errors import UsageError

PREFIX = b"quasibench ternary 1\n"
_VALUES = np.array([0, 1, -1, 0], np.float32)
_OF_BYTE = _VALUES[(np.arange(256)[:, None] >> np.array([0, 2, 4, 6])) & 3]
"""[256, 4]: the features that one byte stands for."""


def packed(token: str, features: int) -> bytes:
    """The B/4 bytes that hold a token's features."""
    return hashlib.shake_256(PREFIX + token.encode("utf-8", "surrogatepass")).digest(features // 4)


class Ternary:
    """Features of the tokens of a data set; each distinct token is hashed once and stays packed.

    Raises:
        UsageError: `features` is not a positive multiple of 4.
    """

    def __init__(self, features: int) -> None:
        if isinstance(features, bool) or not isinstance(features, int) or features < 1:
            raise UsageError(f"features = {features!r}: give a positive multiple of 4")
        if features % 4:
            raise UsageError(f"features = {features}: give a multiple of 4, four fit a byte")
        self.features = features
        self._names = [""]  # row 0: padding, all features 0
        self._row = {"": 0}
        self._packed = [bytes(features // 4)]
        self._table: np.ndarray | None = None

    def rows(self, tokens: Iterable[str]) -> np.ndarray:
        """Number of each token in this table, int64; new tokens are added."""
        out = []
        for token in tokens:
            row = self._row.get(token)
            if row is None:
                row = self._row[token] = len(self._packed)
                self._packed.append(packed(token, self.features))
                self._names.append(token)
                self._table = None
            out.append(row)
        return np.array(out, np.int64)

    def tokens(self, rows: np.ndarray) -> list[str]:
        """The tokens of these rows."""
        return [self._names[row] for row in rows]

    def batch(self, sequences: Sequence[np.ndarray], steps: int) -> np.ndarray:
        """Float32 [steps, B, features] of sequences of rows; padded steps are zero."""
        if self._table is None:
            joined = np.frombuffer(b"".join(self._packed), np.uint8)
            self._table = joined.reshape(len(self._packed), self.features // 4)
        rows = np.zeros((steps, len(sequences)), np.int64)
        for column, sequence in enumerate(sequences):
            rows[: len(sequence), column] = sequence
        features: np.ndarray = _OF_BYTE[self._table[rows]]
        return features.reshape(steps, len(sequences), self.features)
