"""`quasibench list`: every implementation, what it supports, what is missing and how to get it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from rich.console import Console
from rich.table import Table

import impls
from impls.contract import DTYPES, POOLINGS, Implementation, ModelSpec, Placement

FEATURES: dict[str, dict[str, Any]] = {
    "layers": {"layers": 2},
    "dense": {"dense": True, "layers": 2},
    "bidirectional": {"bidirectional": True},
}
QRNN_ONLY: dict[str, dict[str, Any]] = {
    "K=1": {"kernel_width": 1},
    "K=6": {"kernel_width": 6},
    "zoneout": {"zoneout": 0.1},
}


@dataclass(frozen=True)
class Entry:
    """One implementation as the list shows it.

    `problem` says why it cannot run here; `compiles`, that it takes minutes to prepare.
    """

    name: str
    about: str
    family: str
    framework: str
    supports: str
    dtypes: str
    problem: str | None
    compiles: bool = False


def supported(card: Implementation) -> str:
    """Words for the spec features that the card accepts on the CPU, asked one by one."""
    base = ModelSpec(family=card.family, input_size=8, hidden_size=8)
    asked: dict[str, dict[str, Any]] = FEATURES
    if card.family == "qrnn":
        asked = {**{pooling: {"pooling": pooling} for pooling in POOLINGS}, **QRNN_ONLY, **FEATURES}
    return " ".join(
        word
        for word, change in asked.items()
        if impls.hindrance(card, replace(base, **change), Placement()) is None
    )


def dtypes(card: Implementation) -> str:
    """Number formats that the card accepts on the CPU, else on CUDA (marked so)."""
    spec = ModelSpec(family=card.family, input_size=8, hidden_size=8)
    for device in ("cpu", "cuda"):
        found = [d for d in DTYPES if impls.hindrance(card, spec, Placement(device, d)) is None]  # type: ignore[arg-type]
        if found:
            return " ".join(found) + (" (CUDA only)" if device == "cuda" else "")
    return "none"


def entries() -> Iterator[Entry]:
    """All implementations in the order of their names; a broken one says what broke it."""
    for name in impls.names():
        try:
            card = impls.get(name)
            framework = card.requires[0] if card.requires else "-"
            yield Entry(name, card.about, card.family, framework, supported(card), dtypes(card),
                        impls.missing(card), card.compiles)  # fmt: skip
        except impls.BrokenImplementation as error:
            yield Entry(name, "", "?", "?", "", "", f"broken: {error}")


def show(console: Console | None = None) -> None:
    """Print the table."""
    console = console or Console(highlight=False)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("name", "family", "framework", "supports", "dtypes", "here"):
        table.add_column(title, overflow="fold", no_wrap=title == "name")
    found = list(entries())
    for entry in found:
        here = "ready, compiles for minutes" if entry.compiles else "ready"
        if entry.problem:
            here = "[red]" + entry.problem.replace("[", r"\[") + "[/]"
        table.add_row(entry.name, entry.family, entry.framework, entry.supports, entry.dtypes, here)
    console.print(table)
    ready = sum(entry.problem is None for entry in found)
    slow = [entry.name for entry in found if entry.compiles]
    if slow:
        console.print(
            f'\n`contenders = "all"` leaves out {", ".join(slow)} unless the profile says '
            "`compile = true`.",
            markup=False,
            soft_wrap=True,
        )
    console.print(f"\n{ready} of {len(found)} ready. What they are:")
    for entry in found:
        console.print(f"  {entry.name}: {entry.about}", markup=False, soft_wrap=True)
