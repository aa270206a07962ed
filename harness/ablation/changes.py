"""What an arm of an ablation may change: fields of the network, the optimiser and the training."""

from __future__ import annotations

import math
import typing
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Literal

import impls
from harness.checked import flag, known_keys, one_of, whole
from harness.errors import UsageError
from impls.contract import ModelSpec, SpecError, spec_fields
from impls.nets import NetSpec, OptimiserSpec, net_fields

BY_TASK = ("inputs", "vocabulary", "features", "outputs", "head", "loss")
"""Fields of NetSpec that only a task decides."""
MODEL = spec_fields()
NET = tuple(name for name in net_fields() if name not in BY_TASK)
OPTIMISER = tuple(f.name for f in fields(OptimiserSpec) if f.name != "total_steps")
TRAINING = ("steps",)
FIELDS = (*MODEL, *NET, *OPTIMISER, *TRAINING)
BUDGETS = ("as_is", "params", "flops", "wall")
"""How an arm is made comparable with the baseline; see `harness.ablation.budgets`."""

Changes = dict[str, Any]
_HINTS: dict[str, Any] = {"steps": int}
DEFAULTS: dict[str, Any] = {}
"""Value of each field that neither the baseline nor a task names."""
for _holder in (ModelSpec, NetSpec, OptimiserSpec):
    _HINTS |= typing.get_type_hints(_holder)
    DEFAULTS |= {f.name: f.default for f in fields(_holder) if f.name not in BY_TASK}
for _name in ("core", "total_steps", "input_size"):
    DEFAULTS.pop(_name, None)


def same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two sets of fields are the same arm, whichever of them leaves a default out."""
    return {**DEFAULTS, **one} == {**DEFAULTS, **other}


def families() -> tuple[str, ...]:
    """Families of which some listed implementation can be trained inside a network."""
    found = set()
    for name in impls.names():
        try:
            card = impls.get(name)
        except impls.BrokenImplementation:
            continue
        if card.core is not None or card.trainer is not None:
            found.add(card.family)
    return tuple(sorted(found))


def checked(table: Mapping[str, Any], where: str) -> Changes:
    """The fields of a TOML table, each of its type; ranges are checked where a spec is made.

    Raises:
        UsageError: an unknown field or word, with the nearest one, or a value of another type.
    """
    known_keys(table, FIELDS, where, "fields")
    try:
        return {key: _value(key, value) for key, value in table.items()}
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from None


def _value(key: str, value: Any) -> Any:
    hint = _HINTS[key]
    if key == "family":
        return one_of(key, value, families())
    if typing.get_origin(hint) is Literal:
        return one_of(key, value, typing.get_args(hint))
    if hint is bool:
        return flag(key, value)
    if hint is int:
        return whole(key, value, 1 if key in (*MODEL, *TRAINING) else 0)
    parts = value if typing.get_origin(hint) is tuple and isinstance(value, list) else [value]
    for part in parts:
        number = isinstance(part, (int, float)) and not isinstance(part, bool)
        if not number or not math.isfinite(part):
            raise UsageError(f"{key} = {value!r}: give a number")
    return tuple(map(float, parts)) if parts is value else float(value)


def network(task_net: Mapping[str, Any], input_size: int, changes: Changes) -> NetSpec:
    """The network of these fields on a task.

    Args:
        task_net: what the task decides of NetSpec (`TaskData.net`).
        input_size: the task's; a change of it wins.

    Raises:
        SpecError: fields that exclude each other or are out of range.
    """
    core = {"input_size": input_size} | {k: v for k, v in changes.items() if k in MODEL}
    own = {key: value for key, value in changes.items() if key in NET}
    return NetSpec(core=ModelSpec(**core), **{**task_net, **own})


def optimiser(changes: Changes, steps: int, learning_rate: float | None = None) -> OptimiserSpec:
    """The optimiser of these fields for a training of so many steps.

    Raises:
        SpecError: a number out of range.
    """
    own = {key: value for key, value in changes.items() if key in OPTIMISER}
    if learning_rate is not None:
        own["learning_rate"] = learning_rate
    return OptimiserSpec(**own, total_steps=steps)


def check_optimiser(changes: Changes, where: str) -> None:
    """Refuse what no optimiser takes before anything else is asked.

    Raises:
        UsageError: a number out of range.
    """
    try:
        optimiser(changes, changes.get("steps", 1 << 40))
    except SpecError as error:
        raise UsageError(f"{where}: {error}") from None
