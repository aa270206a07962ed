"""The plan of an ablation: its cells, the hash of what was registered, and today's deviations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from types import ModuleType
from typing import Any

import impls
from harness.ablation import budgets, course, rates, seeds
from harness.ablation import changes as fields
from harness.ablation.arms import disjoint, known_as, trained
from harness.ablation.cells import PROTOCOL_VERSION, Cell, digest, probe
from harness.ablation.changes import Changes
from harness.ablation.companions import companion
from harness.ablation.spec import Ablation, Arm, Asked
from harness.analysis import contrasts, effects
from harness.errors import UsageError
from impls.batches import carry_hindrance
from impls.contract import Placement, SpecError
from impls.nets import NetSpec

UNREGISTERED = ("name", "about", "impl", "workers", "limit_s", "checkpoint_s")
"""What does not decide a result: not part of the plan's hash."""
OF_TASK = (
    "name version metric higher_is_better chance ceiling good bad net batch_size input_size "
    "evaluated"
).split()
"""Fields of a task that decide its scores, or how they are read."""
RULES: tuple[tuple[ModuleType, str], ...] = (
    (course, "FIRST SOLVED SOLVED_AT DIVERGED LAST"),
    (contrasts, "ALPHA MARGIN ENOUGH MOST RESAMPLES TRIMMED LEVEL"),
    (effects, "CEILING FLOOR"),
    (budgets, "TOLERANCE"),
    (seeds, "TUNING"),
)
"""Constants by which trainings end, are scored and compared."""


@dataclass(frozen=True)
class Plan:
    """The cells of an ablation.

    Attributes:
        plan_hash: of the ablation as it was registered, whatever is left out of it today.
        deviations: where today's plan is not the registered one, in words.
        left_out: optional tasks that wait for a local file.
    """

    ablation: Ablation
    cells: tuple[Cell, ...]
    plan_hash: str
    deviations: tuple[str, ...]
    left_out: tuple[str, ...] = ()

    @property
    def most_runs(self) -> tuple[int, int]:
        """Runs without and with every extension of a grid."""
        least = sum(c.tunings + len(c.final_seeds) for c in self.cells)
        return least, least + sum(len(c.tuning_seeds) for c in self.cells if c.grid)


def registered(ablation: Ablation) -> dict[str, Any]:
    """What decides the results of an ablation, as JSON knows it."""
    own = {f: getattr(ablation, f) for f in ablation.__dataclass_fields__ if f not in UNREGISTERED}
    own["tasks"] = [
        {
            **{name: getattr(one.task, name) for name in OF_TASK},
            "steps": one.steps,
            "target": one.target,
            "seeds": one.seeds,
            "arms": one.arms,
            "optional": one.optional,
            "options": {k: v for k, v in one.options.items() if k != "file"},
        }
        for one in ablation.tasks
    ]
    own["arms"] = [asdict(arm) for arm in ablation.arms]
    rules = {
        f"{module.__name__.rpartition('.')[2]}.{name}": getattr(module, name)
        for module, names in RULES
        for name in names.split()
    }
    fixed = {"rule": rates.RULE, "rules": rules, "defaults": fields.DEFAULTS}
    return {"protocol_version": PROTOCOL_VERSION, **fixed, **own}


def plan_hash(ablation: Ablation) -> str:
    """64 hexadecimal digits that change when a result could."""
    return digest(registered(ablation), 64)


def separation(ablation: Ablation) -> dict[str, dict[str, str | None]]:
    """By task: the names of its known-good and known-bad arms, None where none is trained."""
    out: dict[str, dict[str, str | None]] = {}
    for one in ablation.tasks:
        found = {}
        for word in ("good", "bad"):
            changed = fields.checked(getattr(one.task, word), one.task.name)
            merged = {**ablation.baseline, **changed}
            found[word] = known_as(one, merged, ablation.baseline, ablation.arms)
        out[one.task.name] = found
    return out


def build(
    ablation: Ablation,
    impl: str | None = None,
    only: Mapping[str, set[str]] | None = None,
    wanted_seeds: int | None = None,
) -> Plan:
    """The cells to train, those of the baseline first within each task.

    Args:
        impl: instead of the ablation's own; only: values of "task" and "arm" to keep;
        wanted_seeds: final seeds instead of the registered number.

    Raises:
        UsageError: an arm that no available implementation supports, or that is none.
    """
    chosen = impl or ablation.impl
    deviations: list[str] = []
    left_out: list[str] = []
    if chosen != ablation.impl:
        deviations.append(f"implementation {chosen} instead of {ablation.impl}")
    if wanted_seeds is not None:
        if wanted_seeds < 1:
            raise UsageError(f"--seeds {wanted_seeds}: give at least 1")
        if any(one.seeds != wanted_seeds for one in ablation.tasks):
            deviations.append(f"{wanted_seeds} seeds instead of {ablation.seeds}")
        disjoint(ablation.arms, wanted_seeds)
    cells = []
    for one in ablation.tasks:
        if (only or {}).get("task") and one.task.name not in (only or {})["task"]:
            continue
        if one.optional and not one.options:
            left_out.append(one.task.name)
            continue
        one = one if wanted_seeds is None else replace(one, seeds=wanted_seeds)
        builder = _Builder(ablation, one, chosen, deviations)
        for arm in ablation.arms:
            kept = not (only or {}).get("arm") or arm.name in (only or {})["arm"]
            if kept and trained(one, arm):
                cells += builder.cells(arm)
    for key, values in (only or {}).items():
        deviations.append(f"only {key} {', '.join(sorted(values))}")
    if not cells:
        raise UsageError("nothing is left to train: --only keeps no arm of these tasks")
    today = tuple(dict.fromkeys(deviations))
    return Plan(ablation, tuple(cells), plan_hash(ablation), today, tuple(left_out))


class _Builder:
    """Makes the cells of one task."""

    def __init__(
        self,
        ablation: Ablation,
        asked: Asked,
        impl: str,
        deviations: list[str],
    ) -> None:
        self.ablation, self.asked, self.impl = ablation, asked, impl
        self.deviations = deviations
        self.probe = probe(asked, ablation.root)
        self.baseline = self._net(ablation.baseline)

    def cells(self, arm: Arm) -> list[Cell]:
        """One cell per budget mode; a mode that leaves the width alone is not trained again.

        Raises:
            UsageError: no available implementation supports the arm.
        """
        changes = self.ablation.fields_of(arm)
        where = f"arm {arm.name!r} on task {self.asked.task.name!r}"
        try:
            as_is = self._net(changes)
        except SpecError as error:
            raise UsageError(f"{where}: {error}") from None
        reason = carry_hindrance(as_is) if self.probe.carries else None
        if reason is not None:
            raise UsageError(
                f"{where}: {reason}, and this task's batches continue each other: leave it out "
                "of the arm's `tasks`"
            )
        out: list[Cell] = []
        for mode in arm.budgets if arm.contrast != "reference" else self._baseline_modes():
            try:
                width = budgets.fitted(
                    as_is, self.baseline, mode, self.probe.batch, self.probe.steps
                )
            except UsageError as error:
                raise UsageError(f"{where}: {error}") from None
            if mode in ("params", "flops") and width.hidden_size == as_is.core.hidden_size:
                continue
            net = replace(as_is, core=replace(as_is.core, hidden_size=width.hidden_size))
            card, note = companion(net, self.impl, Placement("cpu", self._dtype()))
            if card is None:
                if arm.contrast != "control":
                    raise UsageError(f"{where}: {note}")
                self.deviations.append(f"{where}: not trained, {note}")
                continue
            if note:
                self.deviations.append(f"{where}: {note}")
            if not width.near:
                self.deviations.append(
                    f"{where}: {mode} differ by {width.difference:+.1%}, no width is nearer"
                )
            out.append(self._cell(arm, mode, card, net, changes))
        return out

    def _baseline_modes(self) -> tuple[str, ...]:
        """The baseline is its own yardstick, but for equal seconds, where steps are counted."""
        wall = any("wall" in arm.budgets for arm in self.ablation.arms)
        return ("as_is", "wall") if wall else ("as_is",)

    def _dtype(self) -> Any:
        return self.ablation.dtype

    def _net(self, changes: Changes) -> NetSpec:
        return fields.network(self.probe.net, self.asked.task.input_size, changes)

    def _cell(self, arm: Arm, mode: str, impl: str, net: NetSpec, changes: Changes) -> Cell:
        ablation, asked = self.ablation, self.asked
        first = arm.first_seed
        tuning = range(ablation.tuning_seeds + ablation.runoff_seeds)
        tuned_on = tuple(seeds.TUNING + first + n for n in tuning)
        return Cell(
            asked=asked,
            arm=arm,
            mode=mode,
            impl=impl,
            net=net,
            changes={**changes, "hidden_size": net.core.hidden_size},
            probe=self.probe,
            steps=arm.changes.get("steps", asked.steps),
            root=ablation.root,
            evaluations=ablation.evaluations,
            dtype=ablation.dtype,
            grid=ablation.learning_rates,
            tuning_seeds=tuned_on[: ablation.tuning_seeds],
            runoff_seeds=tuned_on[ablation.tuning_seeds :],
            final_seeds=tuple(range(first, first + asked.seeds)),
        )


def known_implementation(name: str) -> str:
    """The name, once it is known that its networks can be trained.

    Raises:
        UsageError: its card offers no core; `impls.UnknownImplementation` where there is none.
    """
    card = impls.get(name)
    if card.core is None and card.trainer is None:
        raise UsageError(
            f"--impl {name}: cannot be trained inside a network, its card offers no core; speed "
            "and equivalence only"
        )
    return name
