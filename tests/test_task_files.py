"""Files and known data of the tasks: what is refused in one line, and where data are looked for."""

from __future__ import annotations

import functools
import gzip
import hashlib
import http.server
import lzma
import threading

import pytest

from harness import tasks
from harness.errors import UsageError
from harness.tasks import labelled, sources
from harness.tasks.sources import File

LABELLED = "".join(f"{('play', 'book')[i % 2]}\ta ship {i}\n" for i in range(400))


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


def test_a_byte_order_mark_and_windows_line_ends_are_no_characters_of_the_text(tmp_path):
    novel, text = tmp_path / "novel.txt", "seven ships\nat sea\n" * 3000
    novel.write_text(text)
    other = tmp_path / "windows.txt"
    other.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
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
    ("a.tsv", LABELLED + "rare\tnobody at sea\n", "'rare'"),
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
