"""Budget mode "wall": how many steps of an arm fit into the registered seconds on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.ablate import workers
from harness.ablation_cells import Cell, Run
from harness.ablation_plan import Plan
from harness.process import WorkerFailure
from harness.slots import Asked, Slots
from harness.stop import InterruptError, Stop
from harness.store import RunFolder

LIMIT_S = 120.0
KEY = "calibration"
"""Of the manifest: by implementation and cell, seconds of a step and steps."""


def known(manifest: Mapping[str, Any], impl: str) -> dict[str, int]:
    """Steps by cell that were calibrated in this folder before."""
    found = manifest.get(KEY, {}).get(impl, {})
    return {label: values["steps"] for label, values in found.items()}


def calibrate(plan: Plan, folder: RunFolder, impl: str) -> dict[str, int]:
    """Steps of every cell in mode "wall": those of the folder, else from a short measurement.

    As many are measured at a time as will be trained. A cell that fails here keeps its usual
    steps, and fails as a training.

    Raises:
        InterruptError: the user asked to stop.
    """
    open_cells = [
        cell
        for cell in plan.cells
        if cell.mode == "wall" and cell.label not in known(folder.manifest, impl)
    ]
    found = dict(folder.manifest.get(KEY, {}).get(impl, {}))
    with Stop() as stop, Slots(workers(plan), folder.logs, stop) as slots:
        while open_cells or slots.busy:
            while open_cells and slots.idle and not stop.requested:
                cell = open_cells.pop(0)
                slots.ask(slots.idle[0], _question(cell))
            if not slots.busy:
                break
            answer = slots.wait()
            if answer.found is not None:
                label, step_s = answer.asked.about.label, answer.found["step_s"]
                steps = max(plan.ablation.evaluations, round(_seconds(plan) / step_s))
                found[label] = {"step_s": step_s, "steps": steps}
        if stop.requested:
            raise InterruptError
    if found:
        folder.update_manifest(**{KEY: {**folder.manifest.get(KEY, {}), impl: found}})
    return known(folder.manifest, impl)


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
