"""Hashed ternary features: the documented hash, recomputed slowly, and its statistics."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from harness.errors import UsageError
from harness.tasks.ternary import Ternary


def slowly(token, features):
    raw = hashlib.shake_256(b"quasibench ternary 1\n" + token.encode()).digest(features // 4)
    out = []
    for byte in raw:
        pairs = f"{byte:08b}"
        for at in (6, 4, 2, 0):
            out.append({"00": 0, "01": 1, "10": -1, "11": 0}[pairs[at : at + 2]])
    return out


def features_of(words, features=512):
    table = Ternary(features)
    return table.batch([table.rows(words)], len(words))[:, 0]


def test_features_are_the_documented_bits_of_shake_256():
    words = ["play", "clásicos", "42", "日本"]
    assert features_of(words, 64).tolist() == [slowly(word, 64) for word in words]


def test_features_of_a_token_never_change():
    assert features_of(["play"], 16).tolist() == [
        [1, 0, -1, 0, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0, -1]
    ]


def test_half_of_the_features_are_zero_and_tokens_are_unrelated():
    found = features_of([f"token{i}" for i in range(400)])
    shares = [(found == value).mean() for value in (-1, 0, 1)]
    np.testing.assert_allclose(shares, [0.25, 0.5, 0.25], atol=0.005)  # 5 standard errors
    cosine = found @ found.T / (np.linalg.norm(found, axis=1)[:, None] ** 2)
    off = cosine[~np.eye(400, dtype=bool)]
    assert abs(off.mean()) < 0.003
    assert np.abs(off).max() < 0.3


def test_features_do_not_depend_on_the_other_tokens_or_their_order():
    table = Ternary(64)
    table.rows(["a", "b", "c"])
    late = table.batch([table.rows(["c", "a"])], 2)[:, 0]
    np.testing.assert_array_equal(late, features_of(["c", "a"], 64))


def test_padded_steps_are_zero_and_new_tokens_join_later():
    table = Ternary(64)
    first = table.batch([table.rows(["a"]), table.rows(["b", "a"])], 3)
    assert first.shape == (3, 2, 64)
    assert first.dtype == np.float32
    assert not first[1:, 0].any()
    assert not first[2, 1].any()
    np.testing.assert_array_equal(first[0, 0], first[1, 1])
    assert table.batch([table.rows(["new"])], 1).any()


@pytest.mark.parametrize("features", [0, -4, 6, True, 4.0, "512"])
def test_number_of_features_must_be_a_multiple_of_four(features):
    with pytest.raises(UsageError, match="multiple of 4"):
        Ternary(features)
