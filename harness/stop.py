"""Ctrl-C and SIGTERM as a request that is met between two blocks, and the end of a process."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from types import FrameType
from typing import Any


class InterruptError(Exception):
    """The user asked to stop while something was running that need not be finished."""


class Stop:
    """SIGINT and SIGTERM as a flag that also wakes the sleeping coordinator.

    The first signal only asks: the running block is finished. The second one raises
    KeyboardInterrupt at once. Outside the main thread no handler can be set and the flag stays
    False.
    """

    def __init__(self) -> None:
        self.requested = False
        self._read, self._write = os.pipe()
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Stop:
        os.set_blocking(self._write, False)
        for number in (signal.SIGINT, signal.SIGTERM):
            with contextlib.suppress(ValueError):
                self._before[number] = signal.signal(number, self._asked)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self._read)
        os.close(self._write)

    def _asked(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        with contextlib.suppress(BlockingIOError):
            os.write(self._write, b"!")

    def fileno(self) -> int:
        """What `select` listens to: readable once a stop was requested."""
        return self._read


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill a process that leads a session of its own, with all that it started, a compiler say."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
