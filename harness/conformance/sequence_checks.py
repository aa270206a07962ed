"""Checks that need no oracle: streaming, causality, batches, padding, directions, repetition."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from harness.conformance.check import Measured, check, exactly, named, worst
from harness.conformance.oracle_checks import larger
from harness.conformance.subject import Subject, blank_padding, carry, ragged_lengths, steps_of
from harness.conformance.tolerances import GRADIENTS, VALUES
from impls.contract import Arrays, Kind, ModelSpec, Work
from impls.params import FAMILIES


def one_direction(spec: ModelSpec) -> bool:
    """The claim is about time's arrow."""
    return not spec.bidirectional


def known_directions(spec: ModelSpec) -> bool:
    """The claim renames parameters of one direction to the other, so it must know their names."""
    return spec.bidirectional and spec.family in FAMILIES


def half(steps: int) -> int:
    """Steps of the first chunk; shared by checks, so that its run is shared too."""
    return max(1, steps // 2)


def _stream(subject: Subject, work: Work, cuts: Iterable[int], kind: Kind) -> dict[str, np.ndarray]:
    """Outputs and final state of consecutive chunks, each starting from the one before."""
    start, state, outputs = 0, dict(work.state), []
    for stop in cuts:
        chunk = steps_of(work, start, stop, kind, state=state)
        result = subject.run(chunk)
        outputs.append(result["y"])
        start, state = stop, carry(result)
    return {"y": np.concatenate(outputs)} | {f"state.{name}": v for name, v in state.items()}


def _stream_is_sequence(subject: Subject, cuts: list[int]) -> Measured:
    work = subject.work("forward", ragged=False)
    given, expected = _stream(subject, work, cuts, "forward"), subject.run(work)
    return worst(given, expected, VALUES[subject.dtype])


@check(
    "a sequence in uneven chunks equals one pass, outputs and final state",
    applies=one_direction,
    streams=True,
)
def check_stream_equals_sequence(subject: Subject) -> Measured:
    """`forward` over chunks of which one is a single step, carrying the state."""
    steps = subject.case.steps
    cuts = sorted({half(steps), max(1, steps - 1), steps})
    return _stream_is_sequence(subject, cuts)


@check(
    "4096 steps in chunks equal one pass: nothing is lost between chunks",
    applies=one_direction,
    streams=True,
)
def check_long_stream_equals_sequence(subject: Subject) -> Measured:
    """`forward` over a long case in two chunks of uneven length."""
    steps = subject.case.steps
    return _stream_is_sequence(subject, [max(1, steps // 3), steps])


@check(
    "decoding step by step equals one pass, outputs and state",
    applies=one_direction,
    kinds=("forward", "step"),
    streams=True,
)
def check_steps_equal_sequence(subject: Subject) -> Measured:
    """The kind `step` over the first half, against `forward` over these steps."""
    work = subject.work("forward", ragged=False)
    count = half(subject.case.steps)
    given = _stream(subject, work, range(1, count + 1), "step")
    expected = subject.run(steps_of(work, 0, count))
    return worst(given, expected, VALUES[subject.dtype])


@check("step t does not see inputs after t", applies=one_direction)
def check_causality(subject: Subject) -> Measured:
    """Change the second half of x: the first half of y stays, the second does not."""
    work = subject.work("forward", ragged=False)
    cut = subject.case.steps // 2
    x = work.x.copy()
    x[cut:] = subject.cast(subject.random(*x[cut:].shape, stream="another future"))
    before, after = subject.run(work)["y"], subject.run(replace(work, x=x))["y"]
    if np.array_equal(before[cut:], after[cut:]):
        return Measured("y", math.inf, 0.0, "y does not depend on x at all")
    early = {"y before the change": before[:cut]}
    return worst({"y before the change": after[:cut]}, early, VALUES[subject.dtype])


def _alone(work: Work, sequence: int) -> Work:
    """One sequence of a batch, cut to its own length, with its own mask row."""
    length = int(work.lengths[sequence]) if work.lengths is not None else len(work.x)
    at = slice(sequence, sequence + 1)

    def state(arrays: Arrays) -> dict[str, np.ndarray]:
        return {
            name: value[:, at] if name.endswith(".window") else value[at]
            for name, value in arrays.items()
        }

    rows = np.arange(work.x.shape[1]) if work.rows is None else work.rows
    return replace(
        work,
        x=work.x[:length, at],
        lengths=None,
        state=state(work.state),
        rows=rows[at].astype(np.int64),
        dy=None if work.dy is None else work.dy[:length, at],
        dstate=state(work.dstate),
    )


@check("a sequence's result does not depend on the others in its batch")
def check_batch_independence(subject: Subject) -> Measured:
    """The second sequence alone against the same one inside the batch."""
    work = subject.work("forward", ragged=False)
    at = min(1, subject.case.batch - 1)
    alone, batch = subject.run(_alone(work, at)), subject.run(work)
    return worst({"y": alone["y"][:, 0]}, {"y": batch["y"][:, at]}, VALUES[subject.dtype])


def _padded_and_alone(
    subject: Subject, kind: Kind
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Results of a padded batch, and the same put together from runs of each sequence alone."""
    work = subject.work(kind, ragged=True)
    padded = subject.run(work)
    alone = [subject.run(_alone(work, at), fresh=True) for at in range(subject.case.batch)]
    steps, joined = subject.case.steps, {}
    for name in alone[0]:
        parts = [result[name] for result in alone]
        if name in ("y", "grad.x"):
            parts = [np.pad(p, ((0, steps - len(p)), (0, 0), (0, 0))) for p in parts]
        summed = name.startswith("grad.") and name.removeprefix("grad.") in subject.params
        if summed:
            joined[name] = np.sum(np.asarray(parts, np.float64), axis=0)
        else:
            axis = 1 if name in ("y", "grad.x") or name.endswith(".window") else 0
            joined[name] = np.concatenate(parts, axis=axis)
    return padded, joined


@check(
    "a padded batch equals its sequences run alone, final states included, and y is 0 on padding"
)
def check_padded_equals_per_sequence(subject: Subject) -> Measured:
    """`forward` of a batch with NaN in its padding."""
    padded, alone = _padded_and_alone(subject, "forward")
    return worst(padded, alone, VALUES[subject.dtype])


@check(
    "gradients of a padded batch equal those of its sequences run alone, and are 0 on padding",
    kinds=("backward",),
)
def check_padded_gradients_equal_per_sequence(subject: Subject) -> Measured:
    """`backward` of a batch with NaN in the padding of x and dy; parameters' gradients add up."""
    padded, alone = _padded_and_alone(subject, "backward")
    steps = np.arange(subject.case.steps)[:, None]
    outside = steps >= ragged_lengths(subject.case.batch, subject.case.steps)
    if np.any(padded["grad.x"][outside] != 0.0):
        return Measured("grad.x", math.inf, 0.0, "grad.x is not 0 on padded steps")
    return worst(named("grad.", padded), named("grad.", alone), GRADIENTS[subject.dtype])


@check("the same run gives the same bits, however often it is called")
def check_repeatability(subject: Subject) -> Measured:
    """A `forward` run called once and three times, and prepared anew after another run."""
    return _repeated(subject, "forward")


@check("the same gradients come out however often they are asked for", kinds=("backward",))
def check_gradient_repeatability(subject: Subject) -> Measured:
    """A `backward` run called once and three times: nothing accumulates."""
    return _repeated(subject, "backward")


def _repeated(subject: Subject, kind: Kind) -> Measured:
    work = subject.work(kind)
    run = subject.session().prepare(work)
    results = []
    for calls in (1, 2):
        for _ in range(calls):
            run()
        run.wait()
        results.append({name: np.array(value) for name, value in run.result().items()})
    again = subject.run(work, fresh=True)
    return larger(exactly(results[1], results[0]), exactly(again, results[0]))


def _direction(params: Arrays, direction: str) -> dict[str, np.ndarray]:
    return {
        name.replace(f".{direction}.", ".fwd."): value
        for name, value in params.items()
        if f".{direction}." in name
    }


@check(
    "the reverse half of y is a forward run over the reversed sequence, flipped back in time",
    applies=lambda spec: known_directions(spec) and spec.layers == 1,
)
def check_reverse_is_flipped_back(subject: Subject) -> Measured:
    """Needs no oracle: the reverse direction's parameters in a one-direction layer."""
    work = replace(subject.work("forward", training=False), state={})
    hidden, lengths = subject.spec.hidden_size, work.lengths
    both = subject.run(work)["y"][..., hidden:]
    ends = np.full(subject.case.batch, len(work.x)) if lengths is None else lengths
    x, flipped = work.x.copy(), np.zeros_like(both)
    for at, end in enumerate(ends):
        x[:end, at] = work.x[:end, at][::-1]
    x = x if lengths is None else blank_padding(x, lengths)
    single = replace(subject.spec, bidirectional=False)
    y = subject.run(replace(work, x=x), _direction(subject.params, "rev"), single)["y"]
    for at, end in enumerate(ends):
        flipped[:end, at] = y[:end, at][::-1]
    return worst({"y (reverse half)": both}, {"y (reverse half)": flipped}, VALUES[subject.dtype])


@check("each direction has parameters of its own", applies=known_directions)
def check_directions_have_their_own_weights(subject: Subject) -> Measured:
    """Change the last layer's reverse parameters: the forward half of y stays, the other moves."""
    work, hidden = subject.work("forward"), subject.spec.hidden_size
    at = f"layers.{subject.spec.layers - 1}.rev."
    changed = {n: -v if n.startswith(at) else v for n, v in subject.params.items()}
    before, after = subject.run(work)["y"], subject.run(work, changed)["y"]
    if np.array_equal(before[..., hidden:], after[..., hidden:]):
        text = "the reverse half of y does not depend on the reverse parameters"
        return Measured("y (reverse half)", math.inf, 0.0, text)
    return worst(
        {"y (forward half)": after[..., :hidden]},
        {"y (forward half)": before[..., :hidden]},
        VALUES[subject.dtype],
    )
