"""The [[grid]] and [[memory]] tables of a profile: axes with their values, each one checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness import checked
from harness.checked import known_keys
from harness.errors import UsageError
from harness.speed import grid
from impls.contract import DTYPES, KINDS, POOLINGS, ZONEOUT_EVALS, ZONEOUT_MODES, ModelSpec

WORDS: dict[str, tuple[str, ...]] = {
    "kind": KINDS,
    "device": ("cpu", "cuda"),
    "dtype": DTYPES,
    "pooling": POOLINGS,
    "zoneout_mode": ZONEOUT_MODES,
    "zoneout_eval": ZONEOUT_EVALS,
}
"""Axes whose values are words."""
NEEDED = ("kind", "batch", "steps")


def axes_of(table: Mapping[str, Any], where: str) -> dict[str, list[Any]]:
    """One [[grid]] table with every value checked and every scalar made a list."""
    if "family" in table:
        raise UsageError(
            f"{where}: 'family' is no axis, every implementation brings its own: choose with "
            "`contenders` in [profile]"
        )
    known_keys(table, grid.AXES, where, "axes")
    for key in NEEDED:
        if key not in table:
            raise UsageError(f"{where}: no `{key}`: give a value or a list of values")
    out = {}
    for key, given in table.items():
        values = given if isinstance(given, list) else [given]
        if not values:
            raise UsageError(f"{where}: {key} = []: give at least one value")
        try:
            out[key] = [_value(key, value) for value in values]
        except UsageError as error:
            raise UsageError(f"{where}: {error}") from None
    return out


def _value(key: str, value: Any) -> Any:
    if key in WORDS:
        return checked.one_of(key, value, WORDS[key])
    usual = getattr(ModelSpec, key, False if key == "ragged" else 1)
    if isinstance(usual, bool):
        return checked.flag(key, value)
    if isinstance(usual, float):
        return checked.fraction(key, value, zero=True)
    return checked.whole(key, value)


def memory_of(table: Mapping[str, Any]) -> tuple[dict[str, list[Any]], ...]:
    """The [[memory]] tables, forward calls on the CPU only."""
    given = table.get("memory", [])
    if not isinstance(given, list) or not all(isinstance(axes, dict) for axes in given):
        raise UsageError("[memory]: give [[memory]] (two brackets)")
    found = tuple(axes_of(axes, f"[[memory]] {n}") for n, axes in enumerate(given, 1))
    for n, axes in enumerate(found, 1):
        if axes["kind"] != ["forward"] or axes.get("device", ["cpu"]) != ["cpu"]:
            raise UsageError(f'[[memory]] {n}: give kind = "forward" and device = "cpu"')
    return found
