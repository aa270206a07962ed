"""Whole networks around a recurrent core and how they are trained: one contract, no framework.

Shapes: T steps, B sequences, F features, V symbols, O outputs, U target steps. Everything is
time-major. `impls.net_params` names the parameters; `impls._torch.trainer` and
`impls._jax.trainer` build the same network around any core.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Literal, Protocol, get_args, runtime_checkable

import numpy as np

from impls.contract import Arrays, Implementation, ModelSpec, Placement, SpecError

Inputs = Literal["tokens", "dense", "hashed"]
Head = Literal["sequence", "steps", "seq2seq"]
Readout = Literal["last", "mean", "attention"]
Loss = Literal["cross_entropy", "squared"]
Decoder = Literal["projection", "state"]
Algorithm = Literal["sgd", "adam", "adamw", "rmsprop"]
Schedule = Literal["constant", "cosine", "exponential"]
FRAMEWORKS = ("torch", "jax")


def _one_of(name: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise SpecError(f"{name} = {value!r}: allowed are {', '.join(map(repr, allowed))}")


def _within(name: str, value: object, low: float, high: float) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not low <= value < high:  # type: ignore[operator]
        raise SpecError(f"{name} = {value!r}: give a number in [{low:g}, {high:g})")


@dataclass(frozen=True)
class NetSpec:
    """A network: what goes in, the recurrent stack, what comes out.

    Attributes:
        core: the stack; its `input_size` is what it sees after the embedding or bottleneck. Of an
            encoder-decoder it describes the encoder; the decoder is the same stack, unidirectional,
            with `decoder_width` taps.
        inputs: "tokens" [T, B] through an embedding [V, core.input_size]; "dense" [T, B, F]
            straight into the stack (F = core.input_size); "hashed" [T, B, F] ternary features
            through a bottleneck [F, core.input_size] with layer normalisation (pQRNN).
        vocabulary: V of "tokens", and of the target side of "seq2seq" `outputs`.
        features: F of "hashed".
        outputs: classes, regressed values, or symbols of the language modelled.
        head: "sequence" (one output per sequence, from `readout`), "steps" (one per step; a
            language model is this with `Batch.carry`), "seq2seq" (encoder-decoder with attention).
        readout: of head "sequence": the last valid step (of the reverse direction its first), the
            mean over valid steps, or attention pooling (softmax over valid steps of a learned
            scoring vector).
        loss: "cross_entropy" over `outputs`, or "squared": 0.5 * squared error.
        tied: head "steps" uses the embedding's matrix as its weight (arXiv 1608.05859;
            core.output_size must equal core.input_size, outputs must equal vocabulary).
        dropout: between layers and before the head; dropout_input: after the embedding.
        decoder: arm of "seq2seq": "projection" (paper 2.1, with the encoder's last outputs
            projected into every gate) or "state" (the decoder merely starts from the last states).
        decoder_width: kernel width K of the decoder's layers.
        masked_encoder: False = the encoder's convolution sees floor((K-1)/2) steps ahead.
        reversed_source: the encoder reads its sequence backwards (paper 3.3).

    Raises:
        SpecError: an unknown word, a size below 1, or fields that exclude each other.
    """

    core: ModelSpec = field(default_factory=ModelSpec)
    inputs: Inputs = "tokens"
    vocabulary: int = 0
    features: int = 0
    outputs: int = 2
    head: Head = "sequence"
    readout: Readout = "last"
    loss: Loss = "cross_entropy"
    tied: bool = False
    dropout: float = 0.0
    dropout_input: float = 0.0
    decoder: Decoder = "projection"
    decoder_width: int = 2
    masked_encoder: bool = True
    reversed_source: bool = False

    def __post_init__(self) -> None:
        _one_of("inputs", self.inputs, get_args(Inputs))
        _one_of("head", self.head, get_args(Head))
        _one_of("readout", self.readout, get_args(Readout))
        _one_of("loss", self.loss, get_args(Loss))
        _one_of("decoder", self.decoder, get_args(Decoder))
        _within("dropout", self.dropout, 0.0, 1.0)
        _within("dropout_input", self.dropout_input, 0.0, 1.0)
        for name in ("tied", "masked_encoder", "reversed_source"):
            if not isinstance(getattr(self, name), bool):
                raise SpecError(f"{name} = {getattr(self, name)!r}: give true or false")
        needed = {"outputs": self.outputs, "decoder_width": self.decoder_width}
        if self.inputs == "tokens":
            needed["vocabulary"] = self.vocabulary
        if self.inputs == "hashed":
            needed["features"] = self.features
        for name, value in needed.items():
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise SpecError(f"{name} = {value!r}: give a whole number of at least 1")
        if self.tied and (self.head, self.inputs) != ("steps", "tokens"):
            raise SpecError("tied = True: only head 'steps' over inputs 'tokens' can share weights")
        if self.tied and self.core.output_size != self.core.input_size:
            raise SpecError(
                f"tied = True: the stack gives {self.core.output_size} features, the embedding has "
                f"{self.core.input_size}; make them equal"
            )
        if self.tied and self.outputs != self.vocabulary:
            raise SpecError(f"tied = True: outputs = {self.outputs}, give {self.vocabulary}")
        if self.head == "seq2seq" and (self.inputs != "tokens" or self.core.family != "qrnn"):
            raise SpecError("head 'seq2seq' is defined for a qrnn core over inputs 'tokens'")
        if self.head == "seq2seq" and self.loss != "cross_entropy":
            raise SpecError("head 'seq2seq' writes symbols: give loss 'cross_entropy'")
        if self.head == "seq2seq" and self.outputs < 2:
            raise SpecError(
                f"outputs = {self.outputs}: head 'seq2seq' needs padding 0 and the end mark 1, "
                "give at least 2"
            )
        if self.head == "seq2seq" and self.core.bidirectional:
            raise SpecError("head 'seq2seq': its attention compares states of one direction")


@dataclass(frozen=True)
class OptimiserSpec:
    """How parameters are changed; each framework's own library does it (torch.optim, optax).

    Attributes:
        algorithm: "sgd", "adam", "adamw" or "rmsprop".
        learning_rate: the largest of the schedule.
        betas: of Adam and AdamW; epsilon: of Adam, AdamW and RMSprop (added after the root).
        momentum: of SGD; smoothing: RMSprop's alpha.
        weight_decay: decoupled in AdamW (arXiv 1711.05101); elsewhere L2, added to the gradient
            behind the clipping.
        clip_norm: largest global norm of the loss's gradient, 0 = no clipping; comes first
            (arXiv 1211.5063).
        schedule: "constant", "cosine" (to zero at `total_steps`, arXiv 1608.03983) or
            "exponential" (times `decay` after each `decay_every` steps once `decay_start` steps
            are over).
        warmup_steps: steps of linear increase from zero, before the schedule.

    Raises:
        SpecError: an unknown word or a number out of range.
    """

    algorithm: Algorithm = "adam"
    learning_rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    momentum: float = 0.0
    smoothing: float = 0.9
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    schedule: Schedule = "constant"
    total_steps: int = 0
    warmup_steps: int = 0
    decay: float = 0.95
    decay_every: int = 1
    decay_start: int = 0

    def __post_init__(self) -> None:
        _one_of("algorithm", self.algorithm, get_args(Algorithm))
        _one_of("schedule", self.schedule, get_args(Schedule))
        for name in ("learning_rate", "epsilon"):
            _within(name, getattr(self, name), 0, float("inf"))
            if not getattr(self, name) > 0:
                raise SpecError(f"{name} = {getattr(self, name)!r}: give a number above 0")
        if not isinstance(self.betas, tuple) or len(self.betas) != 2:
            raise SpecError(f"betas = {self.betas!r}: give two numbers in [0, 1)")
        for beta in self.betas:
            _within("betas", beta, 0.0, 1.0)
        for name in ("momentum", "smoothing"):
            _within(name, getattr(self, name), 0.0, 1.0)
        for name in ("weight_decay", "clip_norm", "warmup_steps", "decay_start"):
            _within(name, getattr(self, name), 0, float("inf"))
        if self.schedule == "cosine" and self.total_steps <= self.warmup_steps:
            raise SpecError(
                f"schedule 'cosine' needs total_steps above warmup_steps = {self.warmup_steps}, "
                f"given {self.total_steps}"
            )
        if self.schedule == "exponential" and self.decay_every < 1:
            raise SpecError(f"decay_every = {self.decay_every!r}: give at least 1")


@dataclass(frozen=True)
class Batch:
    """Sequences and what is wanted of them, as NumPy arrays.

    Attributes:
        inputs: int [T, B] for "tokens", float32 [T, B, F] otherwise; padded steps hold anything.
        targets: head "sequence": int [B] or float32 [B, O]; "steps": int [T, B] or float32
            [T, B, O]; "seq2seq": int [U, B], each ending with the end mark 1 (symbol 0 pads; the
            decoder's first input is the end mark).
        lengths: [B] int64, or None where every sequence is T long.
        weights: float32 [T, B] of head "steps": 1 where a step counts; None = every valid step.
        target_lengths: [B] int64 of "seq2seq", end mark included; None = U.
        rows: [B] int64, row of the zoneout mask of each sequence; None = arange(B).
        carry: this batch continues the one before: the final states stay (truncated BPTT). Where
            nothing is carried (a first batch, or after `restore` of a snapshot without states) it
            starts from zeros, so that a stream may say carry from its first batch on.
    """

    inputs: np.ndarray
    targets: np.ndarray
    lengths: np.ndarray | None = None
    weights: np.ndarray | None = None
    target_lengths: np.ndarray | None = None
    rows: np.ndarray | None = None
    carry: bool = False


@dataclass(frozen=True)
class Seeds:
    """64-bit seeds of one training step's random masks, so that a resumed run draws the same.

    Raises:
        SpecError: a seed that is no whole number in 0..2**64 - 1.
    """

    dropout: int
    zoneout: int

    def __post_init__(self) -> None:
        for name in ("dropout", "zoneout"):
            value = getattr(self, name)
            whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
            if not whole or not 0 <= int(value) < 1 << 64:
                raise SpecError(f"{name} = {value!r}: give a whole number in 0..2**64 - 1")


@runtime_checkable
class Trainer(Protocol):
    """One network with its optimiser; made by `trainer`, used by one process."""

    def step(self, batch: Batch, seeds: Seeds) -> None:
        """One optimiser step on the mean loss of the batch; may only enqueue."""

    def loss(self) -> float:
        """Mean loss of the last step's batch, before that step; waits for it. May be nan."""

    def outputs(self, batch: Batch) -> np.ndarray:
        """Evaluation: float32 (float64 for float64) logits or values, [B, O] or
        [T, B, O] ("seq2seq": [U, B, O], teacher forced). Dropout off, zoneout as
        `core.zoneout_eval` says. `batch.carry` continues the evaluation's own states, which `step`
        does not touch."""

    def export(self) -> dict[str, np.ndarray]:
        """The parameters by canonical name."""

    def snapshot(self) -> dict[str, np.ndarray]:
        """Everything that the next `step` depends on: parameters, optimiser state, step counter,
        carried states; safetensors can hold it."""

    def restore(self, snapshot: Arrays) -> None:
        """Go on exactly where `snapshot` was taken; what evaluation has carried is forgotten.

        Raises:
            SpecError: a damaged snapshot, or one of another network, optimiser or number format.
        """


@runtime_checkable
class Translator(Trainer, Protocol):
    """A trainer of head "seq2seq"."""

    def decode(self, batch: Batch, beam: int = 1, alpha: float = 0.0) -> list[list[int]]:
        """The best candidate of each source, without its end mark; beam 1 is greedy search."""


def framework_of(card: Implementation) -> str:
    """Which package builds networks around this card's core: "torch" or "jax".

    A card with a trainer of its own is of the first framework that it requires.

    Raises:
        SpecError: the card offers no core, or needs neither framework.
    """
    if card.trainer is not None:
        return card.requires[0] if card.requires else "none"
    found = [name for name in FRAMEWORKS if name in card.requires]
    if card.core is None or not found:
        raise SpecError(
            f"{card.name} cannot be trained inside a network: its card offers no core in "
            f"{' or '.join(FRAMEWORKS)}; speed and equivalence only"
        )
    return found[0]


def trainer(
    card: Implementation,
    net: NetSpec,
    params: Arrays,
    optimiser: OptimiserSpec,
    placement: Placement = Placement(),  # noqa: B008 - frozen
) -> Trainer:
    """A trainer of `net` whose recurrent layers are the card's; imports its framework.

    Args:
        params: by canonical name, see `impls.net_params`.

    Raises:
        SpecError: the card cannot compute this network, or parameters of another one.
    """
    framework, reason = framework_of(card), card.unsupported(net.core, placement)
    if reason is not None:
        raise SpecError(f"{card.name}: {reason}")
    if card.trainer is not None:
        own: Trainer = card.trainer(net, params, optimiser, placement)
        return own
    package = importlib.import_module(f"impls._{framework}.trainer")
    make: Callable[..., Trainer] = package.make
    assert card.core is not None  # framework_of has looked
    return make(card.core(), net, params, optimiser, placement)


def net_fields() -> tuple[str, ...]:
    """Names of NetSpec's own fields, without `core`."""
    return tuple(f.name for f in fields(NetSpec) if f.name != "core")
