"""Checks of single values from a TOML file or a command line; each failure is one clear line."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import impls
from harness.errors import UsageError, nearest

UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def parse_duration(text: Any, key: str = "budget") -> float:
    """Seconds of a duration such as "40s", "4.5m" or "8h".

    Raises:
        UsageError: no number above 0 with a unit.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh])", str(text).strip())
    value = float(match[1]) * UNITS[match[2]] if match else 0.0
    if value <= 0 or not math.isfinite(value):
        raise UsageError(f'{key} = {text!r}: give a time above zero such as "40s", "4.5m", "8h"')
    return value


def known_keys(table: Mapping[str, Any], allowed: tuple[str, ...], where: str, what: str) -> None:
    """Refuse a key that nobody reads, with the nearest one that is read."""
    for key in table:
        if key not in allowed:
            raise UsageError(
                f"{where}: unknown key {key!r}{nearest(key, allowed)} (allowed {what}: "
                f"{', '.join(allowed)})"
            )


def one_of(key: str, value: Any, allowed: tuple[str, ...]) -> str:
    """A word of a fixed list."""
    if not isinstance(value, str) or value not in allowed:
        words = ", ".join(map(repr, allowed))
        raise UsageError(f"{key} = {value!r}: allowed are {words}{nearest(value, allowed)}")
    return value


def words(key: str, value: Any, allowed: tuple[str, ...]) -> list[str]:
    """A list of at least one of these words, each once."""
    if not isinstance(value, list) or not value or len(set(map(str, value))) < len(value):
        raise UsageError(
            f"{key} = {value!r}: give a list of words, each once: {', '.join(allowed)}"
        )
    return [one_of(key, word, allowed) for word in value]


def whole(key: str, value: Any, least: int = 1) -> int:
    """A whole number of at least `least`; true and 8.0 are none."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UsageError(f"{key} = {value!r}: give a whole number of at least {least}")
    return value


def flag(key: str, value: Any) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise UsageError(f"{key} = {value!r}: give true or false")
    return value


def fraction(key: str, value: Any, zero: bool) -> float:
    """A number below 1 and above 0, or from 0 on where `zero` is allowed."""
    number = not isinstance(value, bool) and isinstance(value, int | float)
    if not number or not (0 <= value < 1) or (value == 0 and not zero):
        raise UsageError(f"{key} = {value!r}: give a number in {'[' if zero else '('}0, 1)")
    return float(value)


def line(key: str, value: Any) -> str:
    """A line of text."""
    if not isinstance(value, str):
        raise UsageError(f"{key} = {value!r}: give a line of text")
    return value


def threads(key: str, value: Any) -> int | str:
    """A thread budget: a number, or "all"."""
    if value != "all" and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise UsageError(f'{key} = {value!r}: give "all" or a whole number of at least 1')
    chosen: int | str = value
    return chosen


def implementation(key: str, name: Any, further: tuple[str, ...] = ()) -> str:
    """The name of a listed implementation, or one of the `further` words."""
    known = (*further, *impls.names())
    if not isinstance(name, str) or name not in known:
        raise UsageError(
            f"{key}: unknown implementation {name!r}{nearest(name, known)} (known: "
            f"{', '.join(known)})"
        )
    return name


def contenders(key: str, value: Any) -> tuple[str, ...] | str:
    """The word "all", or a list of different implementations."""
    if value == "all":
        return "all"
    if not isinstance(value, list) or not value:
        raise UsageError(f'{key} = {value!r}: give "all" or a list of implementations')
    names = tuple(implementation(key, name) for name in value)
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"{key}: {twice[0]!r} is given twice: remove one")
    return names


def implementations(key: str, value: Any) -> tuple[str, ...]:
    """A list of different implementations."""
    if value == "all":
        raise UsageError(f'{key} = "all": give a list of implementations')
    return tuple(contenders(key, value))


def token_limits(key: str, value: Any) -> dict[str, int]:
    """A table of implementations, each with a number of tokens."""
    if not isinstance(value, dict) or not value:
        raise UsageError(f"{key} = {value!r}: give a table such as {{ conv_torch = 4096 }}")
    return {
        implementation(key, name): whole(f"{key}: {name}", most) for name, most in value.items()
    }


def modes(key: str, value: Any, allowed: tuple[str, ...]) -> tuple[str, ...]:
    """Words of `allowed`, "default" among them, whose rows every other mode is read beside."""
    found = tuple(words(key, value, allowed))
    if "default" not in found:
        raise UsageError(f'{key} = {value!r}: add "default", beside which the others are read')
    return found
