"""Do networks of different implementations learn the same? Training curves side by side.

Same parameters, same batches, same masks of zoneout and dropout. The loss of every step and the way
that every parameter has gone at the end must agree.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np

import impls
from harness.conformance.check import Measured, worst
from harness.conformance.runner import row_of
from harness.conformance.tolerances import TRAINING
from harness.lessons import PERIOD, Lesson, lessons
from impls import net_params
from impls.batches import carry_hindrance
from impls.contract import Arrays, Implementation, Placement, SpecError
from impls.training import Seeds, framework_of, trainer

GOLDEN = 0x9E3779B97F4A7C15
"""2**64 / golden ratio: its multiples are seeds of which all 64 bits count."""
CHECK, CLAIM = "trains_alike", "trains a network as the other implementations do, step by step"
Row = dict[str, Any]
__all__ = ["Course", "Lesson", "agreement", "compare", "lessons", "train"]


@dataclass(frozen=True)
class Course:
    """What came of a lesson: `losses` [steps], and each parameter's change by canonical name."""

    losses: np.ndarray
    changes: Arrays


def train(
    card: Implementation, lesson: Lesson, placement: Placement, start: Arrays | None = None
) -> Course:
    """Take the lesson with the card's layers.

    Args:
        start: parameters to begin with instead of the lesson's own.

    Raises:
        SpecError: the card cannot train this network.
    """
    start = net_params.init(lesson.net, lesson.seed) if start is None else start
    taught = trainer(card, lesson.net, start, lesson.optimiser, placement)
    batches, losses = lesson.batches(), []
    for number in range(lesson.steps):
        seed = number * GOLDEN % 2**64
        taught.step(batches[number % PERIOD], Seeds(dropout=seed, zoneout=seed))
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
    return worst(found, wanted, TRAINING[dtype])


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
            try:
                taught = lesson.of_family(family)
            except SpecError as error:  # an encoder-decoder of LSTMs, say
                told = {"status": "unsupported", "message": str(error), "seconds": 0.0}
                yield from (_row(card, lesson, placement) | told for card in alike)
            else:
                yield from _rows(alike, taught, placement)


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
        reason = carry_hindrance(lesson.net)
    if placement.dtype not in TRAINING:
        reason = (
            f"training curves are compared in {' and '.join(TRAINING)}: in {placement.dtype} the "
            f"rounding of {lesson.steps} steps hides any mistake"
        )
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
    told = (lesson.name, f"{spec}, {lesson.optimiser.algorithm}, {lesson.steps} steps")
    return row_of(card, placement, (CHECK, CLAIM), told) | {"against": None}
