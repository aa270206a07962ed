"""Parameters and FLOPs of the reference by depth, plain and dense, counted without training."""

from __future__ import annotations

from dataclasses import dataclass

from harness import tasks
from harness.ablation import budgets, changes, seeds
from harness.ablation.accuracy import Ablation
from harness.errors import UsageError
from impls.contract import SpecError

DEPTHS = range(1, 9)


@dataclass(frozen=True)
class Depth:
    """One depth: parameters of the network and FLOP of a training step, None without a formula."""

    layers: int
    plain_params: int
    dense_params: int
    plain_flops: int | None
    dense_flops: int | None


def counted(study: Ablation) -> tuple[str, list[Depth]] | None:
    """(task, one row per depth) of the baseline's network on the first task that was trained.

    None where the plan does not say the network, no such task is known here, or its data are not.
    """
    asked = {str(one["name"]): one for one in study.plan.get("tasks") or ()}
    for name in dict.fromkeys(str(row["task"]) for row in study.rows):
        try:
            return name, _rows(study, name, dict(asked.get(name) or {}))
        except (UsageError, SpecError, OSError, TypeError):
            continue
    return None


def _rows(study: Ablation, name: str, asked: dict[str, object]) -> list[Depth]:
    task = tasks.get(name)
    root = seeds.run_root(study.plan.get("root") or 0, 0)
    data = task.data(root, dict(asked.get("options") or {}))  # type: ignore[call-overload]
    steps, batch = data.train(0).inputs.shape[:2]
    out = []
    for layers in DEPTHS:
        nets = [
            changes.network(data.net, int(asked.get("input_size") or task.input_size),  # type: ignore[call-overload]
                            {**study.baseline, "layers": layers, "dense": dense})
            for dense in (False, True)
        ]  # fmt: skip
        sizes = [budgets.params(net) for net in nets]
        work = [budgets.flops(net, batch, steps) for net in nets]
        out.append(Depth(layers, *sizes, *work))
    return out
