"""The arms and tasks of an ablation's TOML file: one factor at a time, or a named product."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from harness import checked, tasks
from harness.ablation import changes as fields
from harness.ablation.changes import BUDGETS, Changes
from harness.ablation.seeds import TUNING
from harness.ablation.spec import Arm, Asked
from harness.checked import known_keys
from harness.errors import UsageError, nearest
from harness.tasks import Task

CONTRASTS = ("primary", "secondary", "control")
METRICS = ("accuracy", "mse", "bits_per_character", "exact_match")
TASK_KEYS = ("steps", "target", "metric", "seeds", "arms", "options", "optional")
BEST = {"accuracy": 1.0, "exact_match": 1.0, "mse": 0.0, "bits_per_character": 0.0}
"""What no score can pass; a task's ceiling may be nearer, as a guess of what can be learned."""
READ_BY = {
    "readout": "sequence", "tied": "steps", "decoder": "seq2seq", "decoder_width": "seq2seq",
    "masked_encoder": "seq2seq", "reversed_source": "seq2seq",
}  # fmt: skip
"""Fields of NetSpec that one head alone reads."""
ARM_KEYS = ("name", "contrast", "budgets", "tasks", "first_seed", "product")


def changes(tables: Any, baseline: Changes, default: tuple[str, ...]) -> list[Arm]:
    """The arms of all [[changes]] tables, each name once."""
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise UsageError("[[changes]] takes two brackets: give one table per arm")
    arms: list[Arm] = []
    for number, table in enumerate(tables, 1):
        for arm in _expanded(table, f"[[changes]] {number}", default):
            merged = {**baseline, **arm.changes}
            if table.get("product") and fields.same(merged, baseline):
                continue  # the cell of the product that is the baseline itself
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
    product = table.get("product")
    known_keys(own, (*ARM_KEYS, *fields.FIELDS), where, "keys")
    if len(own) > 1 and "name" not in table:
        raise UsageError(f"{where}: changes {', '.join(own)} at once: give it a name")
    if product is not None and (not isinstance(product, dict) or not product):
        raise UsageError(f"{where}: product = {product!r}: give a table of lists")
    if product and "name" not in table:
        raise UsageError(f"{where}: a product takes a name")
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
        usual = "-".join(f"{key}={_word(value)}" for key, value in own.items())
        name = named(table.get("name", usual))
        for axis, values in (product or {}).items():
            if not isinstance(values, list) or not values:
                raise UsageError(f"product: {axis} = {values!r}: give a list of values")
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from None
    arms = []
    for chosen in itertools.product(*(product or {}).values()):
        cell = dict(zip(product or {}, chosen, strict=True))
        words = "+".join(f"{key}={_word(value)}" for key, value in cell.items())
        made = fields.checked({**own, **cell}, where)
        arms.append(Arm(f"{name}[{words}]" if words else name, made, **rest))
    return arms


def named(value: Any) -> str:
    """The name of an arm: --only parts names at commas, so it holds none."""
    name = checked.line("name", value)
    if "," in name or not name.strip():
        raise UsageError(f"name = {name!r}: give some words without a comma")
    return name


def _word(value: Any) -> str:
    return "/".join(map(str, value)) if isinstance(value, list) else str(value)


def asked(
    names: Sequence[str], tables: Mapping[str, Any], changed: Changes, seeds: int, arms: list[str]
) -> tuple[Asked, ...]:
    """The tasks in the order of [ablation] tasks, each with what its [task.<name>] table says."""
    if not isinstance(tables, dict):
        raise UsageError(f"task = {tables!r}: give a table per task, as [task.{names[0]}]")
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
    if not isinstance(table, dict):
        raise UsageError(f"is {table!r}: give a table of {', '.join(TASK_KEYS)}")
    known_keys(table, TASK_KEYS, "table", "keys")
    if "metric" in table and checked.one_of("metric", table["metric"], METRICS) != task.metric:
        raise UsageError(f"metric = {table['metric']!r}: this task is scored by {task.metric!r}")
    target = table.get("target", task.target)
    _check_target(task, target)
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


def _check_target(task: Task, target: Any) -> None:
    number = isinstance(target, (int, float)) and not isinstance(target, bool)
    if not number or not math.isfinite(target):
        raise UsageError(f"target = {target!r}: give a number")
    best, sign = BEST[task.metric], 1 if task.higher_is_better else -1
    if sign * target > sign * best:
        raise UsageError(
            f"target = {target:g} cannot be reached: the best {task.metric} there is is {best:g}"
        )
    if sign * target <= sign * task.chance:
        raise UsageError(
            f"target = {target:g} is no better than a guess, whose {task.metric} is "
            f"{task.chance:.3g}; give one between that and {best:g}"
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


def fitting(
    head: Mapping[str, Any], baseline: Changes, arms: Sequence[Arm], wanted: Sequence[Asked]
) -> None:
    """What one table must know of another.

    Raises:
        UsageError: budget mode "wall" without its seconds, two arms of one name, seeds of an
            A/A control that the plan uses already, an arm on a task that the plan lacks, or a
            field that a task's network never reads.
    """
    _read(baseline, arms, wanted)
    names = [arm.name for arm in arms]
    for arm in arms:
        if names.count(arm.name) > 1:
            raise UsageError(f"two arms are named {arm.name!r}: rename one")
        if "wall" in arm.budgets and head.get("seconds") is None:
            raise UsageError(
                f'arm {arm.name!r}: budget mode "wall" needs `seconds` in [ablation], the training '
                'time of every run, e.g. "10s"'
            )
    tuned = head.get("tuning_seeds", 0) + head.get("runoff_seeds", 0)
    disjoint(arms, max(tuned, *(one.seeds for one in wanted)))


def disjoint(arms: Sequence[Arm], count: int) -> None:
    """A/A controls share no seed with the reference, nor with each other.

    Args:
        count: how many seeds an arm has, final or to choose its learning rate, whichever is more.

    Raises:
        UsageError: they do share one, or a final seed is one of those that tune.
    """
    firsts = sorted({arm.first_seed: arm.name for arm in arms}.items())
    for (before, _), (first, name) in itertools.pairwise(firsts):
        if first < before + count:
            raise UsageError(
                f"arm {name!r}: first_seed = {first}: give at least {before + count}, {count} "
                "seeds are used before it"
            )
        if first + count > TUNING:
            raise UsageError(
                f"arm {name!r}: first_seed = {first}: give at most {TUNING - count}, the seeds "
                f"from {TUNING} on choose learning rates"
            )


def _read(baseline: Changes, arms: Sequence[Arm], wanted: Sequence[Asked]) -> None:
    """Refuse what would be recorded as a difference and is none."""
    names = [one.task.name for one in wanted]
    heads = {one.task.net["head"] for one in wanted}
    for key in baseline:
        if key in READ_BY and READ_BY[key] not in heads:
            raise UsageError(
                f"[baseline] {key}: only head {READ_BY[key]!r} reads it, and no task here has one"
            )
    for arm in arms:
        if absent := sorted({*(arm.tasks or ())} - {*names}):
            raise UsageError(
                f"arm {arm.name!r}: tasks: {absent[0]!r} is none of the ablation's"
                f"{nearest(absent[0], names)} (tasks: {', '.join(names)})"
            )
        for one in (one for one in wanted if trained(one, arm)):
            for key in arm.changes:
                if READ_BY.get(key, one.task.net["head"]) != one.task.net["head"]:
                    raise UsageError(
                        f"arm {arm.name!r}: task {one.task.name!r} has head "
                        f"{one.task.net['head']!r}, only {READ_BY[key]!r} reads {key}; leave it "
                        "out, or give the arm `tasks`"
                    )
