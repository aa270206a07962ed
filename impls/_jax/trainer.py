"""Trainers of whole networks: one compiled, donated step per batch shape."""

from __future__ import annotations

import importlib
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import numpy as np

from impls import batches, net_params
from impls._jax import optimisers
from impls._jax.arrays import (
    device_of,
    dtype_of,
    format_of,
    numbers_of,
    state_dtype,
    to_device,
    to_numpy,
)
from impls._jax.nets import Given, Network, Wanted
from impls._jax.stack import Core
from impls._jax.zoneout import words
from impls.contract import Arrays, Placement, SpecError
from impls.nets import Batch, NetSpec, OptimiserSpec, Seeds, Trainer
from impls.params import state_shapes
from impls.reference.philox import key_of

Tree = Any
"""Nested dicts, tuples and None around JAX arrays."""


class Carry(NamedTuple):
    """Where the batch before ended: states by name, and t0 [B], the steps already processed."""

    states: dict[str, jax.Array]
    t0: np.ndarray


class Programs(NamedTuple):
    """What is compiled, once for each shape of batch."""

    begin: Any
    step: Any
    outputs: Any


@lru_cache(maxsize=64)
def programs(network: Network, optimiser: OptimiserSpec, placement: Placement) -> Programs:
    """The functions of all trainers that differ only in values, learning rate included.

    Args:
        optimiser: with learning_rate 1.

    Raises:
        SpecError: optax is not installed.
    """
    change = optimisers.chain(optimiser)

    def rounded(masters: Tree) -> Tree:
        return {n: v.astype(format_of(placement, n)) for n, v in masters.items()}

    def step(
        masters: Tree, state: Tree, given: Given, wanted: Wanted, learning_rate: jax.Array
    ) -> Tree:
        def loss_of(masters: Tree) -> Tree:
            return network.loss(rounded(masters), given, wanted)

        (loss, final), grads = jax.value_and_grad(loss_of, has_aux=True)(masters)
        updates, state = change.update(grads, state, masters)
        masters = {n: value - learning_rate * updates[n] for n, value in masters.items()}
        return masters, state, final, loss

    def outputs(masters: Tree, given: Given) -> Tree:
        return network(rounded(masters), given)

    return Programs(jax.jit(change.init), jax.jit(step, donate_argnums=(0, 1)), jax.jit(outputs))


class NetTrainer:
    """A trainer (`impls.nets.Trainer`) of heads "sequence" and "steps"."""

    def __init__(
        self,
        core: Core,
        net: NetSpec,
        params: Arrays,
        optimiser: OptimiserSpec,
        placement: Placement,
    ) -> None:
        """Copy the parameters to the placement's device; nothing is compiled yet.

        Raises:
            SpecError: parameters of another network, or optax is not installed.
            RuntimeError: no such device here.
        """
        net_params.check(net, dict(params))
        self._net, self._placement = net, placement
        self._device, self._dtype = device_of(placement), dtype_of(placement)
        self._wide = state_dtype(self._dtype)
        one = replace(optimiser, learning_rate=1.0)
        self._programs = programs(Network(core, net), one, placement)
        with numbers_of(placement):
            self._masters = {n: self._put(v, self._wide) for n, v in params.items()}
            # Placed by hand: zeros that jit has put somewhere by itself count as another kind of
            # argument, and the second step would be compiled again.
            self._state = jax.device_put(self._programs.begin(self._masters), self._device)
            self._rate = self._put(np.asarray(optimiser.learning_rate), self._wide)
        self._starts: dict[int, dict[str, jax.Array]] = {}
        self._loss: jax.Array | None = None
        self._trained: Carry | None = None
        self._evaluated: Carry | None = None

    def step(self, batch: Batch, seeds: Seeds) -> None:
        """One optimiser step; enqueued."""
        with numbers_of(self._placement):
            given, end = self._given(batch, self._trained, seeds)
            wanted = self._wanted(batch)
            self._masters, self._state, final, self._loss = self._programs.step(
                self._masters, self._state, given, wanted, self._rate
            )
            self._trained = Carry(final, end)

    def loss(self) -> float:
        """Mean loss of the last step's batch, before that step; waits for it."""
        if self._loss is None:
            raise SpecError("no step has been taken yet: call step() before loss()")
        return float(self._loss)

    def outputs(self, batch: Batch) -> np.ndarray:
        """Evaluation: float32 logits or values, [B, O] or [T, B, O]."""
        with numbers_of(self._placement):
            given, end = self._given(batch, self._evaluated, None)
            values, final = self._programs.outputs(self._masters, given)
            self._evaluated = Carry(final, end)
        return np.array(values, dtype=np.float32)

    def export(self) -> dict[str, np.ndarray]:
        """The parameters by canonical name."""
        return {name: to_numpy(value) for name, value in self._masters.items()}

    def snapshot(self) -> dict[str, np.ndarray]:
        """Parameters, optimiser state and carried states, each under a name of its own."""
        found = _named({"params": self._masters, "optimiser": self._state})
        if self._trained is not None:
            found |= _named({"carry": self._trained.states}) | {"carry.t0": self._trained.t0}
        return {name: np.array(value) for name, value in found.items()}

    def restore(self, snapshot: Arrays) -> None:
        """Go on exactly where `snapshot` was taken."""
        tree = {"params": self._masters, "optimiser": self._state}
        t0 = snapshot.get("carry.t0")
        if t0 is not None:
            tree |= {"carry": self._zeros(np.size(t0))}
        likes = _named(tree)
        given = {name: value for name, value in snapshot.items() if name != "carry.t0"}
        found = {name: (np.shape(v), np.asarray(v).dtype) for name, v in given.items()}
        wanted = {name: (v.shape, v.dtype) for name, v in likes.items()}
        if found != wanted:
            differ = sorted({*found} ^ {*wanted}) or [n for n in wanted if found[n] != wanted[n]]
            raise SpecError(
                f"a snapshot of another network or optimiser; it differs in {', '.join(differ[:3])}"
            )
        with numbers_of(self._placement):
            leaves = [self._put(given[name], like.dtype) for name, like in likes.items()]
            tree = jax.tree.unflatten(jax.tree.structure(tree), leaves)
        self._masters, self._state = tree["params"], tree["optimiser"]
        self._trained = None if t0 is None else Carry(tree["carry"], np.array(t0, np.int64))

    def _put(self, array: np.ndarray, dtype: Any) -> jax.Array:
        return to_device(array, np.dtype(dtype), self._device)

    def _zeros(self, batch: int) -> dict[str, jax.Array]:
        """States at the start of sequences; never donated, so the same ones serve every batch."""
        if batch not in self._starts:
            with numbers_of(self._placement):
                self._starts[batch] = {
                    name: self._put(np.zeros(shape), format_of(self._placement, name))
                    for name, shape in state_shapes(self._net.core, batch).items()
                }
        return self._starts[batch]

    def _begin(self, batch: Batch, before: Carry | None) -> Carry:
        """Where this batch starts: at zero, or where the one before ended."""
        size = batch.inputs.shape[1]
        if not batch.carry or before is None:
            return Carry(self._zeros(size), np.zeros(size, np.int64))
        if self._net.core.bidirectional:
            raise SpecError("carry = True: a bidirectional stack has no state to carry on")
        if len(before.t0) != size:
            raise SpecError(
                f"carry = True: this batch has {size} sequences, the one before had "
                f"{len(before.t0)}; give as many"
            )
        return before

    def _given(
        self, batch: Batch, before: Carry | None, seeds: Seeds | None
    ) -> tuple[Given, np.ndarray]:
        """The batch's inputs on the device, and t0 [B] after it."""
        net = self._net
        batches.check(net, batch)
        steps, size = batch.inputs.shape[:2]
        begin = self._begin(batch, before)
        tokens = net.inputs == "tokens"
        inputs = self._put(batch.inputs, np.int32 if tokens else self._dtype)
        lengths = None if batch.lengths is None else self._put(batch.lengths, np.int32)
        mask = dropout = None
        if seeds is not None and net.core.zoneout > 0 and net.core.family == "qrnn":
            rows = np.arange(size) if batch.rows is None else batch.rows
            parts = key_of(seeds.zoneout), words(rows)[0], words(begin.t0)
            mask = tuple(self._put(part, np.uint32) for part in parts)
        if seeds is not None and (net.dropout > 0 or net.dropout_input > 0):
            dropout = self._put(words(seeds.dropout), np.uint32)
        end = begin.t0 + (steps if batch.lengths is None else batch.lengths)
        return Given(inputs, begin.states, lengths, mask, dropout), end

    def _wanted(self, batch: Batch) -> Wanted:
        symbols = self._net.loss == "cross_entropy"
        targets = self._put(batch.targets, np.int32 if symbols else self._wide)
        weights = None if batch.weights is None else self._put(batch.weights, self._wide)
        return Wanted(targets, weights)


def _named(tree: Tree) -> dict[str, jax.Array]:
    """The leaves by their paths, "optimiser.1.mu.head.bias"."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def make(
    core: Core, net: NetSpec, params: Arrays, optimiser: OptimiserSpec, placement: Placement
) -> Trainer:
    """A trainer of `net` around a core.

    Raises:
        SpecError: parameters of another network, or optax is not installed.
        RuntimeError: no such device here.
    """
    if net.head == "seq2seq":
        translator = importlib.import_module("impls._jax.translator")
        made: Trainer = translator.make(core, net, params, optimiser, placement)
        return made
    return NetTrainer(core, net, params, optimiser, placement)
