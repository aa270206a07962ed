"""The registry: implementations found as folders here and through entry points, none imported.

A folder `impls/<name>/` whose `__init__.py` defines `card` is an implementation; so is an entry
point of the group `quasibench.impls` that names an `Implementation`. Nothing here imports a
framework: a card is loaded on `get`, a framework only by `card.load`.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from impls.contract import Implementation, ModelSpec, Placement

GROUP = "quasibench.impls"
NOT_IMPLEMENTATIONS = ("reference", "kernels")
INSTALL = {
    "torch": "pip install 'quasibench[torch]'",
    "jax": "pip install 'quasibench[jax]'",
    "cupy": "pip install 'quasibench[cuda13]'",
}


class UnknownImplementation(KeyError):
    """No implementation has this name; the message offers the nearest ones."""

    def __str__(self) -> str:
        return str(self.args[0])


class BrokenImplementation(RuntimeError):
    """A card or an entry point that cannot be imported or is not an `Implementation`."""


@cache
def _foreign() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}


def _own() -> list[str]:
    here = Path(__file__).parent
    return [
        path.parent.name
        for path in here.glob("*/__init__.py")
        if not path.parent.name.startswith("_") and path.parent.name not in NOT_IMPLEMENTATIONS
    ]


def names() -> list[str]:
    """Names of all implementations, own and foreign, sorted."""
    return sorted({*_own(), *_foreign()})


def origin(name: str) -> str:
    """Name of the module that holds the card of `name`."""
    if name in _own():
        return f"impls.{name}"
    return _foreign()[name].module


def get(name: str) -> Implementation:
    """The card of one implementation.

    Raises:
        UnknownImplementation: no such name.
        BrokenImplementation: the card cannot be imported or is none.
    """
    if name not in names():
        near = difflib.get_close_matches(name, names(), n=3, cutoff=0.4)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise UnknownImplementation(
            f"unknown implementation {name!r}{hint} (known: {', '.join(names())})"
        )
    try:
        if name in _own():
            card = importlib.import_module(f"impls.{name}").card
        else:
            card = _foreign()[name].load()
    except Exception as error:  # a foreign package may fail in any way; say which one did
        raise BrokenImplementation(
            f"implementation {name!r} cannot be loaded from {origin(name)}: "
            f"{type(error).__name__}: {error}"
        ) from error
    if not isinstance(card, Implementation) or card.name != name:
        raise BrokenImplementation(
            f"{origin(name)} must offer an impls.contract.Implementation named {name!r}, "
            f"it offers {card!r:.120}"
        )
    return card


def hindrance(card: Implementation, spec: ModelSpec, placement: Placement) -> str | None:
    """`card.unsupported`, where an exception of a foreign card counts as its reason."""
    try:
        return card.unsupported(spec, placement)
    except Exception as error:
        return f"its card's unsupported() raised {type(error).__name__}: {error}"


def compiles(name: str) -> bool:
    """Whether the implementation takes minutes to prepare; no for a card that is broken."""
    try:
        return get(name).compiles
    except BrokenImplementation:
        return False


def absent(module: str) -> bool:
    """True where `module` cannot be imported; it is looked up, not imported."""
    try:
        return importlib.util.find_spec(module) is None
    except (ImportError, ValueError):
        return True


def missing(card: Implementation) -> str | None:
    """Why this implementation cannot run here and how to get it, or None where it can."""
    lacking = [module for module in card.requires if absent(module)]
    if not lacking:
        return card.lacking() if card.lacking else None
    hints = [INSTALL.get(module, f"pip install {module}") for module in lacking]
    return f"{', '.join(lacking)} not installed: {'; '.join(dict.fromkeys(hints))}"
