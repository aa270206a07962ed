"""What is compiled: a work as one pure function of parameters and inputs, and its executable.

Parameters and inputs are arguments, so nothing is folded at compile time. An executable is
compiled ahead of time and called with flat arguments: that is the cheapest call JAX has, and it
needs no float64 switch around it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from impls._jax.arrays import device_of, format_of
from impls._jax.ops import valid_steps, where_valid
from impls._jax.stack import Core, stack
from impls.contract import LEARNING_RATE, ModelSpec, Placement

Tree = Any
"""Nested dicts, tuples and None around JAX arrays."""


@dataclass(frozen=True)
class Program:
    """One kind of work of one network; two equal programs share their executables."""

    kind: str
    core: Core
    spec: ModelSpec
    placement: Placement

    def __call__(self, params: Tree, inputs: Tree) -> dict[str, jax.Array]:
        """Results by name; for a train_step the new parameters and "loss"."""
        if self.kind == "train_step":
            return self._train_step(params, inputs)
        if self.kind == "backward":
            return self._backward(params, inputs)
        return _named(*self._network(params, inputs["x"], inputs["state"], inputs))

    def format(self, name: str) -> np.dtype:
        """Weights and windows in the I/O format, biases and carried states wide."""
        return format_of(self.placement, name)

    def _network(self, params: Tree, x: jax.Array, state: Tree, inputs: Tree) -> Tree:
        lengths, mask = inputs["lengths"], inputs["mask"]
        return stack(self.core, self.spec, params, x, state, lengths, mask)

    def _backward(self, params: Tree, inputs: Tree) -> dict[str, jax.Array]:
        plain = inputs["dstate"] is None

        def differentiable(params: Tree, x: jax.Array, state: Tree) -> Tree:
            y, last = self._network(params, x, state, inputs)
            return (y if plain else (y, last)), (y, last)

        at = params, inputs["x"], inputs["state"]
        _, pull, results = jax.vjp(differentiable, *at, has_aux=True)
        dparams, dx, dinitial = pull(inputs["dy"] if plain else (inputs["dy"], inputs["dstate"]))
        grads = {"x": dx} | dparams | {f"state.{name}": d for name, d in dinitial.items()}
        return _named(*results) | {f"grad.{name}": value for name, value in grads.items()}

    def _train_step(self, masters: Tree, inputs: Tree) -> dict[str, jax.Array]:
        x, target, lengths = inputs["x"], inputs["target"], inputs["lengths"]
        valid = None if lengths is None else valid_steps(lengths, x.shape[0])
        steps = x.shape[0] * x.shape[1] if lengths is None else jnp.sum(lengths)

        def loss_of(masters: Tree) -> jax.Array:
            rounded = {name: value.astype(self.format(name)) for name, value in masters.items()}
            y, _ = self._network(rounded, x, inputs["state"], inputs)
            error = where_valid(valid, y.astype(target.dtype) - target)
            size = jnp.asarray(steps, target.dtype) * target.shape[2]
            return 0.5 * jnp.sum(error * error) / size

        loss, grads = jax.value_and_grad(loss_of)(masters)
        stepped = {name: value - LEARNING_RATE * grads[name] for name, value in masters.items()}
        return stepped | {"loss": loss}


def _named(y: jax.Array, state: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    return {"y": y} | {f"state.{name}": value for name, value in state.items()}


def copied(params: Tree) -> dict[str, jax.Array]:
    """A program too: the same parameters in memory of their own."""
    return {name: jnp.copy(value) for name, value in params.items()}


class Executable:
    """A compiled program with the leaves of its arguments, in the order that it takes them."""

    def __init__(
        self,
        program: Callable[..., dict[str, jax.Array]],
        placement: Placement,
        *args: Tree,
        donate: bool = False,
    ) -> None:
        """`donate`: the first argument's memory is taken over by results of the same shapes."""
        self.leaves, tree = jax.tree.flatten(args)
        given = len(jax.tree.leaves(args[0])) if donate else 0
        kinds = tuple((leaf.shape, leaf.dtype) for leaf in self.leaves)
        self.call, self.names = _compiled(program, placement, tree, kinds, given)


@lru_cache(maxsize=64)
def _compiled(
    program: Callable[..., dict[str, jax.Array]],
    placement: Placement,
    tree: Any,
    kinds: tuple[tuple[tuple[int, ...], np.dtype], ...],
    given: int,
) -> tuple[Callable[..., list[jax.Array]], tuple[str, ...]]:
    """The executable and its results' names, kept because chunks of a stream ask again."""
    names: list[str] = []

    def flat(*leaves: jax.Array) -> tuple[jax.Array, ...]:
        named = program(*jax.tree.unflatten(tree, leaves))
        names.extend(named)
        return tuple(named.values())

    place = jax.sharding.SingleDeviceSharding(device_of(placement))
    leaves = [jax.ShapeDtypeStruct(shape, dtype, sharding=place) for shape, dtype in kinds]
    compiled = jax.jit(flat, donate_argnums=tuple(range(given))).lower(*leaves).compile()
    return compiled, tuple(names)
