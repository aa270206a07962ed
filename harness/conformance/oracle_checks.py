"""Checks that compare with the float64 oracle: values, states, gradients, one training step."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from harness.conformance.check import Measured, check, exactly, named, worst
from harness.conformance.subject import Subject
from harness.conformance.tolerances import GRADIENTS, VALUES
from impls import params as canonical
from impls.contract import ModelSpec


def is_qrnn(spec: ModelSpec) -> bool:
    """The claim speaks of QRNN gates, taps or zoneout."""
    return spec.family == "qrnn"


def has_state(spec: ModelSpec) -> bool:
    """A convolution of one tap looks back to nothing."""
    return spec.family != "conv" or spec.kernel_width > 1


def larger(*measured: Measured) -> Measured:
    """The measurement that is furthest above (or least below) its tolerance."""
    return max(measured, key=lambda m: m.error / m.tolerance if m.tolerance else m.error * 1e300)


@check("the output y equals the oracle's", needs_oracle=True)
def check_values_equal_oracle(subject: Subject) -> Measured:
    """Output of `forward`."""
    work = subject.work("forward")
    given, expected = subject.run(work), subject.oracle(work)
    return worst(named("y", given), named("y", expected), VALUES[subject.dtype])


@check(
    "the final state equals the oracle's after the last valid step",
    needs_oracle=True,
    applies=has_state,
    streams=True,
)
def check_states_equal_oracle(subject: Subject) -> Measured:
    """Carried state after `forward`: c, window, h and the step counter t0."""
    work = subject.work("forward")
    given, expected = subject.run(work), subject.oracle(work)
    return worst(named("state.", given), named("state.", expected), VALUES[subject.dtype])


@check(
    "every gradient equals the oracle's: of x, of each parameter, of the initial state",
    needs_oracle=True,
    kinds=("backward",),
)
def check_gradients_equal_oracle(subject: Subject) -> Measured:
    """Results of `backward` for random dy and dstate; its y and states must hold too."""
    work = subject.work("backward")
    given, expected = subject.run(work), subject.oracle(work)
    return larger(
        worst(named("grad.", given), named("grad.", expected), GRADIENTS[subject.dtype]),
        worst(_values(given), _values(expected), VALUES[subject.dtype]),
    )


def _values(result: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: value for name, value in result.items() if not name.startswith("grad.")}


@check(
    "inputs and gradients may be arrays of any memory layout, strides of 0 included",
    needs_oracle=True,
    kinds=("backward",),
)
def check_any_layout_is_read_rightly(subject: Subject) -> Measured:
    """x as a transposed view, dy as ones of stride 0 (what `out.sum().backward()` sends), states
    with reversed strides."""
    plain = subject.work("backward", ragged=False)
    assert plain.dy is not None
    strided = np.ascontiguousarray(plain.x.transpose(2, 1, 0)).transpose(2, 1, 0)
    ones = np.broadcast_to(plain.dy.dtype.type(1.0), plain.dy.shape)
    state = {n: np.ascontiguousarray(v[::-1])[::-1] for n, v in plain.state.items()}
    work = replace(plain, x=strided, dy=ones, state=state)
    return worst(subject.run(work, fresh=True), subject.oracle(work), GRADIENTS[subject.dtype])


@check(
    "a training step has the oracle's loss and parameters, also when it is called again",
    needs_oracle=True,
    kinds=("train_step",),
)
def check_train_step_equals_oracle(subject: Subject) -> Measured:
    """Loss and exported parameters of the first of two calls.

    In bfloat16 the change of all parameters together must hold too: it is smaller than the rounding
    of a bfloat16 weight, so only float32 masters keep it.
    """
    work, before = subject.work("train_step"), subject.params
    session = subject.session(fresh=True)
    run = session.prepare(work)
    for _ in range(2):
        run()
        run.wait()
    expected, tolerance = subject.oracle(work), GRADIENTS[subject.dtype]
    given = {f"param.{name}": value for name, value in session.export().items()}
    found = larger(
        worst(named("loss", run.result()), named("loss", expected), tolerance),
        worst(given, named("param.", expected), tolerance),
    )
    if not found.passed or subject.dtype != "bfloat16":
        return found

    def change(after: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        parts = [after[f"param.{name}"].astype(np.float64) - old for name, old in before.items()]
        return {"change of all parameters": np.concatenate([part.ravel() for part in parts])}

    return larger(found, worst(change(given), change(expected), tolerance))


@check(
    "T = 1, B = 1, K = 1, K > T and odd sizes work like any other shape",
    needs_oracle=True,
    kinds=("backward",),
)
def check_edge_shapes_equal_oracle(subject: Subject) -> Measured:
    """Everything that `backward` returns, on a case whose shape is an edge."""
    work = subject.work("backward")
    return worst(subject.run(work), subject.oracle(work), GRADIENTS[subject.dtype])


@check("4096 steps are as accurate as few: outputs and final state", needs_oracle=True)
def check_long_sequences_stay_accurate(subject: Subject) -> Measured:
    """`forward` over a long case; a scan in log space loses its accuracy there."""
    work = subject.work("forward")
    return worst(subject.run(work), subject.oracle(work), VALUES[subject.dtype])


@check(
    "tap K-1 multiplies the current step and tap 0 the oldest",
    needs_oracle=True,
    applies=lambda spec: is_qrnn(spec) and spec.kernel_width > 1,
)
def check_taps_are_in_order(subject: Subject) -> Measured:
    """Parameters of which only tap 0 is left."""
    only = {name: value.copy() for name, value in subject.params.items()}
    for name, value in only.items():
        if name.endswith(".weight"):
            value[1:] = 0.0
    work = subject.work("forward")
    given, expected = subject.run(work, only), subject.oracle(work, only)
    tolerance = VALUES[subject.dtype]
    return worst(named("y", given), named("y", expected), tolerance)


@check(
    "the dtype is honest: float64 is computed in float64, bfloat16 keeps its state in float32",
    needs_oracle=True,
)
def check_dtype_is_honest(subject: Subject) -> Measured:
    """float64 gets inputs that float32 cannot hold; bfloat16 must return y as bfloat16 numbers and
    a QRNN's c with more digits than that."""
    work = subject.work("forward")
    if subject.dtype == "float64":
        work = replace(work, x=work.x * (1.0 + 2.0**-30))
    given = subject.run(work)
    expected_type = "float64" if subject.dtype == "float64" else "float32"
    for name, value in named("y", given).items():
        if value.dtype != expected_type:
            text = f"{name} is {value.dtype}, it must be {expected_type}"
            return Measured(name, math.inf, 0.0, text)
    if subject.dtype == "bfloat16":
        digits = _bfloat16_digits(subject, given)
        if digits is not None:
            return digits
    return worst(given, subject.oracle(work), VALUES[subject.dtype])


def _bfloat16_digits(subject: Subject, given: dict[str, np.ndarray]) -> Measured | None:
    rounded = exactly({"y": canonical.round_bfloat16(given["y"])}, {"y": given["y"]})
    if not rounded.passed:
        return Measured("y", rounded.error, 0.0, "y holds numbers that bfloat16 cannot hold")
    name = "state.layers.0.fwd.c"
    c = given.get(name)
    if is_qrnn(subject.spec) and c is not None and np.array_equal(canonical.round_bfloat16(c), c):
        return Measured(name, math.inf, 0.0, f"{name} was rounded to bfloat16")
    return None
