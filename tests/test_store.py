"""A run folder loses nothing that was finished and overwrites nothing that is not its own."""

import gzip
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from harness import files, store
from harness.errors import UsageError
from harness.machine import system
from harness.store import RunFolder, complete, read_rows, read_samples

TOP = Path(__file__).resolve().parent.parent


def row(cell="c1", sitting="s1", status="ok", stale="k1", **more):
    return {"cell_id": cell, "sitting_id": sitting, "status": status, "stale_key": stale, **more}


def open_folder(path, **more):
    return RunFolder.open(path, more.pop("profile", "smoke"), more.pop("protocol", 1), **more)


def child(code, *words):
    """A process that runs `code` from the checkout; it says a line when it is ready."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, words)],
        cwd=TOP, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    process.first_line = process.stdout.readline()
    return process


def end(process, how=signal.SIGKILL):
    process.send_signal(how)
    process.wait(timeout=20)
    process.stdin.close()
    process.stdout.close()


def test_what_was_appended_is_read_back_after_reopening(tmp_path):
    with open_folder(tmp_path / "run") as folder:
        folder.append_sitting([row("c1"), row("c2")], [{"cell_id": "c1", "wall_ns": [1, 2]}])
        folder.append_sitting([row("c1", "s2")], [{"cell_id": "c1", "wall_ns": [3]}])
        folder.append_equivalence([{"check": "stream", "error": 1e-7}])
        first, manifest = folder.rows, folder.manifest
    with open_folder(tmp_path / "run") as folder:
        assert folder.rows == first
        assert folder.manifest == manifest
        assert folder.manifest["run_id"]
        assert folder.logs.is_dir()
    rows, note = read_rows(tmp_path / "run")
    assert (rows, note) == (first, None)
    assert [r["sitting_id"] for r in rows] == ["s1", "s1", "s2"]
    assert {r["schema_version"] for r in rows} == {store.SCHEMA_VERSION}
    assert [s["wall_ns"] for s in read_samples(tmp_path / "run")] == [[1, 2], [3]]
    text = (tmp_path / "run" / "equivalence.jsonl").read_text()
    assert json.loads(text) == {"schema_version": 1, "check": "stream", "error": 1e-7}


def test_samples_are_one_gzip_member_per_sitting_and_plain_gzip_reads_them(tmp_path):
    with open_folder(tmp_path) as folder:
        for number in range(3):
            folder.append_sitting([row()], [{"round": number}] * 50)
    data = (tmp_path / "samples.jsonl.gz").read_bytes()
    assert len(list(files.members(data))) == 3
    assert gzip.decompress(data).count(b"\n") == 150


def test_large_members_are_found_whole():
    noise = np.random.default_rng(0).bytes(300_000)
    parts = [gzip.compress(noise), gzip.compress(b""), gzip.compress(noise[:70_000])]
    assert list(files.members(b"".join(parts))) == parts


def test_numpy_becomes_plain_and_what_is_not_finite_null(tmp_path):
    odd = row(a=np.float64(1.5), b=float("nan"), c=np.inf, d=np.int64(3), e=np.arange(2), f=True)
    with open_folder(tmp_path) as folder:
        folder.append_sitting([odd], [])
        assert folder.rows[0]["b"] is None
    text = (tmp_path / "cells.jsonl").read_text()
    assert "NaN" not in text
    assert "Infinity" not in text
    found = json.loads(text)
    assert [found[k] for k in "abcdef"] == [1.5, None, None, 3, [0, 1], True]


def test_manifest_is_replaced_in_one_step(tmp_path, monkeypatch):
    with open_folder(tmp_path) as folder:
        folder.update_manifest(ceilings={"copy_bytes": np.float64(2.0)})
        before = (tmp_path / "manifest.json").read_text()
        assert json.loads(before)["ceilings"] == {"copy_bytes": 2.0}

        def crash(*_):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", crash)
            with pytest.raises(KeyboardInterrupt):
                folder.update_manifest(ceilings=None)
        assert (tmp_path / "manifest.json").read_text() == before
    with open_folder(tmp_path) as folder:
        assert folder.manifest["ceilings"] == {"copy_bytes": 2.0}


def test_a_failed_write_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    with open_folder(tmp_path) as folder:
        folder.append_sitting([row()], [])
        before = (tmp_path / "cells.jsonl").read_bytes()
        real = os.write
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", lambda handle, data: real(handle, data[:7]))
            with pytest.raises(OSError, match="only 7 of"):
                folder.append_sitting([row("c9")], [])
        assert (tmp_path / "cells.jsonl").read_bytes() == before
        assert len(folder.rows) == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"profile": "paper"}, "profile 'smoke', this is 'paper'"),
        ({"protocol": 2}, "protocol_version 1, this is 2"),
    ],
)
def test_another_profile_or_protocol_is_refused(tmp_path, change, words):
    open_folder(tmp_path).close()
    before = (tmp_path / "manifest.json").read_bytes()
    with pytest.raises(UsageError, match=words):
        open_folder(tmp_path, **change)
    assert (tmp_path / "manifest.json").read_bytes() == before
    assert not (tmp_path / "lock").exists()


def test_another_schema_is_refused(tmp_path):
    with open_folder(tmp_path) as folder:
        folder.update_manifest(schema_version=0)
    with pytest.raises(UsageError, match="schema_version 0, this is 1"):
        open_folder(tmp_path)


def test_a_broken_manifest_is_refused(tmp_path):
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(UsageError, match="not valid JSON"):
        open_folder(tmp_path)
    (tmp_path / "manifest.json").write_text("[]")
    with pytest.raises(UsageError, match="schema_version None"):
        open_folder(tmp_path)


def test_a_folder_of_something_else_is_not_touched(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UsageError, match=r"not a run folder .*'thesis\.tex'"):
        open_folder(tmp_path)
    assert [item.name for item in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(UsageError, match="is a file"):
        open_folder(tmp_path / "thesis.tex")


@pytest.mark.parametrize("tail", [b'{"cell_id": "c3", "sit', b"\0\0\0", b'{"cut":1}', b"{]\n"])
@pytest.mark.parametrize("name", ["cells", "equivalence"])
def test_a_torn_last_line_is_refused_and_set_aside_only_on_request(tmp_path, name, tail):
    with open_folder(tmp_path) as folder:
        folder.append_sitting([row("c1"), row("c2")], [])
        folder.append_equivalence([{"check": "a"}])
    file = tmp_path / f"{name}.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole + tail)
    with pytest.raises(UsageError, match=r"torn .* --repair to set it aside in \w+\.torn"):
        open_folder(tmp_path)
    assert file.read_bytes() == whole + tail
    with open_folder(tmp_path, repair=True) as folder:
        assert len(folder.rows) == 2
    assert file.read_bytes() == whole
    assert (tmp_path / f"{name}.torn").read_bytes() == tail


def test_readers_leave_a_torn_line_out_and_say_so(tmp_path):
    with open_folder(tmp_path) as folder:
        folder.append_sitting([row()], [])
    with (tmp_path / "cells.jsonl").open("ab") as file:
        file.write(b'{"cell')
    rows, note = read_rows(tmp_path)
    assert len(rows) == 1
    assert "torn" in note


def test_a_damaged_line_in_the_middle_is_refused(tmp_path):
    with open_folder(tmp_path) as folder:
        folder.append_sitting([row()], [])
    with (tmp_path / "cells.jsonl").open("ab") as file:
        file.write(b'{"cell\n{"cell_id":"c2"}\n')
    for call in (lambda: read_rows(tmp_path), lambda: open_folder(tmp_path, repair=True)):
        with pytest.raises(UsageError, match="line 2 is damaged"):
            call()


@pytest.mark.parametrize("cut", [1, 5, 12, 40])
def test_a_torn_end_of_the_samples_costs_only_itself(tmp_path, cut):
    with open_folder(tmp_path) as folder:
        folder.append_sitting([row()], [{"round": 0}])
        folder.append_sitting([row("c2")], [{"round": 1, "noise": random.Random(1).random()}])
    file = tmp_path / "samples.jsonl.gz"
    data = file.read_bytes()
    file.write_bytes(data[:-cut])
    assert [s["round"] for s in read_samples(tmp_path)] == [0]
    with open_folder(tmp_path) as folder:
        folder.append_sitting([row("c3")], [{"round": 2}])
    assert [s["round"] for s in read_samples(tmp_path)] == [0, 2]
    assert gzip.decompress(file.read_bytes()).count(b"\n") == 2
    assert data[:-cut].endswith((tmp_path / "samples.torn").read_bytes())


HOLD = """
import sys
from harness.store import RunFolder
with RunFolder.open(sys.argv[1], "smoke", 1):
    print("ready", flush=True)
    sys.stdin.read()
"""


def test_a_folder_in_use_by_a_live_process_is_refused(tmp_path):
    holder = child(HOLD, tmp_path)
    try:
        assert holder.first_line == b"ready\n"
        with pytest.raises(UsageError, match=f"in use by process {holder.pid}"):
            open_folder(tmp_path)
        with pytest.raises(UsageError, match="in use"):
            open_folder(tmp_path, repair=True)
    finally:
        end(holder)


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path):
    end(child(HOLD, tmp_path))
    assert (tmp_path / "lock").exists()
    with open_folder(tmp_path) as folder:
        assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()
        folder.append_sitting([row()], [])
    assert not (tmp_path / "lock").exists()


def owner(**changes):
    me = {
        "pid": os.getpid(),
        "started": system.process_started(os.getpid()),
        "boot_id": system.boot_id(),
    }
    return json.dumps(me | changes)


def test_the_content_alone_refuses_where_the_system_has_no_file_locks(tmp_path):
    (tmp_path / "lock").write_text(owner())
    with pytest.raises(UsageError, match=f"in use by process {os.getpid()}"):
        open_folder(tmp_path)
    assert (tmp_path / "lock").read_text() == owner()


@pytest.mark.parametrize(
    "content",
    [
        owner(started="1"),
        owner(boot_id="another"),
        owner(pid=2**22 + 5),
        "",
        '{"pid": 12',
        "[]",
    ],
    ids=["pid used again", "restarted machine", "no such process", "empty", "torn", "no owner"],
)
def test_a_lock_without_its_process_is_taken_over(tmp_path, content):
    (tmp_path / "lock").write_text(content)
    with open_folder(tmp_path):
        assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()


def test_the_lock_excludes_the_process_itself_and_ends_with_the_folder(tmp_path):
    with open_folder(tmp_path) as folder:
        with pytest.raises(UsageError, match="in use"):
            open_folder(tmp_path)
        folder.close()
        open_folder(tmp_path).close()
    assert not (tmp_path / "lock").exists()


WRITE = """
import sys
from harness.store import RunFolder
with RunFolder.open(sys.argv[1], "smoke", 1) as folder:
    start = len(folder.rows) // 8
    print("ready", flush=True)
    for number in range(start, 100000):
        rows = [{"cell_id": f"c{n}", "sitting_id": f"s{number}", "status": "ok",
                 "stale_key": "k", "pad": "x" * 700} for n in range(8)]
        samples = [{"cell_id": f"c{n}", "sitting_id": f"s{number}", "wall_ns": [n] * 40}
                   for n in range(8)]
        folder.append_sitting(rows, samples)
        print(number, flush=True)
"""


def test_a_killed_writer_loses_no_finished_sitting(tmp_path):
    """Five kills at random moments, each followed by a resume in the same folder."""
    moments, promised = random.Random(7), 0
    for _ in range(5):
        writer = child(WRITE, tmp_path)
        assert writer.first_line == b"ready\n"
        for _ in range(moments.randrange(1, 30)):
            promised = int(writer.stdout.readline()) + 1
        writer.send_signal(signal.SIGKILL)
        said = writer.stdout.read().split()
        promised = int(said[-1]) + 1 if said else promised
        end(writer)
        with open_folder(tmp_path, repair=True) as folder:
            counts = {}
            for found in folder.rows:
                counts[found["sitting_id"]] = counts.get(found["sitting_id"], 0) + 1
        finished = [name for name, count in counts.items() if count == 8]
        assert finished[:promised] == [f"s{n}" for n in range(promised)]
        assert len(finished) <= promised + 1
        kept = {s["sitting_id"] for s in read_samples(tmp_path)}
        assert kept >= set(finished)


EXPECTED = {"c1": "k1", "c2": "k2"}


def sitting(name="s1", status=("ok", "ok"), stale=("k1", "k2"), cells=("c1", "c2")):
    return [row(c, name, s, k) for c, s, k in zip(cells, status, stale, strict=True)]


@pytest.mark.parametrize("status", sorted(store.FINAL))
def test_a_whole_current_sitting_is_complete(status):
    assert complete(sitting(status=("ok", status)), EXPECTED)


@pytest.mark.parametrize("status", ["interrupted", "skipped", "nonsense"])
def test_interrupted_and_skipped_cells_are_measured_again(status):
    assert not complete(sitting(status=("ok", status)), EXPECTED)


def test_cells_of_two_sittings_do_not_make_one():
    halves = [row("c1", "s1", stale="k1"), row("c2", "s2", stale="k2")]
    assert not complete(halves, EXPECTED)
    assert not complete([], EXPECTED)


def test_a_stale_cell_makes_the_sitting_incomplete_until_it_is_measured_anew():
    old = sitting(stale=("k1", "older"))
    assert not complete(old, EXPECTED)
    assert complete(old + sitting("s2"), EXPECTED)


def test_cells_that_are_no_longer_expected_do_not_matter():
    more = [*sitting(), row("c3", "s1", stale="k3")]
    assert complete(more, EXPECTED)
    assert not complete(sitting(), {**EXPECTED, "c3": "k3"})
