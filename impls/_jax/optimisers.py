"""OptimiserSpec as a chain of optax transformations, without the learning rate itself.

The learning rate is an argument of the training step, so that a grid of learning rates shares
one compiled program; the chain knows only the schedule's share of it.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from impls.contract import SpecError
from impls.nets import OptimiserSpec


def _optax() -> Any:
    try:
        import optax
    except ModuleNotFoundError as error:
        raise SpecError(
            f"training in JAX needs {error.name or 'optax'}, which is not installed: "
            "pip install 'quasibench[jax]'"
        ) from error
    return optax


def schedule(spec: OptimiserSpec) -> Any:
    """optax.Schedule: step number, from 0, -> share of the largest learning rate."""
    optax = _optax()
    if spec.schedule == "cosine":
        main = optax.cosine_decay_schedule(1.0, spec.total_steps - spec.warmup_steps)
    elif spec.schedule == "exponential":
        main = optax.exponential_decay(
            1.0, spec.decay_every, spec.decay, spec.decay_start, staircase=True
        )
    else:
        main = optax.constant_schedule(1.0)
    if not spec.warmup_steps:
        return main
    warmup = optax.linear_schedule(0.0, 1.0, spec.warmup_steps)
    return optax.join_schedules([warmup, main], [spec.warmup_steps])


def clip(largest: float) -> Any:
    """optax transformation: gradients times min(1, largest / (global norm + 1e-6)).

    The formula of torch.nn.utils.clip_grad_norm_; optax's own has no 1e-6.
    """
    optax = _optax()

    def scaled(updates: Any, _: Any) -> Any:
        share = jnp.minimum(1.0, largest / (optax.tree.norm(updates) + 1e-6))
        return optax.tree.scale(share, updates)

    return optax.stateless(scaled)


def chain(spec: OptimiserSpec) -> Any:
    """optax.GradientTransformation whose updates, times the learning rate, are to be subtracted.

    Raises:
        SpecError: optax is not installed.
    """
    optax = _optax()
    decay = [optax.add_decayed_weights(spec.weight_decay)] if spec.weight_decay else []
    parts = [clip(spec.clip_norm)] if spec.clip_norm else []
    if spec.algorithm in ("adam", "adamw"):
        inner = optax.scale_by_adam(*spec.betas, eps=spec.epsilon)
    elif spec.algorithm == "rmsprop":
        inner = optax.scale_by_rms(spec.smoothing, spec.epsilon, eps_in_sqrt=False)
    else:
        inner = optax.trace(spec.momentum) if spec.momentum else optax.identity()
    parts += [inner, *decay] if spec.algorithm == "adamw" else [*decay, inner]
    return optax.chain(*parts, optax.scale_by_schedule(schedule(spec)))
