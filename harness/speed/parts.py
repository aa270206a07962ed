"""Parts of a layer in a sitting: where they have a meaning, and their proof before the clock."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from harness.speed.gate import Gate, distance, judge, require_finite, tolerance
from harness.speed.grid import Point
from impls import parts
from impls.contract import Arrays, ModelSpec, Run, Work
from impls.reference import qrnn

Found = Iterator[tuple[str, float, float]]
"""(key, relative Frobenius error, allowed)."""

WIDE = {"float32": 2e-6, "bfloat16": 2e-6, "float64": 1e-12}
"""Allowed of what is kept in the state's format."""
STATE = {"float32": 1e-6, "bfloat16": 1e-6, "float64": 1e-12}
"""Allowed of the carried state, given the same gate sums."""
ROUNDED_ONCE = {"float32": 0.0, "bfloat16": 2.0**-9, "float64": 0.0}
"""What rounding to the format of inputs and outputs adds at most."""
SKETCH = 16
"""Random directions by which a product is compared with its factors."""


def hindrance(point: Point) -> str | None:
    """Why the parts of a layer cannot be timed at this point, or None."""
    spec = point.spec
    if point.kind not in ("forward", "backward"):
        return f"parts of a layer are of kinds forward and backward, not {point.kind!r}"
    if spec.layers > 1 or spec.bidirectional:
        return "parts are of one layer in one direction"
    if spec.zoneout > 0 or point.ragged:
        return "parts are of full sequences without zoneout"
    return None


def check(
    part: str, run: Run, spec: ModelSpec, params: Arrays, work: Work, dtype: str
) -> tuple[Gate, np.ndarray]:
    """Compare a part that has been called once with float64 NumPy; the gate and all sequences.

    Raises:
        GateError: "mismatch" or "nonfinite".
    """
    result = run.result()
    require_finite(result)
    batch = work.x.shape[1]
    found = {"gemm": _gemm, "pooling": _pooling}[part](result, spec, params, work, dtype)
    return judge(found, batch, "float64 NumPy"), np.arange(batch)


def _gemm(result: Arrays, spec: ModelSpec, params: Arrays, work: Work, dtype: str) -> Found:
    """Each product A B against its factors, along random directions R: |(Y - A B) R| / |A B R|.

    R is normal, so that the squares of both norms have the Frobenius norms as their means.
    """
    taps, weight = _wide(parts.taps(spec, work.x)), _wide(parts.weight(spec, params))
    products = {"y": (taps, weight)}
    if work.kind == "backward":
        assert work.dy is not None  # Work holds what its kind needs
        dsums = _wide(parts.gate_sums(spec, work.dy)).reshape(len(taps), -1)
        products |= {"grad.x": (dsums, weight.T), "grad.weight": (taps.T, dsums)}
    for name, (left, right) in products.items():
        rows, columns = left.shape[0], right.shape[1]
        value, allowed = result.get(name), tolerance(dtype, name)
        if value is None or np.size(value) != rows * columns:
            yield f"{name} (absent or of another shape)", float("inf"), allowed
            continue
        sketch = np.random.default_rng(0).standard_normal((columns, SKETCH))
        found = _wide(value).reshape(rows, -1) @ sketch
        yield name, distance(found, left @ (right @ sketch)), allowed


def _pooling(result: Arrays, spec: ModelSpec, params: Arrays, work: Work, dtype: str) -> Found:
    """The oracle's own steps on the same gate sums."""
    summed = _wide(parts.gate_sums(spec, work.x)) + _wide(parts.bias(spec, params))
    steps, batch, _ = summed.shape
    zero = np.zeros((batch, spec.hidden_size))
    saved = qrnn.pool(spec, summed, zero, np.full(batch, steps))
    true = {"y": qrnn.output(saved), "state.c": saved.states[-1]}
    if work.kind == "backward":
        dsums, dc = qrnn.pool_backward(spec, saved, _wide(work.dy), zero)
        true |= {"grad.x": dsums, "grad.c": dc, "grad.bias": dsums.sum(axis=(0, 1))}
    for name, right in true.items():
        allowed = STATE[dtype] if name == "state.c" else WIDE[dtype]
        if name in ("y", "grad.x"):
            allowed += ROUNDED_ONCE[dtype]
        yield name, distance(result.get(name, np.empty(0)), right), allowed


def _wide(array: np.ndarray | None) -> np.ndarray:
    return np.asarray(array, dtype=np.float64)
