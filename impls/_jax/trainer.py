"""Trainers: a network around any core, with its optimiser, its carried states and snapshots."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import numpy as np

from impls._jax.arrays import device_of, format_of, numbers_of, to_device, to_numpy
from impls._jax.heads import loss
from impls._jax.nets import Feed, feed, forward
from impls._jax.optimisers import Descent, Objective, rounded
from impls._jax.stack import Core, Mask, Tensors
from impls._jax.zoneout import words
from impls.batches import ready
from impls.contract import Arrays, Placement, SpecError
from impls.net_params import check
from impls.nets import NetSpec, OptimiserSpec
from impls.params import state_shapes
from impls.reference.philox import key_of
from impls.snapshots import CARRIED, IDENTITY, carried_states, check_identity, identity
from impls.training import Batch, Seeds, Trainer

State = dict[str, Any]
"""Carried states on the device by full name, and "t0", a NumPy array [B] of int64."""


def make(
    core: Core, net: NetSpec, params: Arrays, optimiser: OptimiserSpec, placement: Placement
) -> Trainer:
    """A trainer of `net` around `core`; head "seq2seq" has a translator.

    Raises:
        SpecError: parameters of another network, or optax is not installed.
    """
    if net.head == "seq2seq":
        package = importlib.import_module("impls._jax.translator")
        translator: Trainer = package.make(core, net, params, optimiser, placement)
        return translator
    return NetTrainer(core, net, params, optimiser, placement)


class BaseTrainer:
    """What trainers share: parameters, optimiser, the last loss, export and snapshots."""

    def __init__(
        self,
        net: NetSpec,
        objective: Objective,
        params: Arrays,
        optimiser: OptimiserSpec,
        placement: Placement,
    ) -> None:
        check(net, dict(params))
        self._net, self._placement, self._device = net, placement, device_of(placement)
        self._descent = Descent(optimiser, objective, params, placement)
        self._identity = identity("jax", net, optimiser, placement.dtype)
        self._loss: jax.Array | None = None
        self._carried: State = {}
        self._evaluated: State = {}

    def loss(self) -> float:
        """Mean loss of the last step's batch, before that step; waits for it. May be nan.

        Raises:
            RuntimeError: no step was made since the trainer was made or restored.
        """
        if self._loss is None:
            raise RuntimeError(
                "no step yet since this trainer was made or restored: call step() before loss()"
            )
        return float(self._loss)

    def export(self) -> dict[str, np.ndarray]:
        """The parameters by canonical name."""
        return {name: to_numpy(value) for name, value in self._descent.masters.items()}

    def snapshot(self) -> dict[str, np.ndarray]:
        """Everything that the next `step` depends on."""
        states = {f"{CARRIED}{n}": _host(value) for n, value in self._carried.items()}
        return {IDENTITY: self._identity.copy()} | self._descent.snapshot() | states

    def restore(self, snapshot: Arrays) -> None:
        """Go on exactly where `snapshot` was taken; what evaluation has carried is forgotten.

        Raises:
            SpecError: a damaged snapshot, or one of another network, optimiser or number format.
        """
        check_identity(snapshot, self._identity)
        states = carried_states(snapshot, self._net)
        self._descent.restore(snapshot)
        self._carried = {name: self._state(name, value) for name, value in states.items()}
        self._evaluated, self._loss = {}, None

    def _state(self, name: str, value: np.ndarray) -> Any:
        """A carried state on the device in its own format."""
        if name == "t0":
            return np.array(value, np.int64)
        with numbers_of(self._placement):
            return to_device(value, format_of(self._placement, name), self._device)

    def _mask(self, batch: Batch, seed: int, t0: np.ndarray | None = None) -> Mask | None:
        """The zoneout mask of a training step, where there is one; t0 None = from step 0."""
        if not self._net.core.zoneout:
            return None
        rows = np.arange(batch.inputs.shape[1]) if batch.rows is None else batch.rows
        passed = words(np.zeros_like(rows) if t0 is None else t0)
        return self._words(key_of(seed)), self._words(words(rows)[0]), self._words(passed)

    def _words(self, numbers: np.ndarray) -> jax.Array:
        """uint32 numbers on the device: seeds, rows and counters, never constants of a program."""
        return to_device(numbers, np.dtype(np.uint32), self._device)


def _host(value: jax.Array | np.ndarray) -> np.ndarray:
    return value.copy() if isinstance(value, np.ndarray) else to_numpy(value)


@dataclass(frozen=True)
class MeanLoss:
    """The objective of `NetTrainer`; two equal ones are compiled once."""

    core: Core
    net: NetSpec

    def __call__(
        self,
        params: Tensors,
        given: Feed,
        state: Tensors,
        mask: Mask | None,
        seed: jax.Array | None,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Mean loss of the batch and final states."""
        outputs, finals = forward(self.core, self.net, params, given, state, mask, seed)
        return loss(self.net, outputs, given.targets, given.weights), finals


@lru_cache(maxsize=64)
def _evaluation(core: Core, net: NetSpec, placement: Placement) -> Any:
    """The compiled function of masters, feed and states -> outputs and final states."""

    def evaluate(masters: Tensors, given: Feed, state: Tensors) -> Any:
        return forward(core, net, rounded(masters, placement), given, state)

    return jax.jit(evaluate)


class NetTrainer(BaseTrainer):
    """A trainer of the heads "sequence" and "steps"."""

    def __init__(
        self,
        core: Core,
        net: NetSpec,
        params: Arrays,
        optimiser: OptimiserSpec,
        placement: Placement,
    ) -> None:
        super().__init__(net, MeanLoss(core, net), params, optimiser, placement)
        self._evaluate = _evaluation(core, net, placement)
        self._starts: dict[int, State] = {}

    def step(self, batch: Batch, seeds: Seeds) -> None:
        """One optimiser step on the mean loss of the batch.

        Raises:
            SpecError: a batch that does not fit the network.
        """
        with numbers_of(self._placement):
            given, state = self._begin(batch, self._carried)
            t0 = state.pop("t0")
            mask = self._mask(batch, seeds.zoneout, t0)
            drops = self._net.dropout > 0 or self._net.dropout_input > 0
            seed = self._words(key_of(seeds.dropout)) if drops else None
            self._loss, finals = self._descent.step(given, state, mask, seed)
        self._carried = self._end(batch, t0, finals)

    def outputs(self, batch: Batch) -> np.ndarray:
        """Logits or values of evaluation, float32 (float64 for float64), [B, O] or [T, B, O].

        Raises:
            SpecError: a batch that does not fit the network.
        """
        with numbers_of(self._placement):
            given, state = self._begin(batch, self._evaluated)
            t0 = state.pop("t0")
            outputs, finals = self._evaluate(self._descent.masters, given, state)
        self._evaluated = self._end(batch, t0, finals)
        return to_numpy(outputs)

    def _begin(self, batch: Batch, carried: State) -> tuple[Feed, State]:
        """The batch on the device and the states that it starts from."""
        given = feed(self._net, ready(self._net, batch), self._placement)
        rows = given.inputs.shape[1]
        if not batch.carry or not carried:
            return given, self._start(rows)
        known = len(carried["t0"])
        if rows != known:
            raise SpecError(f"carry = True: {rows} sequences cannot continue {known}")
        return given, dict(carried)

    def _start(self, rows: int) -> State:
        """Zero states; as arguments, so that a batch that carries on is not compiled again."""
        if rows not in self._starts:
            shapes = state_shapes(self._net.core, rows)
            zeros = {name: self._state(name, np.zeros(shape)) for name, shape in shapes.items()}
            self._starts[rows] = zeros | {"t0": np.zeros(rows, np.int64)}
        return dict(self._starts[rows])

    def _end(self, batch: Batch, t0: np.ndarray, finals: State) -> State:
        """The states after a batch, with the counter t0."""
        if self._net.core.bidirectional:
            return {}
        passed = len(batch.inputs) if batch.lengths is None else batch.lengths
        return finals | {"t0": t0 + passed}
