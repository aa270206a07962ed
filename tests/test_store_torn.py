"""A write that was cut off costs only itself; what was finished before it is kept."""

import gzip
import os
import random
import signal

import pytest

from harness.errors import UsageError
from harness.store import read_rows, read_samples
from tests.storing import child, end, open_folder, row


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
