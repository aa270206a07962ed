"""Sessions: a network that is prepared for works, all transfers outside the clock."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from impls._torch.arrays import (
    device_of,
    dtype_of,
    precision_of,
    state_dtype,
    to_numpy,
    to_tensor,
)
from impls._torch.network import CoreNetwork, Network
from impls._torch.runs import BackwardRun, ForwardRun, Inputs, TrainRun
from impls._torch.stack import Core, zero_state
from impls.contract import Arrays, ModelSpec, Placement, SpecError, Work
from impls.params import stream_hindrance


class NetworkSession:
    """A session around a network; a training run gets a network of its own."""

    def __init__(
        self, make: Callable[[bool], Network], spec: ModelSpec, placement: Placement
    ) -> None:
        """`make(ragged)` builds the network, for works with or without lengths."""
        self._make, self._spec = make, spec
        self._device, self._dtype = device_of(placement), dtype_of(placement)
        self.precision = precision_of(placement)
        self._networks = {False: make(False)}
        self._trained: TrainRun | None = None

    def prepare(self, work: Work) -> ForwardRun | BackwardRun | TrainRun:
        """Move a work to the device.

        Raises:
            SpecError: a kind, a feature number or a state name that this spec does not have.
            NotImplementedError: a step of a family that carries no state.
        """
        self._check(work)
        ragged = work.lengths is not None
        if work.kind == "train_step":
            network = self._make(ragged)
            target = self._tensor(work.target, state_dtype(self._dtype))
            valid = None
            if work.lengths is not None:
                steps = np.arange(len(work.x))[:, None] < work.lengths
                valid = self._tensor(steps[..., None], torch.bool)
            inputs = self._inputs(network, work)
            self._trained = TrainRun(self._served(network), inputs, target, valid)
            return self._trained
        if ragged not in self._networks:
            self._networks[ragged] = self._make(ragged)
        network = self._networks[ragged]
        inputs, network = self._inputs(network, work), self._served(network)
        if work.kind != "backward":
            return ForwardRun(network, inputs)
        dstate = {n: self._tensor(v, inputs.state[n].dtype) for n, v in work.dstate.items()}
        return BackwardRun(network, inputs, self._tensor(work.dy, self._dtype), dstate)

    def export(self) -> dict[str, np.ndarray]:
        """Canonical parameters; after a train_step, those after its first call."""
        trained = None if self._trained is None else self._trained.parameters()
        if trained is not None:
            return trained
        network = self._networks[False]
        tensors = network.canonical(network.leaves)
        return {name: to_numpy(tensor).copy() for name, tensor in tensors.items()}

    def _served(self, network: Network) -> Network:
        """The network as one run calls it."""
        return network

    def _tensor(self, array: np.ndarray | None, dtype: torch.dtype) -> Tensor:
        assert array is not None  # Work holds what its kind needs
        return to_tensor(array, dtype, self._device)

    def _check(self, work: Work) -> None:
        spec = self._spec
        if work.kind == "step" and spec.bidirectional:
            raise SpecError("kind 'step' is not defined on a bidirectional spec: use 'forward'")
        if work.kind == "step" and (reason := stream_hindrance(spec)):
            raise NotImplementedError(f"kind 'step': {reason}")
        if work.x.shape[2] != spec.input_size:
            raise SpecError(
                f"x has {work.x.shape[2]} features, the spec has input_size {spec.input_size}"
            )

    def _inputs(self, network: Network, work: Work) -> Inputs:
        steps, batch, _ = work.x.shape
        x = self._tensor(work.x, self._dtype)
        state = zero_state(self._spec, x)
        for what, given in (("state", work.state), ("dstate", work.dstate)):
            unknown = sorted(set(given) - set(state) - {"t0"})
            if unknown:
                known = f"only {', '.join(state)}" if state else "none"
                raise SpecError(f"{what} {unknown[0]!r}: this spec has {known}")
            for name in set(given) & set(state):
                if np.shape(given[name]) != state[name].shape:
                    shape, wanted = np.shape(given[name]), tuple(state[name].shape)
                    raise SpecError(f"{what} {name!r} has shape {shape}: give {wanted}")
        for name, zeros in state.items():
            if name in work.state:
                state[name] = self._tensor(work.state[name], zeros.dtype)
        lengths = mask = end = None
        if work.lengths is not None:
            lengths = to_tensor(work.lengths, torch.int64, network.lengths_device)
        if self._spec.family == "qrnn":
            t0 = np.broadcast_to(np.asarray(work.state.get("t0", 0), dtype=np.int64), (batch,))
            rows = np.arange(batch) if work.rows is None else work.rows
            if work.seed is not None:
                places_of_mask = (self._tensor(array, torch.int64) for array in (rows, t0))
                mask = (work.seed, *places_of_mask)
            end = t0 + (steps if work.lengths is None else work.lengths)
        return Inputs(x, state, lengths, mask, end)


class CoreSession(NetworkSession):
    """A session whose network is a stack of one recurrent core."""

    def __init__(self, core: Core, spec: ModelSpec, params: Arrays, placement: Placement) -> None:
        super().__init__(lambda _: CoreNetwork(core, spec, params, placement), spec, placement)
