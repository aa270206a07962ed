"""Optimisers by torch.optim: learning-rate schedules, clipping, one step on flat parameters."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim.lr_scheduler import LambdaLR

from impls._torch.arrays import to_numpy
from impls._torch.flat import FlatParameters
from impls.contract import Arrays, SpecError
from impls.nets import OptimiserSpec
from impls.snapshots import check_arrays


def learning_rate(spec: OptimiserSpec, step: int) -> float:
    """The learning rate of step 0, 1, ...; the schedule's own clock starts after the warm-up."""
    if step < spec.warmup_steps:
        return spec.learning_rate * step / spec.warmup_steps
    since = step - spec.warmup_steps
    if spec.schedule == "cosine":
        share = min(since / (spec.total_steps - spec.warmup_steps), 1.0)
        return spec.learning_rate * 0.5 * (1 + math.cos(math.pi * share))
    if spec.schedule == "exponential":
        times = max(since - spec.decay_start, 0) // spec.decay_every
        return spec.learning_rate * spec.decay**times
    return spec.learning_rate


def build(spec: OptimiserSpec, parameters: list[Tensor]) -> torch.optim.Optimizer:
    """The library's optimiser with the hyperparameters of the spec."""
    rate, decay = spec.learning_rate, spec.weight_decay
    if spec.algorithm == "sgd":
        return torch.optim.SGD(parameters, rate, momentum=spec.momentum, weight_decay=decay)
    if spec.algorithm == "rmsprop":
        return torch.optim.RMSprop(
            parameters, rate, alpha=spec.smoothing, eps=spec.epsilon, weight_decay=decay
        )
    kind = torch.optim.Adam if spec.algorithm == "adam" else torch.optim.AdamW
    return kind(
        parameters, rate, betas=spec.betas, eps=spec.epsilon, weight_decay=decay, fused=True
    )


def _slots(spec: OptimiserSpec) -> tuple[str, ...]:
    """What the library keeps for each parameter once a step was made, by its own names."""
    if spec.algorithm == "sgd":
        return ("momentum_buffer",) if spec.momentum else ()
    return ("square_avg",) if spec.algorithm == "rmsprop" else ("exp_avg", "exp_avg_sq")


class Descent:
    """Flat parameters with their optimiser: gradient, clipping, one step; `count` steps so far."""

    def __init__(self, spec: OptimiserSpec, flat: FlatParameters) -> None:
        self._spec, self._flat = spec, flat
        self._optimiser = build(spec, [flat.master])
        self._schedule = LambdaLR(
            self._optimiser, lambda step: learning_rate(spec, step) / spec.learning_rate
        )
        self.count = 0

    def step(self, loss: Tensor) -> None:
        """Change the parameters by the gradient of a scalar."""
        master = self._flat.master
        master.grad = self._flat.gradient(loss)
        if self._spec.clip_norm > 0:
            clip_grad_norm_([master], self._spec.clip_norm, foreach=False)
        self._optimiser.step()
        self._schedule.step()
        self._flat.spread()
        self.count += 1

    def snapshot(self) -> dict[str, np.ndarray]:
        """`parameter.<name>`, `optimiser.<slot>.<name>` and `count`, canonical names."""
        flat = self._flat
        slots = {"parameter": flat.master}
        if self.count:
            state = self._optimiser.state[flat.master]
            slots |= {f"optimiser.{slot}": state[slot] for slot in _slots(self._spec)}
        out = {"count": np.array([self.count], np.int64)}
        for slot, tensor in slots.items():
            named = flat.canonical(tensor)
            out |= {f"{slot}.{name}": to_numpy(value).copy() for name, value in named.items()}
        return out

    def restore(self, snapshot: Arrays) -> None:
        """Go on where the snapshot was taken.

        Raises:
            SpecError: parameters or optimiser states of other names or shapes.
        """
        flat, master = self._flat, self._flat.master
        if "count" not in snapshot:
            raise SpecError("not a snapshot of a trainer: it has no 'count' of steps")
        count = int(snapshot["count"][0])
        own = {name: tuple(value.shape) for name, value in flat.canonical(master).items()}
        slots = _slots(self._spec) if count else ()
        check_arrays(snapshot, "parameter.", own)
        check_arrays(snapshot, "optimiser.", {f"{s}.{n}": own[n] for s in slots for n in own})
        with torch.no_grad():
            master.copy_(self._read(snapshot, "parameter"))
        flat.spread()
        self.count = self._schedule.last_epoch = count
        self._optimiser.param_groups[0]["lr"] = learning_rate(self._spec, count)
        self._optimiser.state.clear()
        for slot in slots:
            self._optimiser.state[master][slot] = self._read(snapshot, f"optimiser.{slot}")
        if slots and self._spec.algorithm != "sgd":
            # The fused ones count on the parameters' device.
            where = "cpu" if self._spec.algorithm == "rmsprop" else flat.device
            self._optimiser.state[master]["step"] = torch.tensor(
                float(count), dtype=torch.float32, device=where
            )

    def _read(self, snapshot: Arrays, slot: str) -> Tensor:
        start = f"{slot}."
        named = {n[len(start) :]: a for n, a in snapshot.items() if n.startswith(start)}
        return self._flat.flatten(named)
