"""The tests marked `gpu`, run by pytest beside the equivalence checks and stopped in time."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import harness
import impls

LOG = "gpu-tests.log"
MARK = "pytest.mark.gpu"
OPTIONS = ("-v", "--tb=short", "-p", "no:cacheprovider", "-m", "gpu", "-W", "default")
"""Warnings of another framework release are shown, they are not what is tested here."""
OUTCOME = re.compile(r"^(\S+::\S.*?) (PASSED|FAILED|ERROR|SKIPPED|XFAIL|XPASS)\b")
COLLECTION = re.compile(r"^(?:_+ )?ERROR collecting (\S+)")
NAMED = 20
"""Failures that the manifest names; the log has all."""


def test_files() -> list[Path]:
    """Test modules of this checkout that hold such tests; none where the package is installed."""
    folder = Path(harness.__file__).resolve().parent.parent / "tests"
    found = sorted(folder.glob("test_*.py"))
    return [path for path in found if MARK in path.read_text(encoding="utf-8")]


class DeviceTests:
    """One run of the tests in a process of its own; a context manager that leaves none behind."""

    def __init__(self, logs: Path, limit_s: float) -> None:
        """Start pytest; it is killed `limit_s` seconds from now."""
        self.log, self.limit_s = logs / LOG, limit_s
        self._started = time.monotonic()
        self._process: subprocess.Popen[bytes] | None = None
        files = test_files()
        self.absent = None
        if impls.absent("pytest"):
            self.absent = "gpu tests: not run, pytest is not installed: pip install pytest"
        elif not files:
            self.absent = "gpu tests: not run, this is no checkout with tests/"
        else:
            self._process = self._spawn(files)

    def _spawn(self, files: list[Path]) -> subprocess.Popen[bytes]:
        top = files[0].parent.parent
        # The options of pyproject.toml name plugins that need not be installed here.
        command = [sys.executable, "-m", "pytest", "-o", "addopts=--strict-markers", *OPTIONS]
        command += [str(path.relative_to(top)) for path in files]
        env = {**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false", "PYTHONUNBUFFERED": "1"}
        with self.log.open("wb") as log:
            return subprocess.Popen(
                command, cwd=top, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env,
                start_new_session=True,
            )  # fmt: skip

    def finish(self) -> dict[str, Any]:
        """Wait for the end, at most until the limit; counts, names of failures, how it ended.

        `ended` is "done", "out of time" (the counts are those until then), "not run", or words
        about pytest's exit where it made no test.
        """
        if self._process is None:
            return {"ended": "not run", "reason": self.absent}
        left = self._started + self.limit_s - time.monotonic()
        try:
            code: int | None = self._process.wait(timeout=max(0.0, left))
        except subprocess.TimeoutExpired:
            code = None
            self.kill()
        found = outcomes(self.log.read_text(encoding="utf-8", errors="replace"))
        found["seconds"] = round(time.monotonic() - self._started, 1)
        found["ended"] = "out of time" if code is None else "done"
        if code not in (None, 0, 1, 5):  # 5: whole modules were skipped, no framework is here
            found["ended"] = f"pytest ended with code {code}"
        return found

    def kill(self) -> None:
        """End pytest and whatever it started; safe to repeat."""
        if self._process is not None and self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def __enter__(self) -> DeviceTests:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


def outcomes(text: str) -> dict[str, Any]:
    """Counts by outcome and the names of what failed, from pytest's verbose lines so far."""
    counts = {"passed": 0, "failed": 0, "error": 0, "skipped": 0}
    wrong = []
    for line in text.splitlines():
        if match := OUTCOME.match(line):
            name, word = match[1], match[2].lower()
            counts[word] = counts.get(word, 0) + 1
            wrong += [name] * (word in ("failed", "error"))
        elif match := COLLECTION.match(line):
            counts["error"] += 1
            wrong.append(match[1])
    return {**counts, "failures": wrong[:NAMED]}


def words(found: dict[str, Any]) -> list[str]:
    """What is said of a run: one line, and one more for every failure."""
    if found["ended"] == "not run":
        return [str(found["reason"])]
    counts = ", ".join(f"{found[word]} {word}" for word in ("passed", "failed", "error", "skipped"))
    lines = [f"gpu tests: {counts} in {found['seconds']:.0f} s, {found['ended']} (logs/{LOG})"]
    return lines + [f"FAILED gpu test {name}" for name in found["failures"]]


def wrong(found: dict[str, Any]) -> bool:
    """Whether tests failed, or pytest made none though it was there."""
    return bool(found.get("failures")) or str(found["ended"]).startswith("pytest ended")
