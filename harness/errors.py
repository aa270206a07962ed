"""The one error that a user can cause, and the hint that goes with a mistyped word."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UsageError(Exception):
    """Bad input: one clear line that says what was given, what is allowed and what to do.

    The command prints the line and exits with code 2; nothing has been overwritten.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(str(message).split()))


def nearest(word: object, allowed: Iterable[str]) -> str:
    """A hint such as "; did you mean 'steps'?", or "" where nothing is near."""
    near = difflib.get_close_matches(str(word), list(allowed), n=1, cutoff=0.55)
    return f"; did you mean {near[0]!r}?" if near else ""
