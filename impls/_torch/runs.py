"""Runs, one per kind of work: what the clock calls, and the results outside it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.fx.experimental.symbolic_shapes  # autograd.grad imports it on its first call, for 2 s
from torch import Tensor

from impls._torch.arrays import synchronize, to_numpy
from impls._torch.network import Network
from impls._torch.stack import Mask, Tensors
from impls.contract import LEARNING_RATE

RESTORE_AFTER = 100
"""Calls of a train_step after which `reset` puts the first parameters back."""


@dataclass(frozen=True)
class Inputs:
    """A work's arrays on the device, complete: no state is absent."""

    x: Tensor
    state: dict[str, Tensor]
    lengths: Tensor | None
    mask: Mask | None
    end: np.ndarray | None
    """[B], the counter t0 after this work; None for a family that has none."""

    def outputs(self, network: Network) -> tuple[Tensor, dict[str, Tensor]]:
        """y and the final states of one pass."""
        return network(self.x, self.state, self.lengths, self.mask)

    def results(self, y: Tensor, state: Tensors) -> dict[str, np.ndarray]:
        """y and the final states under the keys of `Run.result`."""
        out = {"y": to_numpy(y)} | {f"state.{name}": to_numpy(t) for name, t in state.items()}
        return out if self.end is None else out | {"state.t0": self.end.copy()}


class ForwardRun:
    """Kinds forward and step: no gradient is recorded."""

    def __init__(self, network: Network, inputs: Inputs) -> None:
        self._network, self._inputs = network, inputs
        self._out: tuple[Tensor, Tensors] | None = None

    def __call__(self) -> None:
        self._out = None  # so that its memory can be used again
        with torch.inference_mode():
            self._out = self._inputs.outputs(self._network)

    def rehearse(self) -> None:
        """One pass whose results are forgotten: what compiles on its first call does so now."""
        self()
        self._out = None

    def written(self) -> list[Tensor]:
        """The tensors that the last call made: y and the final states."""
        return [] if self._out is None else [self._out[0], *self._out[1].values()]

    def wait(self) -> None:
        synchronize(self._inputs.x.device)

    def result(self) -> dict[str, np.ndarray]:
        if self._out is None:
            raise RuntimeError("this run has not run yet: call it before result()")
        return self._inputs.results(*self._out)


class BackwardRun:
    """Kind backward: a recorded pass, then every gradient in one call of autograd."""

    def __init__(self, network: Network, inputs: Inputs, dy: Tensor, dstate: Tensors) -> None:
        self._network, self._inputs = network, inputs
        self._dy, self._dstate = dy, dstate
        for tensor in (inputs.x, *inputs.state.values()):
            tensor.requires_grad_()
        self._out: tuple[Tensor, Tensors] | None = None
        self._grads: tuple[Tensor, ...] = ()
        self._wanted = [*network.leaves.values(), inputs.x, *inputs.state.values()]

    def __call__(self) -> None:
        self._out, self._grads = None, ()  # so that their memory can be used again
        y, state = self._inputs.outputs(self._network)
        ends = [y, *(state[name] for name in self._dstate)]
        cotangents = [self._dy, *self._dstate.values()]
        self._grads = torch.autograd.grad(ends, self._wanted, cotangents, materialize_grads=True)
        self._out = y.detach(), {name: value.detach() for name, value in state.items()}

    def rehearse(self) -> None:
        """One pass whose results are forgotten."""
        self()
        self._out, self._grads = None, ()

    def written(self) -> list[Tensor]:
        """The tensors that the last call made: y, the final states and all gradients."""
        out = [] if self._out is None else [self._out[0], *self._out[1].values()]
        return [*out, *self._grads]

    def wait(self) -> None:
        synchronize(self._inputs.x.device)

    def result(self) -> dict[str, np.ndarray]:
        if self._out is None:
            raise RuntimeError("this run has not run yet: call it before result()")
        leaves = self._network.leaves
        own = dict(zip(leaves, self._grads, strict=False))
        dx, *dstate = self._grads[len(leaves) :]
        grads = {"x": dx} | self._network.canonical(own)
        grads |= {f"state.{n}": g for n, g in zip(self._inputs.state, dstate, strict=True)}
        values = {f"grad.{name}": to_numpy(grad) for name, grad in grads.items()}
        return self._inputs.results(*self._out) | values


class TrainRun:
    """Kind train_step: loss, gradients and plain SGD in place, float32 masters for bfloat16."""

    def __init__(
        self, network: Network, inputs: Inputs, target: Tensor, valid: Tensor | None
    ) -> None:
        self._network, self._inputs, self._target = network, inputs, target
        self._padded = None if valid is None else ~valid
        steps = target.shape[0] * target.shape[1] if valid is None else int(valid.sum())
        self._scale = 0.5 / (steps * target.shape[2])
        # Where the leaf is wide enough already, it is its own master.
        self._masters = {n: t.detach().to(target.dtype) for n, t in network.leaves.items()}
        self._initial = {name: value.clone() for name, value in self._masters.items()}
        self._calls = 0
        self._loss: Tensor | None = None
        self._first: tuple[Tensor, dict[str, Tensor]] | None = None

    def __call__(self) -> None:
        self.step()
        self.counted()

    def rehearse(self) -> None:
        """Forward and backward, without a step."""
        self._gradients()

    def _gradients(self) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The loss and its gradients by the leaves."""
        y, _ = self._inputs.outputs(self._network)
        error = y.to(self._target.dtype) - self._target
        if self._padded is not None:
            error = error.masked_fill(self._padded, 0.0)
        loss = self._scale * error.square().sum()
        return loss, torch.autograd.grad(loss, list(self._network.leaves.values()))

    def step(self) -> None:
        """The work itself, without the notes that `counted` takes."""
        self._loss = None  # so that its memory can be used again
        loss, grads = self._gradients()
        with torch.no_grad():
            for master, grad in zip(self._masters.values(), grads, strict=True):
                master.add_(grad, alpha=-LEARNING_RATE)
            self._spread()
        self._loss = loss.detach()

    def counted(self) -> None:
        """Note that a step was made, and what the first one gave."""
        self._calls += 1
        if self._first is None and self._loss is not None:
            copies = {name: value.clone() for name, value in self._masters.items()}
            self._first = self._loss.clone(), copies

    def written(self) -> list[Tensor]:
        """The tensor that the last step made: the loss; the parameters it changes in place."""
        return [] if self._loss is None else [self._loss]

    def _spread(self) -> None:
        """Round the masters into the leaves that are not their own master."""
        for name, leaf in self._network.leaves.items():
            if leaf.dtype != self._masters[name].dtype:
                leaf.copy_(self._masters[name])

    def reset(self) -> None:
        """Put the first parameters back once 100 calls have passed; outside the clock."""
        if self._calls >= RESTORE_AFTER:
            self.restore()

    def restore(self) -> None:
        """Put the first parameters back."""
        with torch.no_grad():
            for name, master in self._masters.items():
                master.copy_(self._initial[name])
            self._spread()
        self._calls = 0

    def wait(self) -> None:
        synchronize(self._inputs.x.device)

    def result(self) -> dict[str, np.ndarray]:
        if self._first is None:
            raise RuntimeError("this train_step has not run yet: call it before result()")
        return {"loss": to_numpy(self._first[0])}

    def parameters(self) -> dict[str, np.ndarray] | None:
        """Canonical parameters after the first call; None before it."""
        if self._first is None:
            return None
        tensors = self._network.canonical(self._first[1])
        return {name: to_numpy(tensor).copy() for name, tensor in tensors.items()}
