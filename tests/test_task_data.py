"""Tasks on texts: what a batch holds, and how a corpus is cut."""

from __future__ import annotations

import io
import json
import tarfile

import numpy as np
import pytest

from harness import tasks
from harness.tasks import char_lm, labelled, text_classification

WORDS = "the old man saw seven ships at sea and told nobody of it".split()


def story(lines=1200, seed=0):
    generator = np.random.default_rng(seed)
    return "".join(" ".join(generator.choice(WORDS, 9)) + "\n" for _ in range(lines))


def rows(count=400, seed=0):
    generator = np.random.default_rng(seed)
    for i in range(count):
        label = ("play", "book")[i % 2]
        yield label, f"{label} {' '.join(generator.choice(WORDS, 3 + i % 7))} {i}"


@pytest.fixture
def novel(tmp_path):
    path = tmp_path / "novel.txt"
    path.write_text(story(), encoding="utf-8")
    return path


@pytest.fixture
def intents(tmp_path):
    path = tmp_path / "intents.tsv"
    path.write_text("".join(f"{a}\t{b}\n" for a, b in rows()), encoding="utf-8")
    return path


def spelled(data, symbols):
    return data.text(symbols.T.reshape(-1).tolist())


def test_char_lm_reads_on_where_the_batch_before_ended(novel):
    data, text = tasks.get("char_lm").data(3, {"file": str(novel)}), story()
    first, second = data.train(0), data.train(1)
    assert (first.carry, second.carry) == (False, True)
    for lane in (0, 7, 31):
        joined = data.text([*first.inputs[:, lane], *second.inputs[:, lane]])
        assert len(joined) == 128
        assert joined in text
        assert data.text(first.targets[:, lane]) == joined[1:65]
    assert first.inputs.shape == (64, 32)


def test_char_lm_starts_each_epoch_afresh_elsewhere(novel):
    data = tasks.get("char_lm").data(3, {"file": str(novel)})
    per_epoch = next(s for s in range(1, 100) if not data.train(s).carry)
    starts = {data.text(data.train(e * per_epoch).inputs[:, 0].tolist()) for e in range(6)}
    assert len(starts) > 3
    assert all(data.train(e * per_epoch + 1).carry for e in range(6))
    pieces = {spelled(data, data.train(s).inputs) for s in range(per_epoch)}
    assert len(pieces) == per_epoch


def test_char_lm_evaluates_the_end_of_the_text_and_trains_on_its_start(novel):
    data, text = tasks.get("char_lm").data(3, {"file": novel}), story()
    size = int(len(text) * 0.05)
    ends = {"test": size, "validation": 2 * size, "tuning": 3 * size}
    for part, start in ends.items():
        batches = getattr(data, part)
        assert [b.carry for b in batches] == [False] + [True] * (len(batches) - 1)
        lane = "".join(data.text(b.inputs[:, 0].tolist()) for b in batches)
        at = len(text) - start
        assert lane == text[at : at + len(lane)]
    whole = tasks.get("char_lm").data(3, {"file": novel, "evaluated": 2048})
    assert len(whole.test) == 1
    corpus = char_lm.corpus(char_lm._cut(text))
    assert {k: len(v) for k, v in corpus.parts.items()} == {
        "train": len(text) - 3 * size, "tuning": size, "validation": size, "test": size,
    }  # fmt: skip


def test_the_hash_follows_the_training_text_of_a_file(tmp_path, novel, intents):
    path, text = tmp_path / "other.txt", story()
    path.write_text(text[1] + text[0] + text[2:])
    assert text[0] != text[1]
    task = tasks.get("char_lm")
    assert task.data(0, {"file": str(path)}).sha256 != task.data(0, {"file": novel}).sha256
    lines = [f"{label}\t{text}" for label, text in rows()]
    trained = {e.text for e in labelled.of_file(intents)["train"]}
    label, line = next(row for row in rows() if row[1] in trained)
    kept = [text for text in lines if text != f"{label}\t{line}"]
    fewer = tmp_path / "fewer.tsv"
    fewer.write_text("\n".join(kept))
    task = tasks.get("text_classification")
    assert task.data(0, {"file": str(fewer)}).sha256 != task.data(0, {"file": intents}).sha256


def test_char_lm_chance_is_the_bits_of_letter_frequencies(novel):
    data = tasks.get("char_lm").data(3, {"file": novel, "evaluated": 0})
    text = story()
    train = text[: len(text) - 3 * int(len(text) * 0.05)]
    letters = sorted(set(text))
    assert data.net["vocabulary"] == data.net["outputs"] == len(letters)
    share = np.array([train.count(c) + 1 for c in letters], float)
    logits = np.log(share)
    found = data.score(
        [np.broadcast_to(logits, (*b.targets.shape, len(share))) for b in data.test], data.test
    )
    assert found == pytest.approx(data.chance, rel=0.01)
    assert tasks.get("char_lm").data(4, {"file": novel, "evaluated": 0}).sha256 == data.sha256


def test_penn_treebank_as_characters_has_no_spaces_and_one_line_end_per_sentence():
    raw = b" the <unk> N \n no it was n't \n"
    assert char_lm.ptb_characters(raw) == "the_<unk>_N\nno_it_was_n't\n"


def test_text_classification_batches_hold_the_texts_tokens_and_labels(intents):
    data = tasks.get("text_classification").data(1, {"file": intents})
    assert data.net["outputs"] == 2
    for batch in (data.train(0), *data.test):
        assert batch.inputs.shape[0] % 8 == 0
        assert batch.inputs.shape[2] == 512
        first = text_classification.Ternary(512)
        play = first.batch([first.rows(["play"])], 1)[0, 0]
        for column, length in enumerate(batch.lengths):
            assert batch.inputs[:length, column].any(-1).all()
            assert not batch.inputs[length:, column].any()
            is_play = (batch.inputs[0, column] == play).all()
            assert batch.targets[column] == int(is_play)  # "book" < "play"


def test_text_classification_takes_every_example_once_per_epoch_in_like_lengths(intents):
    data = tasks.get("text_classification").data(1, {"file": intents})
    size = data.train.per_epoch
    seen = [data.train(s).inputs for s in range(size)]
    lengths = [data.train(s).lengths for s in range(size)]
    columns = [
        x[:, i].any(-1).sum().tobytes() + x[:, i].sum(0).tobytes() for x in seen for i in range(32)
    ]
    assert len(set(columns)) == len(columns) == size * 32
    assert np.mean([np.ptp(found) for found in lengths]) < 2
    assert not np.array_equal(data.train(0).inputs, data.train(size).inputs)


def test_parts_share_no_text_and_the_reported_set_keeps_it():
    same = [labelled.Example("a b", "x")]
    parts = labelled.apart(
        {
            "train": [*same, labelled.Example("c", "y")],
            "validation": same,
            "tuning": [],
            "test": same,
        }
    )
    assert [len(parts[p]) for p in ("train", "validation", "tuning", "test")] == [1, 0, 0, 1]
    given = [labelled.Example(b, a) for a, b in rows()]
    cut = labelled.apart(labelled._cut(given, labelled.SHARES))
    assert sum(map(len, cut.values())) == len({e.text for p in cut.values() for e in p}) == 400
    assert labelled.apart(labelled._cut(given[::-1], labelled.SHARES)) == cut


def test_jsonl_and_tsv_of_the_same_examples_are_the_same_data(tmp_path, intents):
    other = tmp_path / "intents.jsonl"
    other.write_text("\n".join(json.dumps({"text": b, "label": a}) for a, b in rows()))
    task = tasks.get("text_classification")
    one, two = task.data(1, {"file": intents}), task.data(1, {"file": str(other)})
    assert one.sha256 == two.sha256
    np.testing.assert_array_equal(one.train(3).inputs, two.train(3).inputs)
    assert task.data(1, {"file": intents, "most_tokens": 2}).sha256 != one.sha256


def test_imdb_reads_its_owners_archive_like_local_lines():
    files = {
        f"aclImdb/{p}/{c}/{i}_3.txt": f"{p} {c} {i}"
        for p in ("train", "test")
        for c in ("neg", "pos")
        for i in (0, 1)
    }
    files["aclImdb/train/unsup/0_0.txt"] = "unlabelled"
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text.encode()))
    found = sorted(labelled._imdb_archive(buffer.getvalue(), "train"))
    assert found == [
        ("train neg 0", "neg"),
        ("train neg 1", "neg"),
        ("train pos 0", "pos"),
        ("train pos 1", "pos"),
    ]
    lines = "\n".join(json.dumps({"text": t, "label": n, "id": 0}) for t, n in found) + "\n"
    assert labelled._imdb_lines(lines.encode()) == found
