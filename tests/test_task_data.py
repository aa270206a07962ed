"""Tasks on files and known data: what is read, how it is cut, and what is refused in one line."""

from __future__ import annotations

import functools
import gzip
import hashlib
import http.server
import io
import json
import lzma
import tarfile
import threading

import numpy as np
import pytest

from harness import tasks
from harness.errors import UsageError
from harness.tasks import char_lm, labelled, sources, text_classification
from harness.tasks.sources import File

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


BAD_TEXT = [
    (None, "does not exist"),
    (b"", "is empty"),
    (b" \n\n", "is empty"),
    (b"fine\nline\xff two\n", "not UTF-8 .line 2, byte 9"),
    (b"only one line, however long" * 5000, "only one line"),
    (b"too\nshort\n", "too short"),
]


@pytest.mark.parametrize(("raw", "message"), BAD_TEXT)
def test_char_lm_refuses_a_bad_file_in_one_line(tmp_path, raw, message):
    path = tmp_path / "text.txt"
    if raw is not None:
        path.write_bytes(raw)
    with pytest.raises(UsageError, match=message) as caught:
        tasks.get("char_lm").data(0, {"file": str(path)})
    assert "\n" not in str(caught.value)


def test_a_byte_order_mark_and_windows_line_ends_are_no_characters_of_the_text(tmp_path, novel):
    other = tmp_path / "windows.txt"
    other.write_bytes(b"\xef\xbb\xbf" + story().replace("\n", "\r\n").encode())
    task = tasks.get("char_lm")
    assert task.data(0, {"file": other}).sha256 == task.data(0, {"file": novel}).sha256


BAD_LABELS = [
    ("a.tsv", "play\tone\nno tab here\n", "line 2: no tab"),
    ("a.tsv", "play\tone\n\ttwo\n", "line 2: an empty label"),
    ("a.tsv", "play\tone two\nplay\tthree\n", "every label is 'play'"),
    ("a.tsv", "play\tone two\nbook\tthree\n", "2 examples leave none for"),
    ("a.jsonl", '{"text": "a", "label": "x"}\n{"text": \n', "line 2: not JSON"),
    ("a.jsonl", '{"text": "a", "label": "x"}\n[1]\n', "line 2: not a JSON object"),
    ("a.jsonl", '{"text": "a", "label": "x"}\n{"text": "b"}\n', "line 2: label = None"),
    ("a.jsonl", '{"text": "a", "label": true}\n{"text": "b"}\n', "line 1: label = True"),
    ("a.jsonl", '{"text": 3, "label": "x"}\n{"text": "b"}\n', "line 1: text = 3"),
    ("a.csv", "a,b\n", "must end in .jsonl or .tsv"),
    ("a.tsv", "".join(f"{a}\t{b}\n" for a, b in rows()) + "rare\tnobody at sea\n", "'rare'"),
]


@pytest.mark.parametrize(("name", "text", "message"), BAD_LABELS)
def test_text_classification_refuses_a_bad_file_in_one_line(tmp_path, name, text, message):
    if "rare" in text:  # a label that only held-out texts have
        held = next(w for w in (f"sea {i}" for i in range(99)) if labelled._bucket(w) % 100 < 30)
        text = text.replace("nobody at sea", held)
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=message):
        tasks.get("text_classification").data(0, {"file": str(tmp_path / name)})


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("char_lm", {"source": "tinyshakespear"}, "did you mean 'tinyshakespeare'"),
        ("char_lm", {"source": "ptb", "file": "x"}, "not both"),
        ("char_lm", {"evaluated": -1}, "evaluated = -1"),
        ("char_lm", {"file": 3}, "file = 3"),
        ("char_lm", {"file": "."}, "cannot be read"),
        ("text_classification", {"source": "snip"}, "did you mean 'snips'"),
        ("text_classification", {"source": "imdb", "file": "x.tsv"}, "not both"),
        ("text_classification", {"most_tokens": True}, "most_tokens = True"),
        ("text_classification", {"file": 3}, "file = '3'"),
    ],
)
def test_bad_options_are_one_clear_line(name, options, message):
    with pytest.raises(UsageError, match=message):
        tasks.get(name).data(0, options)


@pytest.fixture
def known(tmp_path, monkeypatch):
    """A known file "x", a local folder and an owner's web server that has it too."""
    raw, web, local = b"content\n" * 9, tmp_path / "web", tmp_path / "local"
    (local / "set").mkdir(parents=True)
    web.mkdir()
    (web / "x.txt").write_bytes(raw)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    serve = functools.partial(Quiet, directory=str(web))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), serve) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{server.server_address[1]}/x.txt"
        digest = hashlib.sha256(raw).hexdigest()
        monkeypatch.setattr(sources, "FILES", {"x": File("set/x.txt", url, f"sha256:{digest}")})
        monkeypatch.setenv(sources.VARIABLE, str(local))
        monkeypatch.setenv("QUASIBENCH_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield raw, web, local
        server.shutdown()
        thread.join()
    sources._content.cache_clear()


@pytest.mark.parametrize(
    ("ending", "pack"), [("", bytes), (".xz", lzma.compress), (".gz", gzip.compress)]
)
def test_local_folder_comes_first_plain_or_packed(known, ending, pack):
    raw, web, local = known
    (web / "x.txt").unlink()
    assert not sources.is_local("x")
    (local / f"set/x.txt{ending}").write_bytes(pack(raw))
    assert sources.is_local("x")
    assert sources.content("x") == raw


def test_what_is_not_local_is_downloaded_once(known):
    raw, web, _ = known
    assert sources.content("x") == raw
    (web / "x.txt").unlink()
    sources._content.cache_clear()
    assert sources.content("x") == raw


def test_another_content_is_refused_wherever_it_lies(known):
    _, web, local = known
    (web / "x.txt").write_bytes(b"other")
    with pytest.raises(UsageError, match="another content came"):
        sources.content("x")
    (local / "set/x.txt").write_bytes(b"other")
    with pytest.raises(UsageError, match="is not the file that is known"):
        sources.content("x")
    (local / "set/x.txt").unlink()
    (local / "set/x.txt.xz").write_bytes(b"broken")
    with pytest.raises(UsageError, match="cannot be read"):
        sources.content("x")


def test_a_failed_download_says_where_to_put_the_file(known):
    (known[1] / "x.txt").unlink()
    with pytest.raises(UsageError, match=r"cannot be downloaded .*\$QUASIBENCH_DATA/set/x.txt"):
        sources.content("x")


def test_every_known_file_has_a_hash_and_an_address_or_is_local_only():
    for file in sources.FILES.values():
        algorithm, pinned = file.known_hash.split(":")
        assert len(pinned) == {"sha256": 64, "md5": 32}[algorithm]
        assert file.url.startswith("https://") or file.local.startswith("imdb/imdb_")
