"""Checks of whole networks around a core: dropout, and the encoder-decoder with attention.

They ask a trainer (`impls.training.trainer`), where the other checks ask a session, and stand in a
registry of their own: call one with (card, placement).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

import impls
from harness.conformance.cases import Case
from harness.conformance.check import ConformanceError, Measured, worst
from harness.conformance.tolerances import VALUES
from impls import net_params
from impls.beam import END
from impls.contract import Arrays, Implementation, ModelSpec, Placement, SpecError
from impls.nets import NetSpec, OptimiserSpec
from impls.reference import seq2seq
from impls.training import Batch, Seeds, Trainer, framework_of, trainer

Measure = Callable[[Implementation, Placement], Measured]
CORE = ModelSpec(input_size=5, hidden_size=6, layers=2, kernel_width=3)
ZONED = replace(CORE, zoneout=0.3)
EXPECTED = replace(ZONED, dense=True, zoneout_eval="expectation")
SEEDS = Seeds(dropout=7, zoneout=0x1234_5678_9ABC_DEF0)
PLAIN = OptimiserSpec("sgd", learning_rate=1.0, clip_norm=0.0)
"""With it a step changes each parameter by its gradient."""


@dataclass(frozen=True)
class NetworkCheck:
    """A claim about networks that holds for one implementation and placement."""

    name: str
    claim: str
    measure: Measure

    def hindrance(self, card: Implementation, placement: Placement) -> str | None:
        """Why the check cannot be made of this card, or None."""
        try:
            framework_of(card)
        except SpecError as error:
            return str(error)
        if card.family != "qrnn":
            return f"it is about networks of qrnn layers, {card.name} is of family {card.family!r}"
        found = (impls.hindrance(card, spec, placement) for spec in (CORE, ZONED, EXPECTED))
        return next((reason for reason in found if reason is not None), None)

    def __call__(self, card: Implementation, placement: Placement) -> Measured:
        """Return the worst measured quantity.

        Raises:
            ConformanceError: the claim does not hold, or the implementation raised on the way.
        """
        case = Case("network", ZONED, (self.name,))
        try:
            measured = self.measure(card, placement)
        except Exception as error:
            text = f"it raised {type(error).__name__}: {error}"
            measured = Measured("exception", math.inf, 0.0, text)
            raise ConformanceError(self, card, placement.dtype, case, measured) from error
        if not measured.passed:
            raise ConformanceError(self, card, placement.dtype, case, measured)
        return measured


NETWORK_CHECKS: dict[str, NetworkCheck] = {}
"""Every check of networks by name."""


def _claim(words: str) -> Callable[[Measure], NetworkCheck]:
    def register(measure: Measure) -> NetworkCheck:
        name = measure.__name__.removeprefix("check_")
        NETWORK_CHECKS[name] = NetworkCheck(name, words, measure)
        return NETWORK_CHECKS[name]

    return register


def translation(**changes: object) -> NetSpec:
    """A small encoder-decoder; `changes` are fields of NetSpec."""
    fields: dict[str, object] = {"core": ZONED, "vocabulary": 7, "outputs": 8, "head": "seq2seq"}
    return NetSpec(**(fields | changes))  # type: ignore[arg-type]


def parameters(net: NetSpec, dtype: str, scale: float = 0.5) -> dict[str, np.ndarray]:
    """Random values for every parameter, biases included, of numbers that the dtype has."""
    rng = np.random.default_rng(2)
    drawn = {n: scale * rng.standard_normal(shape) for n, shape in net_params.shapes(net).items()}
    wide = np.float64 if dtype == "float64" else np.float32
    return {name: np.asarray(value, np.float32).astype(wide) for name, value in drawn.items()}


def sentences() -> Batch:
    """Sources of 7, 1, 4 and 2 symbols, targets of 2, 6, 5 and 1; padding holds real symbols."""
    rng = np.random.default_rng(5)
    inputs, targets = rng.integers(2, 7, (7, 4)), rng.integers(2, 8, (6, 4))
    lengths, ends = np.array([7, 1, 4, 2]), np.array([2, 6, 5, 1])
    targets[ends - 1, np.arange(4)] = END
    rows = np.array([3, 1, 40, 9])
    return Batch(inputs, targets, lengths, target_lengths=ends, rows=rows)


def _valid(outputs: np.ndarray, batch: Batch) -> np.ndarray:
    """[N, O]: the outputs before each target's end."""
    assert batch.target_lengths is not None
    found: np.ndarray = outputs[np.arange(len(outputs))[:, None] < batch.target_lengths]
    return found


def _trainer(card: Implementation, net: NetSpec, params: Arrays, placement: Placement) -> Trainer:
    return trainer(card, net, params, PLAIN, placement)


@_claim("an encoder-decoder gives the reference's logits, and its loss with zoneout in training")
def check_translation_equals_reference(card: Implementation, placement: Placement) -> Measured:
    """Teacher forced, un-masked and reversed, with dense connections, on padded sources."""
    net = translation(core=EXPECTED, masked_encoder=False, reversed_source=True)
    params, batch = parameters(net, placement.dtype), sentences()
    made = _trainer(card, net, params, placement)
    given = {"logits": _valid(made.outputs(batch), batch)}
    made.step(batch, SEEDS)
    given["loss"] = np.asarray(made.loss())
    expected = {
        "logits": _valid(seq2seq.forward(net, params, batch), batch),
        "loss": np.asarray(seq2seq.loss(net, params, batch, SEEDS.zoneout)),
    }
    return worst(given, expected, VALUES[placement.dtype])


@_claim("the attention and all else give a padded source what it gets alone")
def check_attention_ignores_padding(card: Implementation, placement: Placement) -> Measured:
    """A sentence of 4 symbols without its padding, against its column of the batch."""
    net, batch = translation(core=CORE), sentences()
    assert batch.lengths is not None
    assert batch.target_lengths is not None
    made = _trainer(card, net, parameters(net, placement.dtype), placement)
    length, end, at = batch.lengths[2], batch.target_lengths[2], slice(2, 3)
    alone = made.outputs(Batch(batch.inputs[:length, at], batch.targets[:end, at]))
    padded = made.outputs(batch)[:end, at]
    return worst({"logits": padded}, {"logits": alone}, VALUES[placement.dtype])


@_claim("every gate of the decoder adds its own projection of the encoder's last output")
def check_decoder_gates_have_their_own_projections(
    card: Implementation, placement: Placement
) -> Measured:
    """With the projections of all gates but one at zero, layer by layer and gate by gate."""
    net, batch = translation(core=CORE), sentences()
    full = parameters(net, placement.dtype)
    named = [name for name in full if name.endswith(".projection")]
    none = full | {name: np.zeros_like(full[name]) for name in named}
    given, expected = {}, {}
    for name in named:
        params = none | {name: full[name]}
        given[name] = _valid(_trainer(card, net, params, placement).outputs(batch), batch)
        expected[name] = _valid(seq2seq.forward(net, params, batch), batch)
    return worst(given, expected, VALUES[placement.dtype])


@_claim("dropout between layers reaches the next layer, rescaled, and only in training")
def check_dropout_reaches_the_next_layer(card: Implementation, placement: Placement) -> Measured:
    """On one step of one sequence a dropped unit is a row of zeros in the next layer's gradients.

    With probability p = 0.5 a row of the second layer's weights has no gradient where the unit
    below it was dropped; over 64 units there must be between 8 and 56 of them.
    """
    core = replace(CORE, hidden_size=64)
    net = NetSpec(core, vocabulary=7, outputs=8, head="steps", dropout=0.5)
    params, one = parameters(net, placement.dtype, 0.3), np.array([[3]])
    batch = Batch(one, one)
    place, tap = "layers.1.fwd.z.weight", core.kernel_width - 1
    steps = {}
    for dropped in (net, replace(net, dropout=0.0)):
        made = _trainer(card, dropped, params, placement)
        before = made.outputs(batch)
        made.step(batch, SEEDS)
        steps[dropped.dropout] = np.any(params[place][tap] != made.export()[place][tap], axis=1)
        if not np.array_equal(before, _trainer(card, dropped, params, placement).outputs(batch)):
            return Measured("logits", math.inf, 0.0, "two evaluations differ")
    silent = {rate: int(np.sum(~moved)) for rate, moved in steps.items()}
    if silent[0.0] or not 8 <= silent[0.5] <= 56:
        text = f"units of 64 without a gradient: {silent[0.5]} with dropout 0.5, {silent[0.0]} none"
        return Measured(f"grad.{place}", math.inf, 0.0, text)
    return Measured(f"grad.{place}", 0.0, 0.0)
