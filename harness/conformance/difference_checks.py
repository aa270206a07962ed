"""Gradients of a family without an oracle, against central differences of its own outputs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from harness.conformance.check import Measured, check
from harness.conformance.oracle_checks import larger
from harness.conformance.subject import Subject
from harness.conformance.tolerances import DIFFERENCE_STEP, DIFFERENCES
from impls.contract import Work
from impls.reference import has_oracle

DIRECTIONS = 2


def _loss(result: Mapping[str, np.ndarray], work: Work) -> float:
    """<y, dy> + <final state, dstate>, summed in float64."""
    assert work.dy is not None
    total = float(np.sum(result["y"].astype(np.float64) * work.dy))
    for name, gradient in work.dstate.items():
        total += float(np.sum(result[f"state.{name}"].astype(np.float64) * gradient))
    return total


def _difference(subject: Subject, work: Work, name: str, move: np.ndarray) -> float:
    """Loss difference when x or one parameter moves by `move` forwards and backwards."""
    losses = []
    for sign in (1.0, -1.0):
        forward = replace(work, kind="forward", dy=None, dstate={})
        params = subject.params
        if name == "x":
            forward = replace(forward, x=(work.x + sign * move).astype(work.x.dtype))
        else:
            params = params | {name: (params[name] + sign * move).astype(params[name].dtype)}
        session = subject.session(params, fresh=True)
        run = session.prepare(forward)
        run()
        run.wait()
        losses.append(_loss(run.result(), work))
    return losses[0] - losses[1]


@check(
    "gradients equal central differences of the outputs",
    applies=lambda spec: not has_oracle(spec.family),
    kinds=("forward", "backward"),
    dtypes=("float32", "float64"),
)
def check_finite_differences(subject: Subject) -> Measured:
    """grad.x and every parameter's gradient along random unit directions."""
    work = subject.work("backward", ragged=False)
    result, step = subject.run(work), DIFFERENCE_STEP[subject.dtype]
    tolerance, found = DIFFERENCES[subject.dtype], []
    for name in ("x", *subject.params):
        key = f"grad.{name}"
        shape = work.x.shape if name == "x" else subject.params[name].shape
        if key not in result or result[key].shape != shape:
            return Measured(key, math.inf, tolerance, f"{key} is missing or not of shape {shape}")
        gradient = result[key].astype(np.float64)
        for number in range(DIRECTIONS):
            move = subject.random(*shape, stream=f"{name}.{number}").astype(np.float64)
            move /= np.linalg.norm(move)
            expected = _difference(subject, work, name, step * move) / (2.0 * step)
            error = abs(expected - float(np.sum(gradient * move)))
            size = float(np.linalg.norm(gradient)) / math.sqrt(gradient.size) or 1.0
            error = error / size if math.isfinite(error) else math.inf
            found.append(Measured(key, error, tolerance))
    return larger(*found)
