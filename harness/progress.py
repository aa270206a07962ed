"""How far a run is: one live line on a terminal, plain lines elsewhere.

Nothing is drawn while a worker is timed: there is no refreshing thread.
"""

from __future__ import annotations

import sys
import time
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar

QUIET_S = 20.0
"""Without a terminal, a line at most this often."""


def words(seconds: float) -> str:
    """A duration for people: "42 s", "3 min 20 s", "2 h 05 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


class Progress:
    """Progress of a run on stderr."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._console = Console(file=self._stream, highlight=False)
        self._bar: Bar | None = None
        self._last = -QUIET_S

    def note(self, text: str) -> None:
        """One line that stays."""
        self._console.print(text, markup=False, soft_wrap=True)

    def start(self, total: int) -> None:
        """Begin a part of `total` steps."""
        self.close()
        if self._console.is_terminal:
            self._bar = Bar(
                BarColumn(24),
                MofNCompleteColumn(),
                TextColumn("{task.description}", markup=False),
                console=self._console,
                auto_refresh=False,
                transient=True,
            )
            self._bar.add_task("", total=total)
            self._bar.start()

    def sitting(self, label: str, done: int, total: int, seconds_left: float) -> None:
        """What is measured now, and about how long all the rest takes."""
        text = f"{label}, about {words(seconds_left)} left"
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=done, description=text, refresh=True)
        elif time.monotonic() - self._last >= QUIET_S or done == 0:
            self._last = time.monotonic()
            self.note(f"[{done + 1}/{total}] {text}")

    def close(self) -> None:
        """End the live line."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
