"""The poolings of the JAX implementations on the problems of the CUDA shim's tests."""

import jax
import jax.numpy as jnp
import numpy as np

from impls._jax.pooling import Sequences
from impls._jax.zoneout import words
from impls.kernels.launch import Call
from tests.cuda_shim.problem import SEED


def call_of(problem):
    spec = problem.spec
    return Call(spec.pooling, problem.zone, spec.zoneout_mode == "keep", spec.zoneout,
                problem.layer, problem.backwards)  # fmt: skip


def arguments(problem, ragged=True):
    """pre, bias, c0 and the sequences of a problem as JAX arrays."""
    given = Sequences(jnp.asarray(problem.lengths, jnp.int32) if ragged else None, None, None, None)
    if problem.zone == "hold":
        mask = words(SEED), words(problem.rows)[0], words(problem.t0)
        given = Sequences(given.lengths, *map(jnp.asarray, mask))
    return jnp.asarray(problem.pre, problem.dtype), problem.bias, problem.c0, given


def run(pool, problem, ragged=True):
    """Forward and backward inside one jit; results by the names that `Problem.check` takes."""
    call = call_of(problem)
    dy = jnp.asarray(problem.dy, problem.dtype)

    @jax.jit
    def both(pre, bias, c0, given, dy, dc):
        (y, c), pull = jax.vjp(lambda *own: pool(call, *own, given), pre, bias, c0)
        return (y, c, *pull((dy, dc)))

    results = both(*arguments(problem, ragged), dy, problem.dc)
    names = ("y", "c", "dpre", "dbias", "dc0")
    formats = (problem.dtype, "float32", problem.dtype, "float32", "float32")
    assert [value.dtype.name for value in results] == list(formats)
    return {n: np.asarray(value, np.float32) for n, value in zip(names, results, strict=True)}
