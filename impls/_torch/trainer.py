"""Trainers: a network around any core, with its optimiser, its carried states and snapshots."""

from __future__ import annotations

import importlib

import numpy as np
import torch
from torch import Tensor

from impls._torch.arrays import to_numpy, to_tensor
from impls._torch.flat import FlatParameters
from impls._torch.heads import loss
from impls._torch.nets import Feed, feed, forward
from impls._torch.optimisers import Descent
from impls._torch.stack import Core, Mask
from impls.batches import ready
from impls.contract import Arrays, Placement, SpecError
from impls.nets import NetSpec, OptimiserSpec
from impls.snapshots import CARRIED, IDENTITY, carried_states, check_identity, identity
from impls.training import Batch, Seeds, Trainer

State = dict[str, Tensor]


def make(
    core: Core, net: NetSpec, params: Arrays, optimiser: OptimiserSpec, placement: Placement
) -> Trainer:
    """A trainer of `net` around `core`; head "seq2seq" has a translator.

    Raises:
        SpecError: parameters of another network.
    """
    if net.head == "seq2seq":
        package = importlib.import_module("impls._torch.translator")
        translator: Trainer = package.make(core, net, params, optimiser, placement)
        return translator
    return NetTrainer(core, net, params, optimiser, placement)


class BaseTrainer:
    """What trainers share: parameters, optimiser, the last loss, export and snapshots."""

    def __init__(
        self,
        core: Core,
        net: NetSpec,
        params: Arrays,
        optimiser: OptimiserSpec,
        placement: Placement,
    ) -> None:
        self._core, self._net = core, net
        self._params = FlatParameters(net, params, placement)
        self._descent = Descent(optimiser, self._params)
        self._identity = identity("torch", net, optimiser, placement.dtype)
        self._loss: Tensor | None = None
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
        named = self._params.canonical(self._params.master)
        return {name: to_numpy(value).copy() for name, value in named.items()}

    def snapshot(self) -> dict[str, np.ndarray]:
        """Everything that the next `step` depends on."""
        states = {f"{CARRIED}{n}": to_numpy(t).copy() for n, t in self._carried.items()}
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

    def _state(self, name: str, value: np.ndarray) -> Tensor:
        """A carried state on the device in its own format."""
        params = self._params
        dtype = params.dtype if name.endswith(".window") else params.master.dtype
        return to_tensor(value, torch.int64 if name == "t0" else dtype, params.device)

    def _mask(self, batch: Batch, seed: int, t0: Tensor | None = None) -> Mask | None:
        """The zoneout mask of a training step, where there is one; t0 None = from step 0."""
        if not self._net.core.zoneout:
            return None
        rows = np.arange(batch.inputs.shape[1]) if batch.rows is None else batch.rows
        places = to_tensor(rows, torch.int64, self._params.device)
        return seed, places, torch.zeros_like(places) if t0 is None else t0


class NetTrainer(BaseTrainer):
    """A trainer of the heads "sequence" and "steps"."""

    def step(self, batch: Batch, seeds: Seeds) -> None:
        """One optimiser step on the mean loss of the batch.

        Raises:
            SpecError: a batch that does not fit the network.
        """
        given, state = self._begin(batch, self._carried)
        mask = self._mask(batch, seeds.zoneout, state.get("t0"))
        outputs, finals = forward(
            self._core, self._net, self._params, given, state, mask, seeds.dropout
        )
        mean = loss(self._net, outputs, given.targets, given.weights)
        self._descent.step(mean)
        self._loss = mean.detach()
        self._carried = self._end(given, state, finals)

    def outputs(self, batch: Batch) -> np.ndarray:
        """Logits or values of evaluation, float32 (float64 for float64), [B, O] or [T, B, O].

        Raises:
            SpecError: a batch that does not fit the network.
        """
        with torch.inference_mode():
            given, state = self._begin(batch, self._evaluated)
            outputs, finals = forward(self._core, self._net, self._params, given, state)
            self._evaluated = self._end(given, state, finals)
        return to_numpy(outputs)

    def _begin(self, batch: Batch, carried: State) -> tuple[Feed, State]:
        """The batch on the device and the states that it starts from."""
        given = feed(self._net, ready(self._net, batch), self._params)
        if not batch.carry or not carried:
            return given, {}
        rows, known = given.inputs.shape[1], len(carried["t0"])
        if rows != known:
            raise SpecError(f"carry = True: {rows} sequences cannot continue {known}")
        return given, carried

    def _end(self, given: Feed, state: State, finals: State) -> State:
        """The states after a batch, cut from its graph, with the counter t0."""
        steps, rows = given.inputs.shape[:2]
        if self._net.core.bidirectional:
            return {}
        passed = given.lengths
        if passed is None:
            passed = torch.full((rows,), steps, device=given.inputs.device)
        t0 = state["t0"] + passed if state else passed
        return {name: value.detach() for name, value in finals.items()} | {"t0": t0}
