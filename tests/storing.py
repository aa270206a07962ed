"""Rows, run folders and processes that hold them, for the tests of the store."""

import signal
import subprocess
import sys
from pathlib import Path

from harness.store import RunFolder

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
