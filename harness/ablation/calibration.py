"""Budget mode "wall": how many steps of an arm fit into the registered seconds on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from harness.ablation.cells import Cell, Run, digest
from harness.ablation.coordinator import workers
from harness.ablation.plan import Plan
from harness.ablation.rows import stale_key
from harness.ablation.slots import Asked, Slots
from harness.process import WorkerFailure
from harness.stop import InterruptError, Stop
from harness.store import RunFolder

LIMIT_S = 120.0
KEY = "calibration"
"""Of the manifest: by implementation and cell, seconds of a step and of what they hold."""


def applied(plan: Plan, manifest: Mapping[str, Any], tried: bool = False) -> Plan:
    """The plan with the steps that fit into today's seconds, where a step's time is known.

    Args:
        tried: whether cells were just measured: one without a time is a deviation then.
    """
    cells, deviations = [], list(plan.deviations)
    for cell in plan.cells:
        step_s = _known(cell, manifest) if cell.mode == "wall" else None
        if step_s is not None:
            steps = max(plan.ablation.evaluations, round(_seconds(plan) / step_s))
            cell = replace(cell, steps=steps)
        elif cell.mode == "wall" and tried:
            deviations.append(
                f"{cell.label}: its steps could not be timed, it keeps {cell.steps} steps instead "
                f"of {_seconds(plan):g} s"
            )
        cells.append(cell)
    return replace(plan, cells=tuple(cells), deviations=tuple(deviations))


def calibrate(plan: Plan, folder: RunFolder) -> None:
    """Measure a step of every cell in mode "wall" that has no valid time in the folder.

    As many are measured at a time as will be trained.

    Raises:
        InterruptError: the user asked to stop.
    """
    open_cells = [
        cell for cell in plan.cells if cell.mode == "wall" and _known(cell, folder.manifest) is None
    ]
    found: dict[str, dict[str, Any]] = {}
    with Stop() as stop, Slots(workers(plan), folder.logs, stop) as slots:
        while open_cells or slots.busy:
            while open_cells and slots.idle and not stop.requested:
                cell = open_cells.pop(0)
                slots.ask(slots.idle[0], _question(cell))
            if not slots.busy:
                break
            answer = slots.wait()
            if answer.found is not None:
                cell = answer.asked.about
                one = {"step_s": answer.found["step_s"], "stale_key": _key(cell)}
                found.setdefault(cell.impl, {})[cell.label] = one
        if stop.requested:
            raise InterruptError
    if found:
        before = folder.manifest.get(KEY, {})
        own = {impl: {**before.get(impl, {}), **cells} for impl, cells in found.items()}
        folder.update_manifest(**{KEY: {**before, **own}})


def _known(cell: Cell, manifest: Mapping[str, Any]) -> float | None:
    """Seconds of a step of this cell on this machine by this code; None = not measured."""
    found = manifest.get(KEY, {}).get(cell.impl, {}).get(cell.label, {})
    return float(found["step_s"]) if found.get("stale_key") == _key(cell) else None


def _key(cell: Cell) -> str:
    """Changes with machine, code, frameworks, and with the network of the cell."""
    run = Run(cell, "tune", 0, cell.optimiser().learning_rate).identity()
    return digest([stale_key(cell.impl, cell.asked.task.name), run["net"], cell.dtype], 16)


def _seconds(plan: Plan) -> float:
    seconds = plan.ablation.seconds
    if seconds is None:  # the file was refused without them
        raise WorkerFailure("crash", "Plan", "mode wall without seconds")
    return seconds


def _question(cell: Cell) -> Asked:
    rate = cell.optimiser().learning_rate
    run = Run(cell, "tune", cell.final_seeds[0], rate)
    arguments = {"identity": run.identity(), "options": cell.asked.options}
    return Asked(cell, cell.impl, "calibrate", arguments, LIMIT_S)
