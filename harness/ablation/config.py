"""Ablations as TOML files: found by name or path, read, and validated as a whole."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from harness import checked, tasks
from harness.ablation import arms as ablation_arms
from harness.ablation import changes as fields
from harness.ablation.changes import BUDGETS
from harness.ablation.spec import Ablation, Arm
from harness.checked import known_keys, parse_duration
from harness.errors import UsageError, nearest
from impls.contract import DTYPES


def ablation_names() -> list[str]:
    """Names of the ablations that come with the package, sorted."""
    folder = files("harness").joinpath("configs", "ablation")
    return sorted(item.name[:-5] for item in folder.iterdir() if item.name.endswith(".toml"))


def load_ablation(name_or_path: str) -> Ablation:
    """A validated ablation, by the name of a packaged one or by the path of a .toml file.

    Raises:
        UsageError: no such ablation, or anything in it that is not understood.
    """
    text, name, where = source(name_or_path)
    try:
        return parse(text, name)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from None


def source(name_or_path: str) -> tuple[str, str, str]:
    """Text of an ablation's file, its name, and where it is.

    Raises:
        UsageError: no such ablation, or a file that cannot be read.
    """
    given = str(name_or_path)
    if given.endswith(".toml"):
        path = Path(given)
        try:
            text, name = path.read_text(encoding="utf-8"), path.stem
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not UTF-8 text"
            raise UsageError(f"{given}: cannot be read: {reason}") from None
        if name in ablation_names():
            raise UsageError(
                f"{given}: {name!r} is a packaged ablation, whose rows yours would join: give "
                "your file another name"
            )
    elif given in ablation_names():
        text = files("harness").joinpath("configs", "ablation", f"{given}.toml").read_text("utf-8")
        name, given = given, f"ablation/{given}.toml"
    else:
        known = ablation_names()
        raise UsageError(
            f"unknown ablation {given!r}{nearest(given, known)} (known: {', '.join(known)}; or "
            "the path of a .toml file)"
        )
    return text, name, given


def parse(text: str, name: str) -> Ablation:
    """The ablation of a TOML text.

    Raises:
        UsageError: a syntax error (with its line), an unknown key or value, no seeds, a target
            that cannot be reached, an arm that changes nothing.
    """
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"not valid TOML: {error}") from None
    known_keys(table, ("ablation", "baseline", "changes", "task"), "file", "tables")
    for key in ("ablation", "baseline"):
        if not isinstance(table.get(key), dict):
            raise UsageError(f"no [{key}] table: give one")
    head = _head(table["ablation"])
    own = dict(table["baseline"])
    reference = Arm(ablation_arms.named(own.pop("name", "baseline")), {}, "reference")
    baseline = fields.checked(own, "[baseline]")
    fields.check_optimiser(baseline, "[baseline]")
    default = head.pop("budgets")
    arms = [reference, *ablation_arms.changes(table.get("changes", []), baseline, default)]
    controls, names = head.pop("controls"), head.pop("tasks")
    wanted = ablation_arms.asked(
        names, table.get("task", {}), baseline, head["seeds"], [a.name for a in arms]
    )
    if controls:
        arms += ablation_arms.controls(wanted, baseline, arms)
    ablation_arms.fitting(head, baseline, arms, wanted)
    return Ablation(name=name, tasks=wanted, baseline=baseline, arms=tuple(arms), **head)


def _head(table: Mapping[str, Any]) -> dict[str, Any]:
    known_keys(table, tuple(_HEAD), "[ablation]", "keys")
    for key in ("tasks", "seeds"):
        if key not in table:
            raise UsageError(f"[ablation]: no `{key}`: give it")
    try:
        head = _DEFAULTS | {key: _HEAD[key](key, value) for key, value in table.items()}
    except UsageError as error:
        raise UsageError(f"[ablation] {error}") from None
    for key in ("timeout", "limit", "seconds", "checkpoint"):
        if key in head:
            head["seconds" if key == "seconds" else f"{key}_s"] = head.pop(key)
    if bool(head["learning_rates"]) != bool(head["tuning_seeds"]):
        raise UsageError(
            f"[ablation] learning_rates = {list(head['learning_rates'])} with tuning_seeds = "
            f"{head['tuning_seeds']}: a grid needs both, or leave both out"
        )
    if head["runoff_seeds"] and not head["learning_rates"]:
        raise UsageError(
            f"[ablation] runoff_seeds = {head['runoff_seeds']} without learning_rates: the best "
            "two of a grid meet in it; give a grid, or leave it out"
        )
    return head


def _rates(key: str, value: Any) -> tuple[float, ...]:
    numbers = isinstance(value, list) and all(
        isinstance(rate, (int, float)) and not isinstance(rate, bool) and 0 < rate < math.inf
        for rate in value
    )
    if not numbers or len(value) < 3 or sorted(set(value)) != value:
        raise UsageError(f"{key} = {value!r}: give at least 3 ascending numbers above 0")
    return tuple(map(float, value))


_HEAD: dict[str, Callable[[str, Any], Any]] = {
    "about": checked.line,
    "impl": checked.implementation,
    "tasks": lambda key, value: checked.words(key, value, tasks.names()),
    "seeds": checked.whole,
    "tuning_seeds": lambda key, value: checked.whole(key, value, 0),
    "runoff_seeds": lambda key, value: checked.whole(key, value, 0),
    "learning_rates": _rates,
    "budgets": lambda key, value: tuple(checked.words(key, value, BUDGETS)),
    "controls": checked.flag,
    "root": lambda key, value: checked.whole(key, value, 0),
    "evaluations": lambda key, value: checked.whole(key, value, 3),
    "workers": checked.whole,
    "timeout": lambda key, value: parse_duration(value, key),
    "limit": lambda key, value: parse_duration(value, key),
    "seconds": lambda key, value: parse_duration(value, key),
    "checkpoint": lambda key, value: parse_duration(value, key),
    "dtype": lambda key, value: checked.one_of(key, value, DTYPES),
}
_DEFAULTS: dict[str, Any] = {
    "about": "",
    "impl": "torch_native",
    "budgets": ("as_is",),
    "controls": True,
    "tuning_seeds": 0,
    "runoff_seeds": 0,
    "learning_rates": (),
}
