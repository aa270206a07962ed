"""What a whole network around a recurrent core is, and its optimiser: descriptions, no framework.

Shapes: T steps, B sequences, F features, V symbols. Everything is time-major. `impls.net_params`
names the parameters, `impls.training` trains.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Literal, get_args

from impls.contract import ModelSpec, SpecError, check_word

Inputs = Literal["tokens", "dense", "hashed"]
Head = Literal["sequence", "steps", "seq2seq"]
Readout = Literal["last", "mean", "attention"]
Loss = Literal["cross_entropy", "squared"]
Decoder = Literal["projection", "state"]
Algorithm = Literal["sgd", "adam", "adamw", "rmsprop"]
Schedule = Literal["constant", "cosine", "exponential"]


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
        check_word("inputs", self.inputs, get_args(Inputs))
        check_word("head", self.head, get_args(Head))
        check_word("readout", self.readout, get_args(Readout))
        check_word("loss", self.loss, get_args(Loss))
        check_word("decoder", self.decoder, get_args(Decoder))
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
        check_word("algorithm", self.algorithm, get_args(Algorithm))
        check_word("schedule", self.schedule, get_args(Schedule))
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


def net_fields() -> tuple[str, ...]:
    """Names of NetSpec's own fields, without `core`."""
    return tuple(f.name for f in fields(NetSpec) if f.name != "core")
