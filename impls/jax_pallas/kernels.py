"""The pooling kernels as Pallas programs: forward with checkpoints, backward from them.

One program owns a block of channels of one sequence and walks over its time in tiles. It issues all
loads of a tile, activates, and then takes the steps one after the other. The backward kernel goes
through the tiles from last to first: the cells of a tile are rebuilt from the state before it, the
gradient is carried through them, and all gate gradients go into one array. Derivation:
`impls/kernels/README.md`.

Steps t = 0 .. length-1 of a sequence are in processing order (reverse: 0 is its last valid step);
step t has position t + shift. With a zoneout mask shift = t0 % 8, so that a tile begins where a
block of the random generator does; otherwise it is 0.

Refs by name, all of this sequence: `pre` [T, G*H], `bias` [G*H], `lengths` [], `seed` [2], `rows`
[], `t0` [2]; forward `c0` [H] and its results `y` [T, H], `c` [H], `checkpoints` [tiles, H];
backward `checkpoints`, `dy` [T, H], `dc` [H] and its results `dpre` [T, G*H], `dc0` [H], `dbias`
[G*H]. T counts natural time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from impls._jax.zoneout import philox4x32
from impls.jax_pallas.plan import Plan
from impls.reference.philox import STEPS_PER_BLOCK

Refs = Mapping[str, Any]
Cells = list[jax.Array]


@dataclass(frozen=True)
class Step:
    """Gates of one step after activation and zoneout, [block] each."""

    z: jax.Array
    f: jax.Array
    o: jax.Array | None
    i: jax.Array | None
    slope: jax.Array | float
    keep: jax.Array
    admit: jax.Array


class Column:
    """One program's place: its channels, its sequence, and how it reads, draws and activates."""

    def __init__(self, plan: Plan, refs: Refs) -> None:
        self.plan, self.refs = plan, refs
        self.begin = pl.program_id(0) * plan.block
        channel = self.begin + jnp.arange(plan.block, dtype=jnp.int32)
        self.own = None if plan.covered else channel < plan.hidden
        self.length: Any = plan.steps
        if plan.ragged:
            self.length = jnp.clip(refs["lengths"][...], 0, plan.steps)
        self.shift: Any = 0
        if plan.call.zone == "hold":
            low, high = refs["t0"][0], refs["t0"][1]
            self.shift = (low & np.uint32(STEPS_PER_BLOCK - 1)).astype(jnp.int32)
            self.first = (low >> 3) | (high << 29)
            self.seed = refs["seed"][0], refs["seed"][1]
            row = refs["rows"][...] * np.uint32(plan.hidden)
            self.unit = row + channel.astype(jnp.uint32)
        self.bias = [self.load("bias", gate=gate) for gate in range(plan.gates)]

    def at(self, name: str, at: tuple[Any, ...], gate: int) -> Any:
        """A view of this program's channels, [block]."""
        begin = self.begin + gate * self.plan.hidden
        return self.refs[name].at[(*at, pl.ds(begin, self.plan.block))]

    def load(self, name: str, *at: Any, gate: int = 0) -> jax.Array:
        """[block] in float32, with `at` the indices before the channels; 0 beyond the channels."""
        ref = self.at(name, at, gate)
        if self.own is None:
            return triton.load(ref).astype(jnp.float32)
        return triton.load(ref, mask=self.own, other=0.0).astype(jnp.float32)

    def store(
        self, name: str, value: jax.Array, *at: Any, gate: int = 0, where: jax.Array | None = None
    ) -> None:
        """Write [block], if the scalar `where` says so."""
        mask = self.own
        if where is not None:
            there = jnp.broadcast_to(where, (self.plan.block,))
            mask = there if mask is None else there & mask
        ref = self.at(name, at, gate)
        triton.store(ref, value.astype(ref.dtype), mask=mask)

    def natural(self, t: Any, whole: bool) -> tuple[Any, Any, Any]:
        """Natural time of step t, whether the step is valid, whether it is in the arrays at all.

        The time is one that may be read and written in every case; None stands for "surely".
        """
        turned = self.length - 1 - t
        if whole:
            return (turned if self.plan.call.reverse else t), None, None
        valid = (t >= 0) & (t < self.length)
        time = jnp.where(valid, turned, t) if self.plan.call.reverse else t
        last = self.plan.steps - 1
        return jnp.clip(time, 0, last), valid, (t >= 0) & (t <= last)

    def readable(self, t: Any, whole: bool) -> Any:
        """Natural time of step t, or of the nearest step that is valid."""
        if not whole:
            t = jnp.maximum(jnp.minimum(t, self.length - 1), 0)
        return self.length - 1 - t if self.plan.call.reverse else t

    def held(self, tile: Any) -> list[jax.Array]:
        """bool [block] for every step of a tile: zoneout holds the unit."""
        plan, held = self.plan, []
        place = jnp.uint32(plan.call.stream)
        for number in range(plan.tile // STEPS_PER_BLOCK):
            block = self.first + (tile * (plan.tile // STEPS_PER_BLOCK) + number).astype(jnp.uint32)
            counter = (self.unit, block, jnp.uint32(plan.call.layer), place)
            for word in philox4x32(self.seed, counter):
                held += [word & np.uint32(0xFFFF), word >> 16]
        return [uniform < plan.threshold for uniform in held]

    def activate(self, raw: list[jax.Array], held: jax.Array | None) -> Step:
        """The gates of one step from its sums without bias, in the order z f o i."""
        call = self.plan.call
        sums = [value + bias for value, bias in zip(raw, self.bias, strict=True)]
        z, f = jnp.tanh(sums[0]), _sigmoid(sums[1])
        o = _sigmoid(sums[2]) if len(sums) > 2 else None
        i = _sigmoid(sums[3]) if len(sums) > 3 else None
        slope: Any = 1.0
        if held is not None:
            slope = jnp.where(held, 0.0, 1.0)
        elif call.zone == "expect":
            slope = 1.0 - call.zoneout
        # keep c + admit z, and not z + keep (c - z): that returns a held c to the bit.
        keep = f if call.zone == "none" else (1.0 - slope) + slope * f
        admit = 1.0 - keep
        if i is not None:
            admit = slope * i if call.keeps_state and call.zone != "none" else i
        return Step(z, f, o, i, slope, keep, admit)

    def tile(self, number: Any, whole: bool, *more: str) -> tuple[list[Any], list[Step], Any]:
        """Steps of a tile, activated, and the rows of `more` [T, block] at the same times."""
        plan = self.plan
        begin = number * plan.tile - self.shift
        steps = [begin + step for step in range(plan.tile)]
        times = [self.readable(t, whole) for t in steps]
        # All loads before the first use: they are under way together.
        raw = [[self.load("pre", time, gate=gate) for gate in range(plan.gates)] for time in times]
        rows = [[self.load(name, time) for time in times] for name in more]
        held: list[Any] = [None] * plan.tile
        if plan.call.zone == "hold":
            held = self.held(number)
        return steps, [self.activate(*pair) for pair in zip(raw, held, strict=True)], rows


def _sigmoid(x: jax.Array) -> jax.Array:
    # e^-x may become infinite, whose reciprocal is 0.
    return 1.0 / (1.0 + jnp.exp(-x))


def _chosen(condition: Any, value: jax.Array, otherwise: Any) -> jax.Array:
    """`value`, or `otherwise` where the scalar condition is false; None stands for true."""
    return value if condition is None else jnp.where(condition, value, otherwise)


def forward(plan: Plan, refs: Refs) -> None:
    """y, the final c, and the state before every tile if there is a ref for it."""
    column = Column(plan, refs)

    def tile(number: Any, c: jax.Array, whole: bool) -> jax.Array:
        if "checkpoints" in refs:
            column.store("checkpoints", c, number)
        steps, gates, _ = column.tile(number, whole)
        for t, step in zip(steps, gates, strict=True):
            time, valid, inside = column.natural(t, whole)
            c = _chosen(valid, step.keep * c + step.admit * step.z, c)
            y = c if step.o is None else step.o * c
            column.store("y", _chosen(valid, y, 0.0), time, where=inside)
        return c

    c = column.load("c0")
    c = lax.fori_loop(0, plan.whole_tiles, lambda n, c: tile(n, c, True), c)
    c = lax.fori_loop(plan.whole_tiles, plan.tiles, lambda n, c: tile(n, c, False), c)
    column.store("c", c)


def backward(plan: Plan, refs: Refs) -> None:
    """Gradients of `forward` by pre, bias (of this sequence alone) and c0."""
    column = Column(plan, refs)

    def tile(number: Any, carry: tuple[jax.Array, Cells], whole: bool) -> tuple[jax.Array, Cells]:
        flow, sums = carry
        steps, gates, (dy,) = column.tile(number, whole, "dy")
        cells = [column.load("checkpoints", number)]
        for t, step in zip(steps, gates, strict=True):
            _, valid, _ = column.natural(t, whole)
            cells.append(_chosen(valid, step.keep * cells[-1] + step.admit * step.z, cells[-1]))
        for at in reversed(range(plan.tile)):
            time, valid, inside = column.natural(steps[at], whole)
            before, grads = _step_back(plan, gates[at], cells[at], cells[at + 1], dy[at], flow)
            flow = _chosen(valid, before, flow)
            for gate, grad in enumerate(grads):
                grad = _chosen(valid, grad, 0.0)
                column.store("dpre", grad, time, gate=gate, where=inside)
                sums[gate] = sums[gate] + grad
        return flow, sums

    def earlier(of: int, whole: bool) -> Any:
        return lambda n, carry: tile(of - 1 - n, carry, whole)

    zeros = jnp.zeros((plan.block,), jnp.float32)
    carry = column.load("dc"), [zeros] * plan.gates
    carry = lax.fori_loop(0, plan.tiles - plan.whole_tiles, earlier(plan.tiles, False), carry)
    flow, sums = lax.fori_loop(0, plan.whole_tiles, earlier(plan.whole_tiles, True), carry)
    column.store("dc0", flow)
    for gate in range(plan.gates):
        column.store("dbias", sums[gate], gate=gate)


def _step_back(
    plan: Plan, step: Step, before: jax.Array, c: jax.Array, dy: jax.Array, flow: jax.Array
) -> tuple[jax.Array, Cells]:
    """(gradient by the state before the step, gradients by the gate sums) of one valid step.

    Args:
        before, c: the state before and after the step.
        flow: gradient by c through later steps.
    """
    z, f, o, i = step.z, step.f, step.o, step.i
    dc = flow + (dy if o is None else dy * o)
    by_keep = dc * (before if i is not None else before - z)
    grads = [dc * step.admit * (1.0 - z * z), by_keep * step.slope * (f * (1.0 - f))]
    if o is not None:
        grads.append(dy * c * (o * (1.0 - o)))
    if i is not None:
        slope = step.slope if plan.call.keeps_state else 1.0
        grads.append(dc * z * slope * (i * (1.0 - i)))
    return step.keep * dc, grads
