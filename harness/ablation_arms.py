"""The arms and tasks of an ablation's TOML file: one factor at a time, or a named product."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from harness import changes as fields
from harness import checked, tasks
from harness.ablation_spec import Arm, Asked
from harness.changes import BUDGETS, Changes
from harness.checked import known_keys
from harness.errors import UsageError
from harness.tasks import Task

CONTRASTS = ("primary", "secondary", "control")
METRICS = ("accuracy", "mse", "bits_per_character", "exact_match")
TASK_KEYS = ("steps", "target", "metric", "seeds", "arms", "options", "optional")
ARM_KEYS = ("name", "contrast", "budgets", "tasks", "first_seed", "product")


def changes(tables: Any, baseline: Changes, default: tuple[str, ...]) -> list[Arm]:
    """The arms of all [[changes]] tables, each name once."""
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise UsageError("[[changes]] takes two brackets: give one table per arm")
    arms: list[Arm] = []
    for number, table in enumerate(tables, 1):
        for arm in _expanded(table, f"[[changes]] {number}", default):
            merged = {**baseline, **arm.changes}
            if arm.contrast != "control" and fields.same(merged, baseline):
                raise UsageError(
                    f"[[changes]] {number}: arm {arm.name!r} changes nothing of the baseline; give "
                    'another value, or contrast = "control"'
                )
            if arm.name in [other.name for other in arms]:
                raise UsageError(f"[[changes]] {number}: a second arm named {arm.name!r}")
            fields.check_optimiser(merged, f"[[changes]] {number}")
            arms.append(arm)
    return arms


def _expanded(table: Mapping[str, Any], where: str, default: tuple[str, ...]) -> list[Arm]:
    """One arm, or the arms of a named product."""
    own = {key: value for key, value in table.items() if key not in ARM_KEYS}
    product = table.get("product", {})
    known_keys(own, (*ARM_KEYS, *fields.FIELDS), where, "keys")
    if len(own) > 1 and "name" not in table:
        raise UsageError(f"{where}: changes {', '.join(own)} at once: give it a name")
    if product and ("name" not in table or not isinstance(product, dict)):
        raise UsageError(f"{where}: a product takes a name and a table of lists")
    try:
        rest: dict[str, Any] = {
            "contrast": checked.one_of("contrast", table.get("contrast", "primary"), CONTRASTS),
            "budgets": tuple(checked.words("budgets", table.get("budgets", [*default]), BUDGETS)),
            "first_seed": checked.whole("first_seed", table.get("first_seed", 0), 0),
        }
        if "tasks" in table:
            rest["tasks"] = tuple(checked.words("tasks", table["tasks"], tasks.names()))
        if rest["first_seed"] and rest["contrast"] != "control":
            raise UsageError('first_seed: seeds are paired, give contrast = "control" with it')
        name = checked.line("name", table.get("name", "-".join(f"{k}={v}" for k, v in own.items())))
        for axis, values in product.items():
            if not isinstance(values, list) or not values:
                raise UsageError(f"product: {axis} = {values!r}: give a list of values")
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from None
    arms = []
    for chosen in itertools.product(*product.values()):
        cell = dict(zip(product, chosen, strict=True))
        words = ",".join(f"{key}={value}" for key, value in cell.items())
        made = fields.checked({**own, **cell}, where)
        arms.append(Arm(f"{name}[{words}]" if words else name, made, **rest))
    return arms


def asked(
    names: Sequence[str], tables: Mapping[str, Any], changed: Changes, seeds: int, arms: list[str]
) -> tuple[Asked, ...]:
    """The tasks in the order of [ablation] tasks, each with what its [task.<name>] table says."""
    known_keys(tables, tuple(names), "[task]", "tasks, those of [ablation] tasks")
    out = []
    for name in names:
        try:
            out.append(_asked(tasks.get(name), tables.get(name, {}), changed, seeds, arms))
        except UsageError as error:
            raise UsageError(f"[task.{name}] {error}") from None
    return tuple(out)


def _asked(
    task: Task, table: Mapping[str, Any], changed: Changes, seeds: int, arms: list[str]
) -> Asked:
    known_keys(table, TASK_KEYS, "table", "keys")
    if "metric" in table and checked.one_of("metric", table["metric"], METRICS) != task.metric:
        raise UsageError(f"metric = {table['metric']!r}: this task is scored by {task.metric!r}")
    target = table.get("target", task.target)
    if isinstance(target, bool) or not isinstance(target, (int, float)):
        raise UsageError(f"target = {target!r}: give a number")
    beyond = target > task.ceiling if task.higher_is_better else target < task.ceiling
    if beyond:
        raise UsageError(
            f"target = {target:g} cannot be reached: the best {task.metric} there is is "
            f"{task.ceiling:g}"
        )
    options = table.get("options", {})
    if not isinstance(options, dict):
        raise UsageError(f'options = {options!r}: give a table such as {{file = "text.txt"}}')
    known_keys(options, tuple(task.options), "options", "options")
    chosen = table.get("arms")
    return Asked(
        task=task,
        steps=checked.whole("steps", table.get("steps", changed.get("steps", task.steps))),
        target=float(target),
        seeds=checked.whole("seeds", table.get("seeds", seeds)),
        arms=None if chosen is None else tuple(checked.words("arms", chosen, tuple(arms))),
        options=options,
        optional=checked.flag("optional", table.get("optional", False)),
    )


def controls(wanted: Sequence[Asked], baseline: Changes, arms: Sequence[Arm]) -> list[Arm]:
    """Arms for each task's known-good and known-bad changes that no arm on it makes already."""
    out: list[Arm] = []
    for one in wanted:
        for word in ("good", "bad"):
            changed = fields.checked(getattr(one.task, word), f"task {one.task.name}: {word}")
            if known_as(one, {**baseline, **changed}, baseline, [*arms, *out]) is None:
                name = f"{word}-{one.task.name}"
                out.append(Arm(name, changed, "control", tasks=(one.task.name,)))
    return out


def known_as(one: Asked, merged: Changes, baseline: Changes, arms: Sequence[Arm]) -> str | None:
    """Name of the arm that is trained on the task with exactly these fields, or None."""
    for arm in arms:
        same = fields.same({**baseline, **arm.changes}, merged) and not arm.first_seed
        if same and "as_is" in arm.budgets and trained(one, arm):
            return arm.name
    return None


def trained(one: Asked, arm: Arm) -> bool:
    """Whether the arm is trained on the task."""
    if arm.contrast == "reference":
        return True
    if arm.tasks is not None:
        return one.task.name in arm.tasks
    return one.arms is None or arm.name in one.arms


def fitting(head: Mapping[str, Any], arms: Sequence[Arm], wanted: Sequence[Asked]) -> None:
    """What one table must know of another.

    Raises:
        UsageError: budget mode "wall" without its seconds, two arms of one name, or seeds of an
            A/A control that the plan uses already.
    """
    names = [arm.name for arm in arms]
    for arm in arms:
        if names.count(arm.name) > 1:
            raise UsageError(f"two arms are named {arm.name!r}: rename one")
        if "wall" in arm.budgets and head.get("seconds") is None:
            raise UsageError(
                f'arm {arm.name!r}: budget mode "wall" needs `seconds` in [ablation], the training '
                'time of every run, e.g. "10s"'
            )
        most = max(one.seeds for one in wanted)
        if 0 < arm.first_seed < most:
            raise UsageError(
                f"arm {arm.name!r}: first_seed = {arm.first_seed}: give at least {most}"
            )
