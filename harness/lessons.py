"""What networks of every kind are taught to be compared: lessons, the same in every framework."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from impls.beam import END
from impls.contract import ModelSpec
from impls.nets import NetSpec, OptimiserSpec
from impls.training import Batch

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
GENTLER = MappingProxyType({"attention": 0.5})
"""Factors on learning rates. At 8e-3 the attention of "classes" is past what it bears: its loss
rises again, and 50 steps blow a rounding error up 3000-fold, in float64 too. Its end says nothing
about who computes it."""


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
        """The same lesson for another kind of stack, at a learning rate that it bears."""
        rate = self.optimiser.learning_rate * GENTLER.get(family, 1.0)
        return replace(
            self,
            net=replace(self.net, core=replace(self.net.core, family=family)),
            optimiser=replace(self.optimiser, learning_rate=rate),
        )

    def batches(self) -> list[Batch]:
        """The batches, the same for every implementation."""
        draws = np.random.default_rng(self.seed)
        return [self._batch(draws, number > 0) for number in range(PERIOD)]

    def _batch(self, draws: np.random.Generator, later: bool) -> Batch:
        net, (steps, rows) = self.net, SHAPE
        if net.head == "seq2seq":
            return self._sentences(draws)
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

    def _sentences(self, draws: np.random.Generator) -> Batch:
        """Sources and targets of any length, each target with its end mark."""
        net, (steps, rows) = self.net, SHAPE
        inputs = draws.integers(2, net.vocabulary, SHAPE)
        targets = draws.integers(2, net.outputs, SHAPE)
        lengths, ends = draws.integers(1, steps + 1, (2, rows))
        targets[ends - 1, np.arange(rows)] = END
        return Batch(inputs, targets, lengths if self.lengths else None, target_lengths=ends)


def lessons() -> tuple[Lesson, ...]:
    """Networks of every input, head, readout and loss, all with Adam; then the other optimisers."""
    return *_networks(), *_optimisers()


def _networks() -> Iterator[Lesson]:
    core = ModelSpec(input_size=8, hidden_size=12, layers=2, heads=2)
    dense = replace(core, dense=True, zoneout=0.1)
    yield Lesson("classes", NetSpec(dense, vocabulary=11, outputs=7), lengths=True)
    wide = replace(core, hidden_size=8, pooling="f", kernel_width=3)
    language = NetSpec(
        wide, vocabulary=11, outputs=11, head="steps", tied=True, dropout=0.3, dropout_input=0.2
    )
    yield Lesson("language_model", language, carry=True)
    both = replace(core, bidirectional=True, layers=1, kernel_width=3)
    pqrnn = NetSpec(both, "hashed", features=16, outputs=7, readout="attention")
    yield Lesson("pqrnn", pqrnn, lengths=True)
    ifo = replace(core, pooling="ifo", kernel_width=1, zoneout=0.2, zoneout_mode="literal")
    values = NetSpec(ifo, "dense", outputs=2, head="steps", loss="squared")
    yield Lesson("regression", values, lengths=True, weights=True)
    mean = NetSpec(core, "dense", outputs=2, readout="mean", loss="squared")
    yield Lesson("mean", mean, lengths=True)
    yield from _translations(replace(core, zoneout=0.1))
    apart = replace(core, kernel_width=3, layers=3, dilated=True)
    yield Lesson("dilated", NetSpec(apart, vocabulary=11, outputs=7), steps=12, lengths=True)


def _translations(core: ModelSpec) -> Iterator[Lesson]:
    ahead = replace(core, pooling="ifo", kernel_width=3)
    words = NetSpec(
        ahead,
        vocabulary=11,
        outputs=9,
        head="seq2seq",
        masked_encoder=False,
        reversed_source=True,
        dropout=0.2,
        dropout_input=0.1,
    )
    yield Lesson("translation", words, steps=25, lengths=True)
    merely = replace(words, core=replace(core, dense=True), decoder="state", masked_encoder=True)
    yield Lesson("translation_state", merely, steps=12, lengths=True)


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
