"""What makes arms comparable: equal width, parameters, FLOPs or seconds; the width that it takes.

Modes: "as_is" leaves the width alone; "params" and "flops" look for the hidden size whose network
is nearest to the baseline's; "wall" gives every arm the same seconds of training, as many steps
as a short calibration says (see `harness.ablation.coordinator`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from harness import floors
from harness.errors import UsageError
from impls import net_params
from impls.nets import NetSpec

TOLERANCE = 0.01
"""Widths are whole numbers: a network may differ from the baseline by this part of it, and where
no width does better the nearest one is taken and said to be a deviation."""
LARGEST = 1 << 16


@dataclass(frozen=True)
class Width:
    """A hidden size and by which part of the baseline's its network's cost differs."""

    hidden_size: int
    difference: float

    @property
    def near(self) -> bool:
        """Whether it is as near as `TOLERANCE` asks."""
        return abs(self.difference) <= TOLERANCE


def params(net: NetSpec) -> int:
    """Number of parameters of the network, embedding and head included."""
    return net_params.count(net)


def flops(net: NetSpec, batch: int, steps: int) -> int | None:
    """FLOP of one training step: matrix products forward and backward, 2 per multiply-add.

    The stack by `harness.floors`, with the gradient of its input, which an embedding or a
    bottleneck needs; the head and a bottleneck at three products each. Embedding look-ups,
    element-wise work and the optimiser are not counted.

    Args:
        batch: sequences; steps: time steps of a training batch.

    Returns:
        None where no formula is known for the family or for an encoder-decoder.
    """
    core = floors.cost(net.core, "backward", batch, steps, "float32")
    if core is None or net.head == "seq2seq":
        return None
    positions = batch * steps
    total = core.flops
    if net.inputs == "hashed":
        total += 6 * positions * net.features * net.core.input_size
    if net.inputs == "dense":  # nobody asks for the gradient of the data
        total -= _first_gradient(net, positions)
    rows = positions if net.head == "steps" else batch
    return total + 6 * rows * net.core.output_size * net.outputs


def _first_gradient(net: NetSpec, positions: int) -> int:
    """FLOP of the gradient of the stack's own input."""
    core = floors.cost(net.core, "backward", 1, positions, "float32")
    return sum(
        work
        for name, work, _ in (core.staged if core else ())
        if name.startswith("layers.0.") and name.endswith(".grad_x")
    )


def solve(net: NetSpec, goal: float, cost: Callable[[NetSpec], float]) -> Width:
    """The hidden size at which `cost` of the network is nearest to `goal`.

    Args:
        cost: grows with the hidden size.

    Raises:
        UsageError: even one hidden unit costs more than the goal.
    """

    def at(hidden: int) -> float:
        return cost(replace(net, core=replace(net.core, hidden_size=hidden)))

    low, high = 1, 2
    if at(low) > goal * (1 + TOLERANCE):
        raise UsageError(f"one hidden unit costs {at(1):g} already, the baseline {goal:g}")
    while high < LARGEST and at(high) < goal:
        low, high = high, 2 * high
    while high - low > 1:  # at(low) <= goal <= at(high)
        middle = (low + high) // 2
        low, high = (middle, high) if at(middle) <= goal else (low, middle)
    best = min((low, high), key=lambda hidden: abs(at(hidden) - goal))
    return Width(best, at(best) / goal - 1)


def fitted(net: NetSpec, baseline: NetSpec, mode: str, batch: int, steps: int) -> Width:
    """The width of an arm's network in a budget mode, on a task with batches [steps, batch].

    Raises:
        UsageError: no formula for the FLOPs, or a network that cannot be made small enough.
    """
    if mode == "params":
        return solve(net, params(baseline), params)
    if mode == "flops":

        def counted(one: NetSpec) -> float:
            found = flops(one, batch, steps)
            if found is None:
                raise UsageError(
                    f'budget mode "flops": no formula for family {one.core.family!r} with head '
                    f"{one.head!r}; use params or wall"
                )
            return found

        return solve(net, counted(baseline), counted)
    return Width(net.core.hidden_size, 0.0)
