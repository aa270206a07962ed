"""The gate before the clock: the timed work itself against the float64 oracle.

Large cells are compared on eight sequences spread over the batch: values, states and grad.x of
those, and the parameters' gradients from a second Run of the same shapes whose dy is zero
outside them. A family without an oracle must be finite, repeatable and independent of its batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from harness.conformance.tolerances import GRADIENTS, VALUES
from harness.speed.oracle import oracle
from harness.speed.slices import FULL_LIMIT, batch_axis, chosen, mute, per_sequence, pick, take
from impls.contract import Arrays, ModelSpec, Run, Session, Work

NO_ORACLE = "no oracle: batch independence"
ROUNDOFF = {"float64": 2.0**-53}
FLOAT32_ROUNDOFF = 2.0**-24


def tolerance(dtype: str, quantity: str) -> float:
    """Allowed relative Frobenius error of a key of `Run.result()`."""
    return (GRADIENTS if quantity.startswith("grad.") else VALUES)[dtype]


class GateError(Exception):
    """A contender may not be timed; carries the status word and the gate's columns."""

    def __init__(self, status: str, reason: str, details: dict[str, Any] | None = None) -> None:
        super().__init__(reason)
        self.status, self.details = status, details or {}


@dataclass(frozen=True)
class Gate:
    """What the gate found: worst relative Frobenius error, its key, what was allowed."""

    error: float
    worst: str
    allowed: float
    sequences: int

    def columns(self) -> dict[str, float | str | int | None]:
        """The gate's columns of a row."""
        return {
            "gate_error": float(self.error) if np.isfinite(self.error) else None,
            "gate_worst": self.worst,
            "gate_tolerance": float(self.allowed),
            "gate_sequences": self.sequences,
        }


def distance(value: np.ndarray, true: np.ndarray) -> float:
    """Relative Frobenius distance in float64; absolute where the true array is zero."""
    if np.shape(value) != np.shape(true):
        return float("inf")
    wide = np.asarray(true, dtype=np.float64)
    off, scale = np.linalg.norm(np.asarray(value, np.float64) - wide), np.linalg.norm(wide)
    return float(off / scale if scale > 0 else off)


def require_finite(result: Arrays) -> None:
    """Raise GateError("nonfinite") where a result holds NaN or infinity."""
    for name, value in result.items():
        if not np.all(np.isfinite(value)):
            bad = int(np.size(value) - np.isfinite(value).sum())
            raise GateError("nonfinite", f"{name} holds {bad} values that are not finite")


def judge(
    found: Iterator[tuple[str, float, float]], sequences: int, true: str = "the float64 oracle"
) -> Gate:
    """The worst of (key, error, allowed), relative to what is allowed; `true` names the measure.

    Raises:
        GateError: an error above its tolerance ("mismatch").
    """
    key, error, allowed = max(found, key=lambda item: item[1] / item[2])
    gate = Gate(error, key, allowed, sequences)
    if not error <= allowed:
        reason = (
            f"{key} differs from {true} by {error:.2g} (relative Frobenius; allowed {allowed:.0e})"
        )
        raise GateError("mismatch", reason, gate.columns())
    return gate


def compare(
    result: Arrays, true: Arrays, rows: np.ndarray, dtype: str, own: bool = False
) -> Iterator[tuple[str, float, float]]:
    """(key, error, allowed) of every oracle key, on the compared sequences.

    Args:
        own: only what belongs to single sequences (a Run whose dy is not muted).
    """
    for name, right in true.items():
        if own and not per_sequence(name):
            continue
        allowed = tolerance(dtype, name)
        if name not in result:
            yield f"{name} (absent)", float("inf"), allowed
            continue
        value = pick(name, result[name], rows) if per_sequence(name) else result[name]
        if name == "state.t0":
            right = np.broadcast_to(right, np.shape(value)) if np.ndim(right) == 0 else right
            yield name, 0.0 if np.array_equal(value, right) else float("inf"), allowed
            continue
        yield name, distance(value, right), allowed


def outside_zero(result: Arrays, rows: np.ndarray) -> Iterator[tuple[str, float, float]]:
    """(key, error, allowed) of grad.x and grad.state.* outside the slice: exactly zero."""
    for name, value in result.items():
        if name == "grad.x" or name.startswith("grad.state."):
            rest = np.delete(value, rows, axis=batch_axis(name))
            bad = bool(np.any(rest != 0))
            yield f"{name} (other sequences)", float("inf") if bad else 0.0, 1.0


def updates(
    before: Arrays, after: Arrays, true: Arrays, dtype: str
) -> Iterator[tuple[str, float, float]]:
    """(key, error, allowed) of the parameters' change in a train_step.

    The change is a thousandth of the parameter, so that rounding the stored parameter would
    drown it: half an ulp of the parameter is taken off the difference, no more.
    """
    roundoff = ROUNDOFF.get(dtype, FLOAT32_ROUNDOFF)
    for name, start in before.items():
        right = np.asarray(true[f"param.{name}"], np.float64) - start
        allowed, key = tolerance(dtype, f"grad.{name}"), f"update.{name}"
        if name not in after or np.shape(after[name]) != np.shape(start):
            yield key, float("inf"), allowed
            continue
        new = np.asarray(after[name], np.float64)
        off = float(np.linalg.norm(new - start - right))
        off = max(0.0, off - roundoff * float(np.linalg.norm(new)))
        scale = np.linalg.norm(right)
        yield key, float(off / scale if scale > 0 else off), allowed


def check(
    session: Session,
    run: Run,
    spec: ModelSpec,
    params: Arrays,
    work: Work,
    dtype: str,
    cache: Path,
    limit: int = FULL_LIMIT,
) -> tuple[Gate, np.ndarray]:
    """Compare a Run that has been called once with the oracle; the gate and the compared rows.

    Raises:
        GateError: "mismatch" or "nonfinite".
    """
    result = run.result()
    require_finite(result)
    rows = chosen(work, spec, limit)
    part = len(rows) < work.x.shape[1]
    true = oracle(spec, params, take(work, rows) if part else work, cache)
    if work.kind == "train_step":
        loss = ("loss", distance(result["loss"], true["loss"]), tolerance(dtype, "loss"))
        pairs = [loss, *updates(params, session.export(), true, dtype)]
        return judge(iter(pairs), len(rows)), rows
    split = part and work.kind == "backward"
    pairs = list(compare(result, true, rows, dtype, own=split))
    if split:
        muted = session.prepare(mute(work, rows))
        muted()
        muted.wait()
        second = muted.result()
        require_finite(second)
        pairs += [*compare(second, true, rows, dtype), *outside_zero(second, rows)]
    return judge(iter(pairs), len(rows)), rows


def check_foreign(session: Session, run: Run, work: Work, dtype: str) -> tuple[Gate, np.ndarray]:
    """The gate of a family without an oracle: finite, repeatable, independent of its batch.

    Sequences are run alone (beside another one where the batch is 1) and must come out the same.
    """
    first = run.result()
    require_finite(first)
    batch = work.x.shape[1]
    rows = np.arange(min(2, max(1, batch - 1)))
    if work.kind == "train_step":
        return Gate(0.0, "no oracle: finite loss", tolerance(dtype, "loss"), batch), rows
    run()
    run.wait()
    second, pairs = run.result(), []
    for name, value in first.items():
        pairs.append((f"{name} (repeated)", distance(second[name], value), tolerance(dtype, name)))
    other = take(work, rows if batch > 1 else np.array([0, 0]))
    if batch == 1:
        other.x[:, 1] = other.x[::-1, 1].copy()
    beside = session.prepare(other)
    beside()
    beside.wait()
    alone = beside.result()
    for name, value in first.items():
        if per_sequence(name) and np.ndim(value) > 0:
            at = np.arange(len(rows))
            error = distance(pick(name, alone[name], at), pick(name, value, rows))
            pairs.append((name, error, tolerance(dtype, name)))
    gate = judge(iter(pairs), len(rows), "the same sequences in another batch")
    return replace(gate, worst=NO_ORACLE), rows


def unchanged(run: Run, kept: Arrays, rows: np.ndarray, dtype: str) -> None:
    """After timing: the Run still gives what passed the gate, on the compared sequences.

    Raises:
        GateError: "mismatch" or "nonfinite".
    """
    result = run.result()
    require_finite(result)
    for name, error, allowed in compare(result, kept, rows, dtype, own=True):
        if not error <= allowed:
            reason = f"{name} changed by {error:.2g} while it was timed (allowed {allowed:.0e})"
            raise GateError("mismatch", reason, {})


def keep(run: Run, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Copies of the results that `unchanged` compares with."""
    return {
        name: np.array(pick(name, value, rows))
        for name, value in run.result().items()
        if per_sequence(name)
    }
