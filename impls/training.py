"""How a network is trained: batches, seeds, and trainers of any framework; one contract.

Shapes: T steps, B sequences, F features, O outputs, U target steps. Everything is time-major.
`impls._torch.trainer` and `impls._jax.trainer` build the same network around any core.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from impls.contract import Arrays, Implementation, Placement, SpecError
from impls.nets import NetSpec, OptimiserSpec

FRAMEWORKS = ("torch", "jax")


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
