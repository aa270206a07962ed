"""Philox4x32-10 against published vectors, and which bit of it decides about which unit."""

import numpy as np
import pytest

from impls.contract import ModelSpec, SpecError
from impls.reference import hold_mask, philox4x32

SPEC = ModelSpec(hidden_size=5, zoneout=0.3)


def words_of(text):
    return [int(word, 16) for word in text.split()]


def scalar_philox(key, counter):
    """The generator in Python integers, written from the paper, for one counter."""
    (k0, k1), (c0, c1, c2, c3) = key, counter
    for step in range(10):
        if step:
            k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
        a, b = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (b >> 32) ^ c1 ^ k0, b % 2**32, (a >> 32) ^ c3 ^ k1, a % 2**32
    return [c0, c1, c2, c3]


def scalar_held(spec, seed, row, t, unit, layer, direction, network=0):
    """impls/README.md word by word, for one unit and one step."""
    counter = ((row * spec.hidden_size + unit) % 2**32, t // 8, layer, direction + 2 * network)
    word = scalar_philox((seed % 2**32, seed >> 32), counter)[(t % 8) // 2]
    half = word >> 16 if t % 2 else word & 0xFFFF
    return half < round(spec.zoneout * 65536)


@pytest.mark.parametrize(
    ("key", "counter", "expected"),
    [  # kat_vectors of Random123, philox4x32 with 10 rounds
        ("0 0", "0 0 0 0", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        (
            "ffffffff ffffffff",
            "ffffffff ffffffff ffffffff ffffffff",
            "408f276d 41c83b0e a20bc7c6 6d5451fd",
        ),
        (
            "a4093822 299f31d0",
            "243f6a88 85a308d3 13198a2e 03707344",
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)
def test_philox_gives_the_published_words(key, counter, expected):
    out = philox4x32(np.array(words_of(key)), np.array(words_of(counter)))
    assert out.dtype == np.uint32
    assert out.tolist() == words_of(expected)


def test_philox_of_many_counters_equals_one_by_one():
    counters = np.random.default_rng(0).integers(0, 2**32, size=(3, 2, 4))
    out = philox4x32(np.array([7, 2**32 - 1]), counters)
    assert out.shape == (3, 2, 4)
    for at in np.ndindex(3, 2):
        assert out[at].tolist() == scalar_philox((7, 2**32 - 1), counters[at].tolist())


@pytest.mark.parametrize("direction", ["fwd", "rev"])
@pytest.mark.parametrize("network", [0, 1])
def test_every_mask_bit_is_the_defined_half_word(direction, network):
    seed, rows, t0 = 0xFEDCBA9876543210, [4, 0, 11], [0, 5, 1003]
    mask = hold_mask(SPEC, seed, np.array(rows), np.array(t0), 19, 2, direction, network)
    number = ("fwd", "rev").index(direction)
    for t, b, h in np.ndindex(mask.shape):
        assert mask[t, b, h] == scalar_held(SPEC, seed, rows[b], t0[b] + t, h, 2, number, network)
    assert mask.shape == (19, 3, 5)


def test_a_hand_read_block_of_the_known_answer():
    """Words 6627e8d5 e169c58d bc57ac4c 9b00dbd8, low half first, against round(0.6 * 65536)."""
    mask = hold_mask(ModelSpec(hidden_size=1, zoneout=0.6), 0, np.array([0]), 0, 8, 0, "fwd")
    halves = [0xE8D5, 0x6627, 0xC58D, 0xE169, 0xAC4C, 0xBC57, 0xDBD8, 0x9B00]
    assert mask[:, 0, 0].tolist() == [half < 39322 for half in halves]
    assert mask[:, 0, 0].tolist() == [False, True] + [False] * 6


def test_the_first_counter_word_wraps_at_32_bits():
    row = 2**32 // 5 + 3  # row * H is past 2**32
    mask = hold_mask(SPEC, 9, np.array([row]), 0, 8, 0, "fwd")
    expected = [[scalar_held(SPEC, 9, row, t, h, 0, 0) for h in range(5)] for t in range(8)]
    assert mask[:, 0].tolist() == expected


def test_chunks_draw_what_the_whole_sequence_draws():
    rows = np.array([3, 8])
    whole = hold_mask(SPEC, 5, rows, 0, 30, 1, "fwd")
    chunks, done = [], np.array([0, 0])
    for steps in (1, 6, 2, 8, 13):
        chunks.append(hold_mask(SPEC, 5, rows, done, steps, 1, "fwd"))
        done = done + steps
    np.testing.assert_array_equal(np.concatenate(chunks), whole)


def test_sequences_at_different_steps_keep_their_own_bits():
    rows, t0 = np.array([0, 1]), np.array([2, 21])
    both = hold_mask(SPEC, 5, rows, t0, 7, 0, "fwd")
    for b in range(2):
        alone = hold_mask(SPEC, 5, rows[b : b + 1], int(t0[b]), 7, 0, "fwd")
        np.testing.assert_array_equal(both[:, b], alone[:, 0])


def test_a_row_keeps_its_mask_in_another_batch():
    few = hold_mask(SPEC, 5, np.array([7]), 0, 16, 0, "fwd")
    many = hold_mask(SPEC, 5, np.array([2, 7, 0, 1]), 0, 16, 0, "fwd")
    np.testing.assert_array_equal(many[:, 1], few[:, 0])


@pytest.mark.parametrize(
    "change", [{"layer": 1}, {"direction": "rev"}, {"network": 1}, {"seed": 2**32 + 5}]
)
def test_layers_directions_networks_and_both_seed_words_draw_apart(change):
    where = {"seed": 5, "layer": 0, "direction": "fwd", "network": 0}
    masks = [
        hold_mask(SPEC, rows=np.arange(8), t0=0, steps=64, **(where | other))
        for other in ({}, change)
    ]
    differ = np.mean(masks[0] != masks[1])  # independent bits differ at rate 2 p (1-p) = 0.42
    assert 0.36 < differ < 0.48


def test_units_are_held_at_the_asked_rate():
    spec = ModelSpec(hidden_size=64, zoneout=0.1)
    mask = hold_mask(spec, 123, np.arange(16), 0, 256, 0, "fwd")
    rate, deviation = 6554 / 65536, np.sqrt(0.09 / mask.size)
    assert abs(mask.mean() - rate) < 4 * deviation
    assert abs(mask[::2].mean() - mask[1::2].mean()) < 6 * deviation


def test_no_zoneout_holds_nothing():
    mask = hold_mask(ModelSpec(hidden_size=8), 1, np.arange(4), 0, 100, 0, "fwd")
    assert not mask.any()


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_beyond_64_bits_is_refused(seed):
    with pytest.raises(SpecError, match=r"give a whole number in 0\.\.2\*\*64 - 1"):
        hold_mask(SPEC, seed, np.arange(2), 0, 3, 0, "fwd")
