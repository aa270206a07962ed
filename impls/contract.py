"""What an implementation is and what it is asked to do: one contract, free of every framework.

Shapes use the letters of the paper (arXiv 1611.01576): T steps, B sequences, C input features,
H hidden units, K kernel width, D directions (2 if bidirectional, else 1). Arrays are time-major
NumPy arrays of float32 or float64; a bfloat16 placement gets float32 arrays whose values are
bfloat16 numbers already.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import numpy as np

Arrays = Mapping[str, np.ndarray]
Kind = Literal["forward", "backward", "train_step", "step"]
Dtype = Literal["float32", "float64", "bfloat16"]
Pooling = Literal["f", "fo", "ifo"]

KINDS: tuple[str, ...] = get_args(Kind)
DTYPES: tuple[str, ...] = get_args(Dtype)
POOLINGS: tuple[str, ...] = get_args(Pooling)
ZONEOUT_MODES = ("keep", "literal")
ZONEOUT_EVALS = ("off", "expectation")
PARTS = ("gemm", "pooling")
"""Parts of a layer that an implementation may offer to be timed alone, see `impls.parts`."""
STREAMS = {"fwd": 0, "rev": 1, "dec": 2}
"""Stream number of the zoneout mask by direction: direction + 2 * network. "dec" is forward in time
like "fwd", in the decoder of an encoder-decoder (network 1)."""
GATES = {"f": ("z", "f"), "fo": ("z", "f", "o"), "ifo": ("z", "f", "o", "i")}
CONV_GATES = ("z", "o")
"""A gated convolution has the QRNN's candidate and output gate, and nothing between the two."""
LEARNING_RATE = 1e-3
"""Step size of the plain SGD inside a `train_step`."""


class SpecError(ValueError):
    """A description that names nothing: says what was given, what is allowed and what to do."""


def check_word(name: str, value: object, allowed: tuple[str, ...]) -> None:
    """Raise SpecError where `value` is none of the words `allowed`."""
    if value not in allowed:
        raise SpecError(f"{name} = {value!r}: allowed are {', '.join(map(repr, allowed))}")


def _positive(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise SpecError(f"{name} = {value!r}: give a whole number of at least 1")


@dataclass(frozen=True)
class ModelSpec:
    """What is computed. Every field may be an axis of a grid or a change of an ablation.

    `family` is "qrnn", "lstm", "conv" (gated causal convolution), "attention" (causal pre-norm
    Transformer encoder) or a family that a foreign implementation brings; the fields that a
    family does not know (an LSTM's `pooling`, say) are ignored by it. Only "conv" knows `dilated`
    (layer l looks back in strides of 2**l), only "attention" knows `heads`.

    Raises:
        SpecError: a size below 1, an unknown word, or a zoneout outside [0, 1).
    """

    family: str = "qrnn"
    input_size: int = 256
    hidden_size: int = 256
    layers: int = 1
    kernel_width: int = 2
    pooling: Pooling = "fo"
    zoneout: float = 0.0
    zoneout_mode: Literal["keep", "literal"] = "keep"
    zoneout_eval: Literal["off", "expectation"] = "off"
    dense: bool = False
    bidirectional: bool = False
    dilated: bool = False
    heads: int = 4

    def __post_init__(self) -> None:
        for name in ("input_size", "hidden_size", "layers", "kernel_width", "heads"):
            _positive(name, getattr(self, name))
        check_word("pooling", self.pooling, POOLINGS)
        check_word("zoneout_mode", self.zoneout_mode, ZONEOUT_MODES)
        check_word("zoneout_eval", self.zoneout_eval, ZONEOUT_EVALS)
        number = isinstance(self.zoneout, (int, float)) and not isinstance(self.zoneout, bool)
        if not number or not 0.0 <= self.zoneout < 1.0:
            raise SpecError(f"zoneout = {self.zoneout!r}: give a probability in [0, 1)")
        for name in ("dense", "bidirectional", "dilated"):
            if not isinstance(getattr(self, name), bool):
                raise SpecError(f"{name} = {getattr(self, name)!r}: give true or false")

    @property
    def gates(self) -> tuple[str, ...]:
        """Gates of a QRNN or a convolution in their fused order, e.g. ("z", "f", "o")."""
        return CONV_GATES if self.family == "conv" else GATES[self.pooling]

    @property
    def directions(self) -> tuple[str, ...]:
        """Words of parameter names: ("fwd",) or ("fwd", "rev")."""
        return ("fwd", "rev") if self.bidirectional else ("fwd",)

    @property
    def output_size(self) -> int:
        """Features of one output step: D * H."""
        return len(self.directions) * self.hidden_size

    def dilation(self, layer: int) -> int:
        """Steps between two taps of `layer`: 2**layer where `dilated`, else 1."""
        return 2**layer if self.dilated and self.family == "conv" else 1

    def window_size(self, layer: int) -> int:
        """Inputs before the current step that `layer` looks back to: (K - 1) * dilation."""
        return (self.kernel_width - 1) * self.dilation(layer)

    def layer_input_size(self, layer: int) -> int:
        """Features that `layer` sees: C, then D*H, or C + layer*D*H with dense connections."""
        if layer == 0:
            return self.input_size
        if self.dense:
            return self.input_size + layer * self.output_size
        return self.output_size


@dataclass(frozen=True)
class Placement:
    """Where and in which number format the work runs; the recurrent state stays float32 at least.

    Raises:
        SpecError: an unknown device or dtype.
    """

    device: str = "cpu"
    dtype: Dtype = "float32"

    def __post_init__(self) -> None:
        check_word("device", self.device, ("cpu", "cuda"))
        check_word("dtype", self.dtype, DTYPES)


@dataclass(frozen=True)
class Work:
    """One repeatable unit of work; the clock and the equivalence tests get the same ones.

    Attributes:
        kind: "forward" (no gradients recorded), "backward" (forward with recording, then all
            gradients of `dy` and `dstate`), "train_step" (loss, gradients, one SGD step in
            place) or "step" (one time step, T = 1, with the state in and out).
        x: [T, B, C].
        lengths: [B] int64 with 1 <= length <= T, or None where every sequence is T long.
        state: the functional carry, names of `impls.params.state_shapes`, plus "t0" (steps
            already processed, scalar or [B]); what is absent starts at zero.
        seed: 64-bit seed of the zoneout mask; None = evaluation.
        rows: [B] row of the zoneout mask that each sequence uses; None = arange(B).
        dy: [T, B, D*H] gradient of the output, for "backward".
        dstate: gradients of the final state by state name; what is absent is zero.
        target: [T, B, D*H], for "train_step".

    Raises:
        SpecError: a shape or a length that does not fit.
    """

    kind: Kind
    x: np.ndarray
    lengths: np.ndarray | None = None
    state: Arrays = field(default_factory=dict)
    seed: int | None = None
    rows: np.ndarray | None = None
    dy: np.ndarray | None = None
    dstate: Arrays = field(default_factory=dict)
    target: np.ndarray | None = None

    def __post_init__(self) -> None:
        check_word("kind", self.kind, KINDS)
        if self.x.ndim != 3 or min(self.x.shape) < 1:
            raise SpecError(f"x has shape {self.x.shape}: give [T, B, C], each at least 1")
        steps, batch, _ = self.x.shape
        if self.kind == "step" and steps != 1:
            raise SpecError(f"kind 'step' takes one time step, x has {steps}")
        if self.lengths is not None:
            bad = self.lengths.shape != (batch,) or not np.all(
                (self.lengths >= 1) & (self.lengths <= steps)
            )
            if bad:
                raise SpecError(f"lengths = {self.lengths}: give {batch} numbers in 1..{steps}")
        if self.kind == "backward" and self.dy is None:
            raise SpecError("kind 'backward' needs dy [T, B, D*H]")
        if self.kind == "train_step" and self.target is None:
            raise SpecError("kind 'train_step' needs target [T, B, D*H]")
        for name in ("dy", "target"):
            value = getattr(self, name)
            if value is not None and value.shape[:2] != (steps, batch):
                raise SpecError(f"{name} has shape {value.shape}: give [{steps}, {batch}, ...]")


@runtime_checkable
class Run(Protocol):
    """The work on its device, compiled and warm."""

    def __call__(self) -> None:
        """Do it once more; may only enqueue."""

    def wait(self) -> None:
        """Return when everything enqueued is done."""

    def result(self) -> dict[str, np.ndarray]:
        """Results as float32/float64 arrays, never inside the clock.

        forward and step: `y` and `state.<name>` (with `state.t0` [B] for a QRNN). backward:
        these, and `grad.x`, `grad.<parameter>`, `grad.state.<name>`. train_step: `loss`, of the
        first call.
        """


@runtime_checkable
class Session(Protocol):
    """One network that owns its parameters."""

    def prepare(self, work: Work) -> Run:
        """Transfer and compile; never timed."""

    def export(self) -> dict[str, np.ndarray]:
        """The parameters by canonical name; after a train_step, those after its first call."""

    # A session may also have `precision: str | None`, the words of its framework's own setting for
    # float32 products on an accelerator ("ieee", "tf32"); read after `prepare`.


@dataclass(frozen=True)
class Implementation:
    """The card of an implementation; making one imports no framework.

    Attributes:
        name: unique, lower case with underscores, e.g. "torch_eager".
        about: one line for `quasibench list`.
        requires: modules that must be importable, e.g. ("torch",).
        unsupported: a reason why this spec cannot run on this placement, or None.
        load: builds the session from canonical parameters; the only place that imports the
            framework.
        family: the ModelSpec.family it computes.
        init: `(spec, seed) -> Arrays`, for a family that `impls.params` does not know.
        core: returns the recurrent layer as one differentiable function (see `impls._torch`
            and `impls._jax`), for use inside whole networks; None = speed and conformance only.
        lacking: one line on what to install where something else than a module is missing (a
            compiler, say), or None; asked only where all of `requires` can be imported.
        shares: further folders of `impls` whose content it runs, e.g. ("kernels",).
        compiles: preparing one work takes many seconds to minutes; `contenders = "all"` of a
            profile leaves it out unless the profile says `compile = true`.
        capture: on CUDA, the same session with Runs that replay a CUDA graph of what the plain
            Run does; None = it has no such mode.
        algorithm: which of its library's algorithms a work will get, from its sizes alone, or
            None where there is no choice to name; None = it never has one.
        parts: by name of PARTS, `(spec, params, placement, work) -> Run` of that part of the layer
            alone, on the inputs that `impls.parts` makes of the work; for kinds forward and
            backward of one layer in one direction.
        trainer: `(net, params, optimiser, placement) -> Trainer` (see `impls.training`): whole
            networks by a foreign framework's own means; cards with a core need none.
    """

    name: str
    about: str
    requires: tuple[str, ...]
    unsupported: Callable[[ModelSpec, Placement], str | None]
    load: Callable[[ModelSpec, Arrays, Placement], Session]
    family: str = "qrnn"
    init: Callable[[ModelSpec, int], Arrays] | None = None
    core: Callable[[], Any] | None = None
    lacking: Callable[[], str | None] | None = None
    shares: tuple[str, ...] = ()
    compiles: bool = False
    capture: Callable[[Session], Session] | None = None
    algorithm: Callable[[ModelSpec, Placement, Work], str | None] | None = None
    parts: Mapping[str, Callable[[ModelSpec, Arrays, Placement, Work], Run]] = field(
        default_factory=dict, hash=False
    )
    trainer: Callable[..., Any] | None = None


ADDED_LATER = ("dilated", "heads")
"""Fields that rows recorded before 2026-11-22 lack; they stand for the default there."""


def spec_fields() -> tuple[str, ...]:
    """Names of ModelSpec's fields, in order: the columns of a row and the keys of a TOML grid."""
    return tuple(f.name for f in fields(ModelSpec))
