"""Optimisers by optax: learning-rate schedules, clipping, one compiled and donated step.

The learning rate is an argument of the step, so that a grid of learning rates shares one compiled
program; the chain of transformations knows only the schedule's share of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from impls._jax.arrays import (
    device_of,
    dtype_of,
    format_of,
    numbers_of,
    state_dtype,
    to_device,
)
from impls._jax.stack import Tensors
from impls.contract import Arrays, Placement, SpecError
from impls.nets import OptimiserSpec
from impls.snapshots import check_arrays

Tree = Any
"""Nested dicts, tuples and None around JAX arrays."""

Objective = Callable[..., tuple[jax.Array, Tree]]
"""objective(params, *args) -> (mean loss, whatever else is wanted of the step).

Hashable and without values of its own: steps of equal objectives are compiled once.
"""


def _optax() -> Any:
    """The library, imported by training alone: no layer needs it.

    Raises:
        SpecError: it is not installed.
    """
    try:
        import optax
    except ModuleNotFoundError as error:
        raise SpecError(
            f"training in JAX needs {error.name}, which is not installed: "
            "pip install 'quasibench[jax]'"
        ) from error
    return optax


def learning_rate(spec: OptimiserSpec, step: int | jax.Array) -> jax.Array:
    """The learning rate of step 0, 1, ...; the schedule's own clock starts after the warm-up."""
    optax, rate = _optax(), spec.learning_rate
    if spec.schedule == "cosine":
        main = optax.cosine_decay_schedule(rate, spec.total_steps - spec.warmup_steps)
    elif spec.schedule == "exponential":
        main = optax.exponential_decay(
            rate, spec.decay_every, spec.decay, spec.decay_start, staircase=True
        )
    else:
        main = optax.constant_schedule(rate)
    if spec.warmup_steps:
        warmup = optax.linear_schedule(0.0, rate, spec.warmup_steps)
        main = optax.join_schedules([warmup, main], [spec.warmup_steps])
    # As a float: optax would divide whole numbers in float32, in a float64 training too.
    found: jax.Array = main(jnp.asarray(step, float))
    return found


def build(spec: OptimiserSpec) -> Any:
    """The library's chain; its updates, times the learning rate, are to be subtracted."""
    optax = _optax()
    decay = [optax.add_decayed_weights(spec.weight_decay)] if spec.weight_decay else []
    parts = [_clip(spec.clip_norm)] if spec.clip_norm else []
    if spec.algorithm in ("adam", "adamw"):
        inner = optax.scale_by_adam(*spec.betas, eps=spec.epsilon)
    elif spec.algorithm == "rmsprop":
        inner = optax.scale_by_rms(spec.smoothing, spec.epsilon, eps_in_sqrt=False)
    else:
        inner = optax.trace(spec.momentum) if spec.momentum else optax.identity()
    parts += [inner, *decay] if spec.algorithm == "adamw" else [*decay, inner]
    one = replace(spec, learning_rate=1.0)
    return optax.chain(*parts, optax.scale_by_schedule(lambda step: learning_rate(one, step)))


def _clip(largest: float) -> Any:
    """Gradients times min(1, largest / (global norm + 1e-6)), as clip_grad_norm_ of torch.

    optax has no 1e-6 there.
    """
    optax = _optax()

    def scaled(updates: Tree, _: Tree) -> Tree:
        share = jnp.minimum(1.0, largest / (optax.tree.norm(updates) + 1e-6))
        return optax.tree.scale(share, updates)

    return optax.stateless(scaled)


@lru_cache(maxsize=64)
def _programs(objective: Objective, spec: OptimiserSpec, placement: Placement) -> tuple[Any, Any]:
    """The compiled functions `begin` and `step` of everything that differs only in values.

    Args:
        spec: with learning_rate 1.
    """
    change = build(spec)

    def step(masters: Tree, state: Tree, rate: jax.Array, *args: Tree) -> Tree:
        def loss_of(masters: Tree) -> Tree:
            return objective(rounded(masters, placement), *args)

        (loss, more), grads = jax.value_and_grad(loss_of, has_aux=True)(masters)
        updates, state = change.update(grads, state, masters)
        masters = {name: value - rate * updates[name] for name, value in masters.items()}
        return masters, state, loss, more

    return jax.jit(change.init), jax.jit(step, donate_argnums=(0, 1))


def rounded(masters: Tensors, placement: Placement) -> dict[str, jax.Array]:
    """The parameters as the network takes them."""
    return {name: value.astype(format_of(placement, name)) for name, value in masters.items()}


class Descent:
    """Parameters with their optimiser: gradient, clipping, one step in their own memory."""

    def __init__(
        self, spec: OptimiserSpec, objective: Objective, params: Arrays, placement: Placement
    ) -> None:
        """Copy the parameters to the device; nothing is compiled yet.

        Raises:
            SpecError: optax is not installed.
            RuntimeError: no such device here.
        """
        self._placement, self._device = placement, device_of(placement)
        wide = state_dtype(dtype_of(placement))
        begin, self._step = _programs(objective, replace(spec, learning_rate=1.0), placement)
        with numbers_of(placement):
            self.masters = {n: to_device(v, wide, self._device) for n, v in params.items()}
            self._rate = to_device(np.asarray(spec.learning_rate), wide, self._device)
            # Placed by hand: what jit has made of no argument counts as another kind of array than
            # its results, and the second step would be compiled again.
            self._state = jax.device_put(begin(self.masters), self._device)

    def step(self, *args: Tree) -> tuple[jax.Array, Tree]:
        """Change the parameters by the objective's gradient; its results before the change."""
        with numbers_of(self._placement):
            self.masters, self._state, loss, more = self._step(
                self.masters, self._state, self._rate, *args
            )
        return loss, more

    def snapshot(self) -> dict[str, np.ndarray]:
        """`parameter.<name>`, and `optimiser.<path>` of all that optax keeps, counters included."""
        return {name: np.array(value) for name, value in _named(self._tree()).items()}

    def restore(self, snapshot: Arrays) -> None:
        """Go on where the snapshot was taken.

        Raises:
            SpecError: parameters or optimiser states of other names or shapes.
        """
        tree = self._tree()
        own = _named(tree)
        for part in tree:
            mine = {name: leaf.shape for name, leaf in _named(tree[part]).items()}
            check_arrays(snapshot, f"{part}.", mine)
        with numbers_of(self._placement):
            leaves = [to_device(snapshot[n], like.dtype, self._device) for n, like in own.items()]
        tree = jax.tree.unflatten(jax.tree.structure(tree), leaves)
        self.masters, self._state = tree["parameter"], tree["optimiser"]

    def _tree(self) -> dict[str, Tree]:
        return {"parameter": self.masters, "optimiser": self._state}


def _named(tree: Tree) -> dict[str, jax.Array]:
    """The leaves by their paths, "optimiser.1.mu.head.bias"."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}
