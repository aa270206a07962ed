"""jax_pallas and jax_cupy on a CUDA device: values, masks, replayed programs, large offsets."""

from dataclasses import replace

import numpy as np
import pytest

jax = pytest.importorskip("jax")

import jax.numpy as jnp  # noqa: E402

import impls  # noqa: E402
from impls import reference  # noqa: E402
from impls._jax.pooling import Sequences  # noqa: E402
from impls.contract import POOLINGS, Placement  # noqa: E402
from impls.kernels.launch import Call  # noqa: E402
from impls.reference import hold_mask  # noqa: E402
from tests import jax_pooling  # noqa: E402
from tests import jax_works as works  # noqa: E402
from tests.cuda_shim.problem import SEED, Problem, spec  # noqa: E402

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.filterwarnings("ignore:The Pallas Triton backend is deprecated:DeprecationWarning"),
]

DTYPES = ("float32", "bfloat16")
NAMES = ("jax_pallas", "jax_cupy")


def pool_of(name):
    """The pooling of one implementation; skips where there is no device or no CuPy."""
    try:
        jax.devices("cuda")
    except RuntimeError:
        pytest.skip("no CUDA device")
    if name == "jax_cupy":
        pytest.importorskip("cupy")
    module = pytest.importorskip(f"impls.{name}.pool")
    return module.pool


@pytest.fixture(params=NAMES)
def name(request):
    pool_of(request.param)
    return request.param


def on_device(*arrays):
    return jax.device_put(arrays, jax.devices("cuda")[0])


def check_against_oracle(name, whole, dtype, kind="backward", **changes):
    work, weights = works.work_of(kind, whole, dtype, **changes), works.weights(whole, dtype)
    session = impls.get(name).load(whole, weights, Placement("cuda", dtype))
    got = works.once(session.prepare(work))
    if kind == "train_step":
        got |= {f"param.{key}": value for key, value in session.export().items()}
    works.assert_close(got, reference.run(whole, weights, work), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("pooling", POOLINGS)
def test_cuda_equals_the_oracle(name, pooling, dtype):
    whole = works.small(bidirectional=True, zoneout=0.2, pooling=pooling, hidden_size=20)
    check_against_oracle(name, whole, dtype)
    check_against_oracle(name, whole, dtype, seed=None, lengths=None, kind="train_step")
    wide = replace(whole, hidden_size=322, bidirectional=False, zoneout_mode="literal")
    check_against_oracle(name, wide, dtype, steps=150, lengths=(150, 1, 77) * 9)


def test_cuda_mask_equals_the_oracles_bit_for_bit(name):
    problem = Problem(spec("f", 40, zoneout=0.5), batch=3, steps=50, layer=2)
    problem.t0 = np.array([5, (1 << 33) + 11, (1 << 32) - 3])
    problem.pre[:] = problem.bias[:] = 0  # z = 0 and f = 1/2: c is held or halved, exactly
    args = on_device(*jax_pooling.arguments(problem, ragged=False))
    y, _ = jax.jit(pool_of(name), static_argnums=0)(jax_pooling.call_of(problem), *args)
    cells = np.concatenate([problem.c0[None], np.asarray(y)])
    held = hold_mask(problem.spec, SEED, problem.rows, problem.t0, 50, 2, "fwd")
    np.testing.assert_array_equal(cells[1:] == cells[:-1], held)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_program_that_is_replayed_reads_new_inputs_and_a_new_seed(name, dtype):
    """XLA may record its second run as a CUDA graph; what follows are other arrays' addresses."""
    problem = Problem(spec(hidden=32, zoneout=0.5), dtype, 8, 64)
    call, (pre, bias, c0, given) = jax_pooling.call_of(problem), jax_pooling.arguments(problem)
    compiled = jax.jit(lambda *own: pool_of(name)(call, *own)[0])
    kept, results = [], []
    for number in range(6):
        own = given._replace(seed=given.seed + jnp.uint32(number % 3))
        kept.append(on_device(pre + number % 3, bias, c0, own))
        results.append(np.asarray(compiled(*kept[-1]), np.float32))
    for first, again in zip(results[:3], results[3:], strict=True):
        np.testing.assert_array_equal(first, again)
    assert all(np.any(results[0] != other) for other in results[1:3])


def test_a_kernel_waits_for_what_its_program_computes_before_it(name):
    """The input is the result of work on XLA's stream; another stream would read it too early."""
    problem = Problem(spec(hidden=256), batch=64, steps=64)
    call, (pre, bias, c0, given) = jax_pooling.call_of(problem), jax_pooling.arguments(problem)
    square = jnp.full((4096, 4096), 1 / 4096, jnp.float32)

    def late(square, pre, *rest):
        for _ in range(8):
            square = square @ square * 1.0
        return pool_of(name)(call, pre + (square[0, 0] - square[0, 0]), *rest)

    args = on_device(pre, bias, c0, given)
    expected = jax.jit(pool_of(name), static_argnums=0)(call, *args)
    found = jax.jit(late)(*on_device(square), *args)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_more_than_two_to_the_31_elements_are_addressed(name):
    pool = pool_of(name)
    steps, hidden = 70_000, 4096  # 70,000 * 2 * 4 * 4096 gates in bfloat16: 4.6 GB, 2.3e9 elements
    free = jax.devices("cuda")[0].memory_stats() or {}
    if free.get("bytes_limit", 0) - free.get("bytes_in_use", 0) < 24 << 30:
        pytest.skip("less than 24 GiB of device memory are free")
    call = Call("ifo", "none", True, 0.0, 0, False)
    run = jax.jit(lambda pre, c0: pool(call, pre, bias, c0, Sequences(None, None, None, None)))
    with jax.default_device(jax.devices("cuda")[0]):
        key = jax.random.key(0)
        pre = jax.random.normal(key, (steps, 2, 4 * hidden), jnp.bfloat16)
        bias, c0 = jnp.zeros(4 * hidden), jnp.zeros((2, hidden))
        y, c = run(pre, c0)
        _, state = run(pre[: steps // 2], c0)
        rest, end = run(pre[steps // 2 :], state)
    np.testing.assert_allclose(rest[-100:].astype(np.float32), y[-100:].astype(np.float32),
                               rtol=1e-2, atol=1e-3)  # fmt: skip
    np.testing.assert_allclose(end, c, rtol=1e-4, atol=1e-6)
