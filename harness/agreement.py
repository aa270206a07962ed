"""Do networks of different implementations learn the same? Training curves side by side.

Same parameters, same batches, same zoneout masks; no dropout, whose masks are each framework's
own. The loss of every step and the way that every parameter has gone at the end must agree.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from time import perf_counter
from types import MappingProxyType
from typing import Any

import numpy as np

import impls
from harness.conformance.check import Measured, worst
from harness.conformance.runner import SCHEMA_VERSION
from impls import net_params
from impls.contract import Arrays, Implementation, ModelSpec, Placement, SpecError
from impls.nets import Batch, NetSpec, OptimiserSpec, Seeds, framework_of, trainer
from impls.params import stream_hindrance

STEPS = 50
SHAPE = (12, 6)
"""T and B of every batch."""
PERIOD = 5
"""Batches of a lesson; they come again and again."""
EPSILON = 1e-5
"""Of Adam and RMSprop. With the usual 1e-8 an entry whose gradient is nearly zero takes its first
step by the rounding error of a float32 sum; one such entry among 480 was off by 1e-4."""
ADAM = OptimiserSpec(
    "adam", 8e-3, epsilon=EPSILON, clip_norm=0.3, schedule="cosine", total_steps=STEPS
)
"""Otherwise as in the ablations, with a norm so small that steps are clipped."""
TOLERANCES = MappingProxyType({"float64": 1e-11, "float32": 8e-5})
"""Largest relative error of the losses and of each parameter's change (Frobenius norm).

float64: rounding, which 50 steps blow up to 4e-14 at most in these lessons; the rest is room for
other machines' products. float32: the same rounding gives up to 3e-6; optax computes Adam's
1 - beta2^n in float32, which is off by up to 2^-25 / 1e-3 = 3e-5 in the first step, half of it
under the root; and a scale near 1 that has gone 0.02 is itself rounded, sqrt(50) 2^-24 / 0.02 =
2e-5. The bound is twice the sum.
"""
CHECK, CLAIM = "trains_alike", "trains a network as the other implementations do, step by step"
Row = dict[str, Any]


@dataclass(frozen=True)
class Lesson:
    """One training: what is trained, by which optimiser, how long, on what kind of batches."""

    name: str
    net: NetSpec
    optimiser: OptimiserSpec = ADAM
    steps: int = STEPS
    lengths: bool = False
    weights: bool = False
    carry: bool = False
    seed: int = 0

    def of_family(self, family: str) -> Lesson:
        """The same lesson for another kind of stack."""
        return replace(self, net=replace(self.net, core=replace(self.net.core, family=family)))

    def batches(self) -> list[Batch]:
        """The batches, the same for every implementation."""
        draws = np.random.default_rng(self.seed)
        return [self._batch(draws, number > 0) for number in range(PERIOD)]

    def _batch(self, draws: np.random.Generator, later: bool) -> Batch:
        net, (steps, rows) = self.net, SHAPE
        if net.inputs == "tokens":
            inputs = draws.integers(0, net.vocabulary, SHAPE)
        elif net.inputs == "hashed":
            inputs = draws.integers(-1, 2, (*SHAPE, net.features)).astype(np.float32)
        else:
            inputs = draws.standard_normal((*SHAPE, net.core.input_size)).astype(np.float32)
        places = SHAPE if net.head == "steps" else (rows,)
        if net.loss == "cross_entropy":
            targets = draws.integers(0, net.outputs, places)
        else:
            targets = draws.standard_normal((*places, net.outputs)).astype(np.float32)
        lengths = draws.integers(1, steps + 1, rows) if self.lengths else None
        weights = None
        if self.weights:
            weights = (draws.random(SHAPE) < 0.5).astype(np.float32)
            weights[0] = 1  # so that something counts in every sequence
        return Batch(inputs, targets, lengths, weights, carry=self.carry and later)


@dataclass(frozen=True)
class Course:
    """What came of a lesson: `losses` [steps], and each parameter's change by canonical name."""

    losses: np.ndarray
    changes: Arrays


def lessons() -> tuple[Lesson, ...]:
    """Networks of every input, head, readout and loss, all with Adam; then the other optimisers."""
    return *_networks(), *_optimisers()


def _networks() -> Iterator[Lesson]:
    core = ModelSpec(input_size=8, hidden_size=12, layers=2, heads=2)
    dense = replace(core, dense=True, zoneout=0.1)
    yield Lesson("classes", NetSpec(dense, vocabulary=11, outputs=7), lengths=True)
    wide = replace(core, hidden_size=8, pooling="f", kernel_width=3)
    language = NetSpec(wide, vocabulary=11, outputs=11, head="steps", tied=True)
    yield Lesson("language_model", language, carry=True)
    both = replace(core, bidirectional=True, layers=1, kernel_width=3)
    pqrnn = NetSpec(both, "hashed", features=16, outputs=7, readout="attention")
    yield Lesson("pqrnn", pqrnn, lengths=True)
    ifo = replace(core, pooling="ifo", kernel_width=1, zoneout=0.2, zoneout_mode="literal")
    values = NetSpec(ifo, "dense", outputs=2, head="steps", loss="squared")
    yield Lesson("regression", values, lengths=True, weights=True)
    mean = NetSpec(core, "dense", outputs=2, readout="mean", loss="squared")
    yield Lesson("mean", mean, lengths=True)


def _optimisers() -> Iterator[Lesson]:
    net = NetSpec(ModelSpec(input_size=8, hidden_size=8, heads=2), vocabulary=11, outputs=7)
    heavy = OptimiserSpec(
        "sgd", 0.5, momentum=0.9, weight_decay=1e-2, clip_norm=0.3,
        schedule="exponential", decay=0.8, decay_every=2, decay_start=3,
    )  # fmt: skip
    warm = replace(ADAM, algorithm="adamw", weight_decay=0.1, total_steps=12, warmup_steps=4)
    plain = OptimiserSpec("rmsprop", 1e-2, epsilon=EPSILON, weight_decay=1e-2, clip_norm=0.0)
    for optimiser in (heavy, warm, plain):
        yield Lesson(optimiser.algorithm, net, optimiser, steps=12)


def train(card: Implementation, lesson: Lesson, placement: Placement) -> Course:
    """Take the lesson with the card's layers.

    Raises:
        SpecError: the card cannot train this network.
    """
    start = net_params.init(lesson.net, lesson.seed)
    taught = trainer(card, lesson.net, start, lesson.optimiser, placement)
    batches, losses = lesson.batches(), []
    for number in range(lesson.steps):
        taught.step(batches[number % PERIOD], Seeds(dropout=number, zoneout=number))
        losses.append(taught.loss())
    ends = taught.export()
    changes = {name: ends[name] - first.astype(np.float64) for name, first in start.items()}
    return Course(np.array(losses), changes)


def compare(given: Course, expected: Course, dtype: str) -> Measured:
    """The quantity, the losses or one parameter's change, that differs most."""
    found, wanted = (
        {"losses": course.losses} | {f"change.{n}": v for n, v in course.changes.items()}
        for course in (given, expected)
    )
    return worst(found, wanted, TOLERANCES[dtype])


def agreement(
    cards: Iterable[Implementation], chosen: Iterable[Lesson], placement: Placement
) -> Iterator[Row]:
    """One row per card and lesson, in the form of `harness.conformance.run_checks`'s; never raises.

    A card is compared with the first of its family that the other framework offers. `status` is
    "passed", "failed", "unsupported" (the card refuses the network, or offers no core) or "missing"
    (a framework is absent, or the other one has nothing to compare with).
    """
    own, known = list(cards), list(chosen)
    for family in dict.fromkeys(card.family for card in own):
        alike = [card for card in own if card.family == family]
        for lesson in known:
            yield from _rows(alike, lesson.of_family(family), placement)


def _rows(alike: list[Implementation], lesson: Lesson, placement: Placement) -> Iterator[Row]:
    courses: dict[str, Course] = {}
    frameworks: dict[str, str] = {}
    out: list[Row] = []
    for card in alike:
        started = perf_counter()
        row = _row(card, lesson, placement)
        status, message = _refusal(card, lesson, placement)
        if not status:
            try:
                courses[card.name] = train(card, lesson, placement)
                frameworks[card.name] = framework_of(card)
            except Exception as error:  # whatever it is, the others go on
                status, message = "failed", f"it raised {type(error).__name__}: {error}"
        seconds = perf_counter() - started
        out.append(row | {"status": status, "message": message, "seconds": seconds})
    for row in out:
        name = row["impl"]
        yield row | _verdict(name, courses, frameworks, placement.dtype) if name in courses else row


def _refusal(card: Implementation, lesson: Lesson, placement: Placement) -> tuple[str, str]:
    """(status, why) where the card cannot take the lesson, else two empty words."""
    if lacking := impls.missing(card):
        return "missing", lacking
    try:
        framework_of(card)
    except SpecError as error:
        return "unsupported", str(error)
    core = lesson.net.core
    reason = impls.hindrance(card, core, placement)
    if reason is None and lesson.carry:
        reason = stream_hindrance(core)
    return ("unsupported", reason) if reason else ("", "")


def _verdict(name: str, courses: dict[str, Course], frameworks: dict[str, str], dtype: str) -> Row:
    other = next((n for n in courses if frameworks[n] != frameworks[name]), None)
    if other is None:
        return {"status": "missing", "message": "the other framework has trained nothing here"}
    measured = compare(courses[name], courses[other], dtype)
    message = measured.note
    if not measured.passed and not message:
        message = (
            f"{measured.quantity} is off by {measured.error:.2e} from {other}'s, "
            f"allowed are {measured.tolerance:.0e}"
        )
    return {
        "against": other,
        "quantity": measured.quantity,
        "error": measured.error if math.isfinite(measured.error) else None,
        "tolerance": measured.tolerance,
        "status": "passed" if measured.passed else "failed",
        "message": message,
    }


def _row(card: Implementation, lesson: Lesson, placement: Placement) -> Row:
    core = lesson.net.core
    spec = f"{core.family} {core.pooling}, {lesson.net.inputs}, {lesson.net.head}"
    return {
        "schema_version": SCHEMA_VERSION,
        "record": "equivalence",
        "impl": card.name,
        "family": card.family,
        "device": placement.device,
        "dtype": placement.dtype,
        "check": CHECK,
        "claim": CLAIM,
        "case": lesson.name,
        "spec": f"{spec}, {lesson.optimiser.algorithm}, {lesson.steps} steps",
        "against": None,
        "quantity": None,
        "error": None,
        "tolerance": None,
    }
