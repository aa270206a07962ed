"""The float64 NumPy oracle: what every implementation must compute, gradients written by hand.

Definitions: arXiv 1611.01576v2, sections 2 and 2.1. Written for clarity; only the elementwise
recurrence loops over time.
"""

from __future__ import annotations

import numpy as np

from impls.contract import LEARNING_RATE, Arrays, ModelSpec, SpecError, Work
from impls.params import FAMILIES, shapes, state_shapes, stream_hindrance
from impls.reference.ops import valid_steps
from impls.reference.philox import hold_mask, philox4x32
from impls.reference.stack import Forward, Sequences, backward, forward

__all__ = ["FAMILIES", "has_oracle", "hold_mask", "philox4x32", "run"]


def has_oracle(family: str) -> bool:
    """True where `run` can compute this family."""
    return family in FAMILIES


def _wide(array: np.ndarray) -> np.ndarray:
    return np.asarray(array, dtype=np.float64)


def _checked(what: str, given: Arrays, expected: dict[str, tuple[int, ...]]) -> Arrays:
    """float64 copies by name, zeros where absent."""
    for name, value in given.items():
        if name not in expected:
            known = f"only {', '.join(expected)}" if expected else "none"
            raise SpecError(f"{what} {name!r}: this spec has {known}")
        if np.shape(value) != expected[name]:
            raise SpecError(f"{what} {name!r} has shape {np.shape(value)}: give {expected[name]}")
    return {
        name: _wide(given[name]) if name in given else np.zeros(shape)
        for name, shape in expected.items()
    }


def _parameters(spec: ModelSpec, params: Arrays) -> Arrays:
    lacking = sorted(set(shapes(spec)) - set(params))
    if lacking:
        raise SpecError(f"parameters lack {', '.join(lacking[:3])}: give all of params.shapes")
    return _checked("parameter", params, shapes(spec))


def _sequences(spec: ModelSpec, work: Work) -> Sequences:
    steps, batch, features = work.x.shape
    if features != spec.input_size:
        raise SpecError(f"x has {features} features, the spec has input_size {spec.input_size}")
    if work.kind == "step" and spec.bidirectional:
        raise SpecError("kind 'step' is not defined on a bidirectional spec: use 'forward'")
    if work.kind == "step" and (reason := stream_hindrance(spec)):
        raise SpecError(f"kind 'step': {reason}")

    def per_sequence(what: str, given: np.ndarray | int) -> np.ndarray:
        value = np.asarray(given)
        if value.shape not in ((), (batch,)):
            raise SpecError(f"{what} has shape {value.shape}: give ({batch},)")
        return np.broadcast_to(value.astype(np.int64), (batch,))

    return Sequences(
        lengths=per_sequence("lengths", steps if work.lengths is None else work.lengths),
        rows=per_sequence("rows", np.arange(batch) if work.rows is None else work.rows),
        t0=per_sequence("t0", work.state.get("t0", 0)),
        seed=work.seed,
    )


def _selected(what: str, array: np.ndarray | None, valid: np.ndarray, features: int) -> np.ndarray:
    """float64 with zeros on padded steps, whatever stood there."""
    expected = (*valid.shape[:2], features)
    if array is None or array.shape != expected:
        shape = None if array is None else array.shape
        raise SpecError(f"{what} has shape {shape}: give {expected} [T, B, D*H]")
    return np.where(valid, _wide(array), 0.0)


def _results(done: Forward, spec: ModelSpec, where: Sequences) -> dict[str, np.ndarray]:
    out = {"y": done.y} | {f"state.{name}": value for name, value in done.state.items()}
    if spec.family == "qrnn":
        out["state.t0"] = where.t0 + where.lengths
    return out


def run(spec: ModelSpec, params: Arrays, work: Work) -> dict[str, np.ndarray]:
    """Do one unit of work in float64.

    Args:
        params: canonical parameters; for bfloat16 the rounded ones, as the contender gets them.

    Returns:
        The keys of `Run.result()`: "y" [T, B, D*H] and "state.<name>", for "backward" also
        "grad.x", "grad.<parameter>" and "grad.state.<name>" (all states, given or not). For
        "train_step": "loss" of shape () and "param.<name>", the parameters after the step.

    Raises:
        SpecError: no oracle for the family, or an array whose name or shape does not fit.
    """
    params = _parameters(spec, params)
    where = _sequences(spec, work)
    steps, batch, _ = work.x.shape
    valid = valid_steps(where.lengths, steps)
    names = state_shapes(spec, batch)
    carried = {name: value for name, value in work.state.items() if name != "t0"}
    state = _checked("state", carried, names)
    dstate = _checked("dstate", work.dstate, names)
    done = forward(spec, params, np.where(valid, _wide(work.x), 0.0), state, where)
    if work.kind in ("forward", "step"):
        return _results(done, spec, where)

    if work.kind == "backward":
        dy = _selected("dy", work.dy, valid, spec.output_size)
    else:
        error = done.y - _selected("target", work.target, valid, spec.output_size)
        size = int(where.lengths.sum()) * spec.output_size
        dy, dstate = error / size, _checked("dstate", {}, names)
    dx, dinitial, dparams = backward(spec, params, done, where.lengths, dy, dstate)
    if work.kind == "train_step":
        loss = 0.5 * np.sum(error * error) / size
        new = {f"param.{name}": params[name] - LEARNING_RATE * dparams[name] for name in params}
        return {"loss": np.asarray(loss)} | new
    grads = {"x": dx} | {name: dparams[name] for name in params}
    grads |= {f"state.{name}": dinitial[name] for name in names}
    return _results(done, spec, where) | {f"grad.{name}": value for name, value in grads.items()}
