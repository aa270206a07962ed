"""Checks of what each QRNN gate does and of zoneout, most of them without the oracle."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from harness.conformance.check import Measured, check, exactly, named, worst
from harness.conformance.oracle_checks import is_qrnn, larger
from harness.conformance.subject import MASK_SEED, Subject
from harness.conformance.tolerances import GRADIENTS, VALUES
from impls.contract import ModelSpec, Work

SATURATED = 60.0
"""A bias at which a sigmoid is 1, and at which its complement is below every tolerance."""

C = "state.layers.0.fwd.c"


def has_output_gate(spec: ModelSpec) -> bool:
    """fo- and ifo-pooling."""
    return is_qrnn(spec) and "o" in spec.gates


def has_zoneout(spec: ModelSpec) -> bool:
    """A QRNN that holds some of its units."""
    return is_qrnn(spec) and spec.zoneout > 0.0


def _with_gate(subject: Subject, gate: str, bias: float) -> dict[str, np.ndarray]:
    """Parameters in which one gate is the same at every step, decided by its bias alone."""
    changed = {}
    for name, value in subject.params.items():
        if name.endswith(f".{gate}.weight"):
            changed[name] = np.zeros_like(value)
        elif name.endswith(f".{gate}.bias"):
            changed[name] = np.full_like(value, bias)
        else:
            changed[name] = value
    return changed


@check("a closed output gate lets nothing out", applies=has_output_gate)
def check_output_gate_scales_the_output(subject: Subject) -> Measured:
    """o = 0 everywhere: y is 0."""
    y = subject.run(subject.work("forward"), _with_gate(subject, "o", -SATURATED))["y"]
    return worst({"y": y}, {"y": np.zeros_like(y)}, VALUES[subject.dtype])


@check("the output gate does not touch the state", applies=has_output_gate)
def check_state_is_not_gated(subject: Subject) -> Measured:
    """Another output gate, the same c: the gated output is not what is carried on."""
    work = subject.work("forward")
    closed = subject.run(work, _with_gate(subject, "o", -SATURATED))
    return worst({C: closed[C]}, {C: subject.run(work)[C]}, VALUES[subject.dtype])


@check("f = 1 keeps the past: the state stays what it was", applies=is_qrnn)
def check_forget_gate_keeps_the_past(subject: Subject) -> Measured:
    """f = 1 (and i = 0) everywhere, from a random c: the final c is the initial one."""
    start = {C.removeprefix("state."): subject.states("state")[C.removeprefix("state.")]}
    work = replace(subject.work("forward"), state=start, seed=None)
    params = _with_gate(subject, "f", SATURATED)
    if "i" in subject.spec.gates:
        params |= {n: v for n, v in _with_gate(subject, "i", -SATURATED).items() if ".i." in n}
    spec = replace(subject.spec, zoneout=0.0)
    given = subject.run(work, params, spec)
    return worst({C: given[C]}, {C: start[C.removeprefix("state.")]}, VALUES[subject.dtype])


@check(
    "the zoneout mask of a training pass is the oracle's, with no rescaling",
    needs_oracle=True,
    applies=has_zoneout,
    kinds=("forward", "backward"),
)
def check_zoneout_mask_equals_oracle(subject: Subject) -> Measured:
    """Values and gradients with a seed."""
    forward = subject.work("forward", training=True)
    backward = subject.work("backward", training=True)
    return larger(
        worst(subject.run(forward), subject.oracle(forward), VALUES[subject.dtype]),
        worst(subject.run(backward), subject.oracle(backward), GRADIENTS[subject.dtype]),
    )


@check("zoneout draws nothing at evaluation: two passes have equal bits", applies=has_zoneout)
def check_zoneout_evaluation_is_deterministic(subject: Subject) -> Measured:
    """Without a seed, prepared twice."""
    work = subject.work("forward", training=False)
    return exactly(subject.run(work, fresh=True), subject.run(work, fresh=True))


@check(
    "zoneout at evaluation follows its policy, off or expectation",
    needs_oracle=True,
    applies=has_zoneout,
)
def check_zoneout_evaluation_follows_its_policy(subject: Subject) -> Measured:
    """Without a seed, against the oracle; with the policy "off" as if there were no zoneout."""
    work = subject.work("forward", training=False)
    return worst(subject.run(work), subject.oracle(work), VALUES[subject.dtype])


@check(
    "zoneout at evaluation has gradients, the oracle's",
    needs_oracle=True,
    applies=has_zoneout,
    kinds=("backward",),
)
def check_zoneout_evaluation_has_gradients(subject: Subject) -> Measured:
    """`backward` without a seed; an in-place change of a saved gate would raise here."""
    work = subject.work("backward", training=False)
    return worst(subject.run(work), subject.oracle(work), GRADIENTS[subject.dtype])


def _one_step(subject: Subject) -> tuple[Work, np.ndarray]:
    """A training step from a random state, and which entries of c it holds [B, H]."""
    from impls.reference import hold_mask

    batch = subject.case.batch
    work = subject.work("forward", ragged=False, training=True)
    t0 = np.arange(batch, dtype=np.int64) + 3
    state = {"t0": t0, **subject.states("state")}
    held = hold_mask(subject.spec, MASK_SEED, np.arange(batch), t0, 1, 0, "fwd")[0]
    return replace(work, x=work.x[:1], state=state), held


@check(
    "zoneout in mode keep keeps the state of a held unit to the bit, and no other's",
    applies=lambda spec: has_zoneout(spec) and spec.zoneout_mode == "keep",
)
def check_zoneout_keeps_state(subject: Subject) -> Measured:
    """One training step: held entries of c are the initial ones, the others have moved."""
    work, held = _one_step(subject)
    before, after = work.state[C.removeprefix("state.")], subject.run(work)[C]
    if not (held.any() and (~held).any()):
        raise ValueError(f"the case {subject.case.name} holds none or all of its units")
    if np.any((after == before)[~held]):
        return Measured(C, math.inf, 0.0, "units that the mask does not hold did not move")
    return exactly({f"{C} (held)": after[held]}, {f"{C} (held)": before[held]})


@check("a sequence keeps its zoneout mask at another place of the batch", applies=has_zoneout)
def check_zoneout_mask_follows_its_row(subject: Subject) -> Measured:
    """Sequences and mask rows in reverse order: y comes out in reverse order."""
    work = replace(subject.work("forward", ragged=False, training=True), state={})
    rows = np.arange(subject.case.batch, dtype=np.int64)[::-1].copy()
    turned = subject.run(replace(work, x=work.x[:, ::-1].copy(), rows=rows))
    y = {"y": subject.run(work)["y"]}
    return worst(named("y", {"y": turned["y"][:, ::-1]}), y, VALUES[subject.dtype])
