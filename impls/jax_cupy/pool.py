"""The pooling as a differentiable JAX function around the project's own CUDA kernels.

`buffer_callback` hands a Python function XLA's stream and buffers inside a compiled program. The
function only enqueues one kernel, so the call may become part of a command buffer (a CUDA graph):
then Python runs while XLA records it, again when buffers move, and not at every call.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.buffer_callback import buffer_callback

from impls._jax.pooling import Sequences, pooling
from impls.contract import GATES
from impls.jax_cupy import launch
from impls.kernels import cuda
from impls.kernels.launch import Call, shared_arguments

Arrays = dict[str, Any]


def forward(
    call: Call, pre: jax.Array, bias: jax.Array, c0: jax.Array, given: Sequences, record: bool
) -> Any:
    """y, the final c and, if asked for, the checkpoints [B, tiles, H] of `pool_forward`."""
    steps, batch, _ = pre.shape
    hidden = c0.shape[1]
    kernel = _kernel(cuda.FORWARD, call, pre, hidden)
    outputs = {"y": _words(pre, steps, batch, hidden), "c": _wide(batch, hidden)}
    if record:
        outputs["checkpoints"] = _wide(batch, kernel.tiles(steps), hidden)
    names = ("pre", "c0", "y", "c", "checkpoints")
    inputs = {"pre": _bits(pre), "bias": bias, "c0": c0} | _long(given)
    out = _run(kernel, call, names, (batch * hidden, hidden), inputs, outputs)
    return _values(out["y"], pre), out["c"], out.get("checkpoints")


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
    batch, hidden = dc.shape
    kernel = _kernel(cuda.BACKWARD, call, pre, hidden)
    outputs = {
        "dpre": _words(pre, *pre.shape),
        "dc0": _wide(batch, hidden),
        "dbias": _wide(batch, *bias.shape),
    }
    names = ("pre", "checkpoints", "dy", "dc", "dpre", "dc0", "dbias")
    own = {"pre": _bits(pre), "bias": bias, "checkpoints": checkpoints, "dy": _bits(dy), "dc": dc}
    strides = (batch * hidden, hidden, 1)
    out = _run(kernel, call, names, strides, own | _long(given), outputs)
    return _values(out["dpre"], pre), jnp.sum(out["dbias"], axis=0), out["dc0"]


pool = pooling(forward, gradients)


def _kernel(which: str, call: Call, pre: jax.Array, hidden: int) -> cuda.Kernel:
    """The instantiation for these sizes; XLA's arrays are dense and aligned."""
    steps, batch, _ = pre.shape
    pairs = pre.dtype == jnp.bfloat16 and hidden % 2 == 0
    kernel = cuda.choose(which, pre.dtype.name, call.pooling, call.zone, call.keeps_state, batch,
                         steps, hidden, launch.multiprocessors(), pairs)  # fmt: skip
    launch.prepare(kernel)
    return kernel


def _run(
    kernel: cuda.Kernel,
    call: Call,
    names: tuple[str, ...],
    strides: tuple[int, ...],
    inputs: Arrays,
    outputs: Arrays,
) -> dict[str, jax.Array]:
    """Launch a kernel inside the program that is being traced.

    Args:
        names: the arrays with which its arguments begin; one that is absent is a null pointer.
        strides: what follows them.
        inputs, outputs: arrays and jax.ShapeDtypeStruct by name.
    """
    steps, batch, width = inputs["pre"].shape
    hidden = width // len(GATES[call.pooling])
    tiles, blocks = kernel.tiles(steps), kernel.blocks(batch, hidden)

    def enqueue(context: Any, out: Arrays, given: Arrays) -> None:
        buffers = given | out
        places = {name: launch.address(buffer) for name, buffer in buffers.items()}
        shared = [places.get(name, 0) for name in ("bias", "lengths", "seed", "rows", "t0")]
        args = [*(places.get(name, 0) for name in names), *strides]
        args += shared_arguments(call, shared, steps, hidden, tiles, batch * width, width)
        launch.launch(kernel, blocks, args, (context, buffers["pre"]))

    enqueued = buffer_callback(enqueue, outputs, command_buffer_compatible=True)(inputs)
    return dict(enqueued)


def _wide(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def _words(like: jax.Array, *shape: int) -> jax.ShapeDtypeStruct:
    bits = jnp.uint16 if like.dtype == jnp.bfloat16 else like.dtype
    return jax.ShapeDtypeStruct(shape, bits)


def _bits(array: jax.Array) -> jax.Array:
    """bfloat16 as its bits: the CUDA array interface has no name for it."""
    narrow = array.dtype == jnp.bfloat16
    return lax.bitcast_convert_type(array, jnp.uint16) if narrow else array


def _values(bits: jax.Array, like: jax.Array) -> jax.Array:
    narrow = like.dtype == jnp.bfloat16
    return lax.bitcast_convert_type(bits, jnp.bfloat16) if narrow else bits


def _long(given: Sequences) -> Arrays:
    """The sequences as the kernels read them: 64-bit numbers, here pairs of words, low first."""

    def widened(low: jax.Array) -> jax.Array:
        return jnp.stack([low.astype(jnp.uint32), jnp.zeros(low.shape, jnp.uint32)], axis=1)

    long: Arrays = {}
    if given.lengths is not None:
        long["lengths"] = widened(given.lengths)
    if given.seed is not None and given.rows is not None and given.t0 is not None:
        # The mask's counter takes the low word of row * H + unit: the row's own is enough.
        long |= {"seed": given.seed, "rows": widened(given.rows), "t0": given.t0.T}
    return long
