"""The pooling as a differentiable JAX function around the two Pallas kernels.

Backend: Triton, asked for by its own compiler parameters, because the default differs between JAX
0.10 and 0.11. Pallas' other GPU backend, Mosaic GPU, wants sm_90 and an interface of its own; 0.11
deprecates Triton for it without a date. Triton compiles for sm_80 and later.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from impls._jax.pooling import Sequences, pooling
from impls.jax_pallas import kernels
from impls.jax_pallas.plan import Plan, choose
from impls.kernels.launch import Call

Kernel = Callable[[Plan, kernels.Refs], None]
SEQUENCE_AXIS = {"pre": 1, "lengths": 0, "rows": 0, "t0": 1, "c0": 0, "c": 0, "dc": 0, "dc0": 0,
                 "y": 1, "dy": 1, "checkpoints": 1, "dpre": 1, "dbias": 0}  # fmt: skip
"""Of which axis of an array a program sees its own sequence alone; bias and seed have none."""
# One warp per program. Loads are issued by hand, so nothing is left to pipeline.
COMPILER = triton.CompilerParams(num_warps=1, num_stages=1)


def forward(
    call: Call, pre: jax.Array, bias: jax.Array, c0: jax.Array, given: Sequences, record: bool
) -> Any:
    """y, the final c and, if asked for, the state before every tile [tiles, B, H]."""
    plan = _plan(call, pre, c0, given)
    shape = (plan.steps, plan.batch, plan.hidden)
    outputs = {"y": jax.ShapeDtypeStruct(shape, pre.dtype), "c": _like(c0)}
    if record:
        outputs["checkpoints"] = _wide(plan.tiles, *shape[1:])
    inputs = _shared(pre, bias, given) | {"c0": c0}
    results = _run("qrnn_pool_forward", kernels.forward, plan, inputs, outputs)
    return results["y"], results["c"], results.get("checkpoints")


def gradients(
    call: Call,
    pre: jax.Array,
    bias: jax.Array,
    checkpoints: jax.Array,
    given: Sequences,
    dy: jax.Array,
    dc: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Gradients of `pool` by pre, bias and c0."""
    plan = _plan(call, pre, dc, given)
    outputs = {
        "dpre": _like(pre),
        "dc0": _like(dc),
        "dbias": _wide(plan.batch, *bias.shape),
    }
    inputs = _shared(pre, bias, given) | {"checkpoints": checkpoints, "dy": dy, "dc": dc}
    results = _run("qrnn_pool_backward", kernels.backward, plan, inputs, outputs)
    return results["dpre"], jnp.sum(results["dbias"], axis=0), results["dc0"]


pool = pooling(forward, gradients)


def _plan(call: Call, pre: jax.Array, c0: jax.Array, given: Sequences) -> Plan:
    steps, batch, _ = pre.shape
    return choose(call, pre.dtype, steps, batch, c0.shape[1], given.lengths is not None)


def _wide(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def _like(array: jax.Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(array.shape, array.dtype)


def _shared(pre: jax.Array, bias: jax.Array, given: Sequences) -> dict[str, jax.Array]:
    """Inputs of both kernels by name, without those that are not there."""
    shared = {"pre": pre, "bias": bias, **given._asdict()}
    return {name: array for name, array in shared.items() if array is not None}


def _spec(name: str, shape: tuple[int, ...]) -> pl.BlockSpec:
    """What one program of the grid (blocks of channels, sequences) sees of an array."""
    axis = SEQUENCE_AXIS.get(name)
    own = [number == axis for number in range(len(shape))]
    block = tuple(None if mine else size for mine, size in zip(own, shape, strict=True))
    return pl.BlockSpec(block, lambda _, sequence: tuple(sequence if mine else 0 for mine in own))


def _run(
    name: str,
    kernel: Kernel,
    plan: Plan,
    inputs: dict[str, jax.Array],
    outputs: dict[str, jax.ShapeDtypeStruct],
) -> dict[str, jax.Array]:
    """Launch a kernel; inputs and results by the names of its refs."""
    names = (*inputs, *outputs)

    def program(*refs: Any) -> None:
        kernel(plan, dict(zip(names, refs, strict=True)))

    program.__name__ = name  # what a profiler shows
    results = pl.pallas_call(
        program,
        out_shape=list(outputs.values()),
        grid=plan.grid,
        in_specs=[_spec(key, array.shape) for key, array in inputs.items()],
        out_specs=[_spec(key, out.shape) for key, out in outputs.items()],
        compiler_params=COMPILER,
        interpret=plan.interpret,
        name=name,
    )(*inputs.values())
    return dict(zip(outputs, results, strict=True))
