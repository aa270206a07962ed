"""A run folder has one writer; the lock of a process that is gone holds nobody up."""

import json
import os

import pytest

from harness.errors import UsageError
from harness.machine import system
from tests.storing import child, end, open_folder, row

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
