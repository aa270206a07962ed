"""Every task's examples, recomputed by an independent slow rule."""

from __future__ import annotations

import numpy as np
import pytest

from harness import tasks
from harness.tasks import digits, number_words
from impls.training import Batch


def examples(batch: Batch) -> list[bytes]:
    return [batch.inputs[:, i].tobytes() for i in range(batch.inputs.shape[1])]


def test_counting_target_is_ups_minus_downs():
    batch = tasks.get("counting").data(1).test[0]
    for column in range(20):
        symbols, targets = batch.inputs[:, column].tolist(), batch.targets[:, column].tolist()
        for t in range(60):
            seen = symbols[: t + 1]
            assert targets[t] - 8 == seen.count(1) - seen.count(2)
    assert batch.targets.min() == 0
    assert batch.targets.max() == 16


def test_selective_copy_asks_for_the_symbols_in_their_order():
    batch = tasks.get("selective_copy").data(1).test[0]
    for column in range(128):
        symbols = batch.inputs[:, column].tolist()
        kept = [s for s in symbols[:36] if s != 8]
        assert symbols[36:] == [9] * 4
        assert kept == batch.targets[36:, column].tolist()
        assert len(kept) == 4
    assert batch.weights[:36].sum() == 0
    assert (batch.weights[36:] == 1).all()
    where = np.nonzero(batch.inputs[:36] != 8)[0]
    assert set(where) == set(range(36))


def test_mqar_asks_each_key_once_for_its_value():
    batch = tasks.get("mqar").data(1).test[0]
    for column in range(128):
        symbols = batch.inputs[:, column].tolist()
        pairs = dict(zip(symbols[0:8:2], symbols[1:8:2], strict=True))
        assert len(pairs) == 4
        assert all(1 <= key <= 15 and 16 <= value <= 31 for key, value in pairs.items())
        asked = {s: t for t, s in enumerate(symbols[8:], 8) if s}
        assert asked.keys() == pairs.keys()
        for key, t in asked.items():
            assert batch.targets[t, column] == pairs[key] - 16
        assert set(np.nonzero(batch.weights[:, column])[0]) == set(asked.values())


def test_adding_target_is_the_sum_of_the_marked_numbers():
    batch = tasks.get("adding").data(1).test[0]
    for column in range(128):
        rows = batch.inputs[:, column].tolist()
        marked = [t for t in range(60) if rows[t][1] == 1.0]
        assert len(marked) == 2
        assert marked[0] < 30 <= marked[1]
        assert batch.targets[column, 0] == pytest.approx(sum(rows[t][0] for t in marked))


def test_reverse_target_is_the_string_backwards_with_an_end_mark():
    data = tasks.get("reverse").data(1)
    for batch in data.test:
        for column, length in enumerate(batch.lengths):
            given = batch.inputs[:, column].tolist()
            wanted = batch.targets[:, column].tolist()
            assert min(given[:length]) >= 2
            assert given[length:] == [0] * (12 - length)
            assert wanted == given[:length][::-1] + [1] + [0] * (12 - length)
            assert batch.target_lengths[column] == length + 1
            assert data.text(wanted) == data.text(given)[::-1]
    assert set(np.concatenate([b.lengths for b in data.test])) == set(range(4, 13))


def test_digits_sets_hold_every_image_once_and_equal_images_together():
    parts = digits.parts()
    rows = np.concatenate(list(parts.values()))
    np.testing.assert_array_equal(np.sort(rows), np.arange(1797))
    assert {part: len(found) for part, found in parts.items()} == {
        "train": 1061, "test": 460, "validation": 179, "tuning": 97,
    }  # fmt: skip
    data = tasks.get("digits").data(0)
    sets = [{x for b in s for x in examples(b)} for s in (data.test, data.validation, data.tuning)]
    trained = {x for step in range(66) for x in examples(data.train(step))}
    assert sum(map(len, sets)) + len(trained) == len(set.union(trained, *sets))


def test_an_epoch_of_digits_takes_no_image_twice():
    data = tasks.get("digits").data(0)
    epochs = [
        [x for s in range(e * 33, e * 33 + 33) for x in examples(data.train(s))] for e in (0, 1)
    ]
    assert len(set(epochs[0])) == len(epochs[0]) == 33 * 32
    assert epochs[0] != epochs[1]


@pytest.mark.slow  # importing scikit-learn takes seconds
def test_digits_are_scikit_learns():
    from sklearn.datasets import load_digits

    found, (pixels, labels) = load_digits(), digits._images()
    np.testing.assert_array_equal(pixels, found.data)
    np.testing.assert_array_equal(labels, found.target)


def test_number_words_are_the_librarys():
    from num2words import num2words

    numbers = [0, 1, 12, 99, 100, 101, 999, 1000, 1001, 1099, 1100, 5100, 21000, 100_001, 999_999]
    numbers += np.random.default_rng(0).integers(0, 10**6, 150).tolist()
    for number in numbers:
        for language in ("de", "en"):
            assert number_words.words(number, language) == num2words(number, lang=language)


@pytest.mark.parametrize(
    ("language", "alphabet"), [("de", number_words.GERMAN), ("en", number_words.ENGLISH)]
)
def test_a_million_number_words_fit_their_alphabet_and_length(language, alphabet):
    # Words are those of the thousands and of the rest, so the longest and every letter are among:
    rest = max(range(1, 1000), key=lambda n: len(number_words.words(n, language)))
    ends = [*range(1000), *(1000 * n + r for n in range(1, 1000) for r in (0, 1, rest))]
    found = [number_words.words(n, language) for n in ends]
    assert "".join(sorted(set().union(*found))) == "".join(sorted(alphabet))
    assert max(map(len, found)) == number_words.LONGEST[language]
    number_words.batch([0, 727_727, 999_999])


@pytest.mark.slow
@pytest.mark.parametrize("language", ["de", "en"])
def test_no_two_integers_below_a_million_are_said_alike(language):
    assert len({number_words.words(n, language) for n in range(10**6)}) == 10**6


def test_number_words_holds_out_integers_by_their_hash():
    parts = number_words.parts()
    assert sum(map(len, parts.values())) == len(set().union(*map(set, parts.values()))) == 10**6
    assert len(parts["test"]) == 3099
    mask = 2**64 - 1
    for number in (0, 1, 999_999, int(parts["test"][7])):
        x = number + 0x9E3779B97F4A7C15
        x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & mask
        x = (x ^ (x >> 27)) * 0x94D049BB133111EB & mask
        assert number_words.hashed(np.array([number]))[0] == (x ^ (x >> 31)) % 1000
    assert number_words.hashed(parts["test"]).max() == 2


def test_number_words_examples_are_translations_and_training_never_shows_a_held_out_one():
    data = tasks.get("number_words").data(2)
    held_out = set(
        np.concatenate([number_words.parts()[p] for p in number_words.HELD_OUT]).tolist()
    )
    english = {number_words.words(n, "en") for n in held_out}
    german = {number_words.words(n, "en"): number_words.words(n, "de") for n in held_out}
    assert {
        r
        for part in (data.test, data.validation, data.tuning)
        for r in number_words.references(part)
    } == english
    batch = data.test[5]
    for column, reference in enumerate(number_words.references([batch])):
        symbols = batch.inputs[: batch.lengths[column], column]
        assert "".join(number_words.GERMAN[s - 2] for s in symbols) == german[reference]
        assert batch.targets[batch.target_lengths[column] - 1, column] == 1
    shown = [r for s in range(60) for r in number_words.references([data.train(s)])]
    assert len(shown) == 60 * 32
    assert not english & set(shown)


def test_chrf_is_100_for_the_reference_and_0_without_a_common_letter():
    given = ["twenty-two", "three thousand and four"]
    assert number_words.chrf(given, given) == pytest.approx(100)
    assert number_words.chrf(["qqq", "zzz"], given) == 0
    assert 50 < number_words.chrf(["twenty-two", "three thousand and five"], given) < 100
