"""What jax_native computes, and how its custom calls behave inside JAX."""

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

import impls
from impls.contract import Placement
from tests import jax_works as works

jax = pytest.importorskip("jax")
if reason := impls.missing(impls.get("jax_native")):
    pytest.skip(reason, allow_module_level=True)

import jax.numpy as jnp  # noqa: E402

from impls.jax_native.layer import Given, How, Sequences, layer  # noqa: E402
from impls.kernels import xla  # noqa: E402
from impls.kernels.build import CompilerMissing  # noqa: E402

xla.register()

NAME = "jax_native"
EVERYTHING = works.small(
    layers=2, kernel_width=3, pooling="ifo", zoneout=0.3, dense=True, bidirectional=True
)
FO = How("fo", "none", True, False, 0.0, 0)
WHOLE = Sequences(None, None)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("lengths", [None, (9, 4, 6)])
def test_values_states_and_gradients_equal_oracle(dtype, lengths):
    works.assert_equals_oracle(NAME, EVERYTHING, dtype, lengths=lengths)


@pytest.mark.parametrize(
    ("changes", "lengths", "steps"),
    [
        ({"input_size": 34, "hidden_size": 64}, None, 70),  # weights used as they lie
        ({"input_size": 33, "hidden_size": 64}, None, 70),  # an odd number of inputs
        ({"input_size": 34, "hidden_size": 64}, None, 200),  # packed weights, two chunks
        ({"input_size": 35, "hidden_size": 75, "kernel_width": 1, "pooling": "f"}, None, 200),
        ({"kernel_width": 8, "pooling": "ifo"}, (300, 1, 201), 300),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_odd_sizes_and_several_chunks_equal_oracle(changes, lengths, steps, dtype):
    spec = works.small(bidirectional=True, **changes)
    works.assert_equals_oracle(NAME, spec, dtype, lengths=lengths, steps=steps)


def test_more_sequences_than_rows_of_a_chunk_equal_oracle():
    works.assert_equals_oracle(NAME, works.small(), "float32", lengths=(3, 2) * 300, steps=3)


@pytest.mark.parametrize("mode", ["keep", "literal"])
def test_zoneout_expectation_in_evaluation_equals_oracle(mode):
    spec = works.small(pooling="ifo", zoneout=0.4, zoneout_mode=mode, zoneout_eval="expectation")
    work = works.work_of("backward", spec, "float64", seed=None)
    got = works.once(works.session(NAME, spec, "float64").prepare(work))
    want = works.reference.run(spec, works.weights(spec, "float64"), work)
    works.assert_close(got, want, "float64")


def test_a_seed_and_a_stream_beyond_32_bits_draw_the_oracles_mask():
    spec = works.small(zoneout=0.4, bidirectional=True)
    work = works.work_of("forward", spec, "float64", seed=(1 << 63) + 5)
    work = replace(work, state=dict(work.state) | {"t0": np.array([1, 1 << 33, 7])})
    got = works.once(works.session(NAME, spec, "float64").prepare(work))
    want = works.reference.run(spec, works.weights(spec, "float64"), work)
    works.assert_close(got, want, "float64")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_train_step_equals_oracle(dtype):
    works.assert_train_step_equals_oracle(NAME, works.small(zoneout=0.3), dtype)


def draw(*shape):
    return jnp.asarray(np.random.default_rng(sum(shape)).standard_normal(shape), jnp.float32)


def arguments(steps=40, batch=3, features=6, hidden=10, taps=2, gates=3):
    weights = tuple(0.3 * draw(taps, features, hidden) + 0.1 * gate for gate in range(gates))
    biases = tuple(draw(hidden) + gate for gate in range(gates))
    window = draw(taps - 1, batch, features) if taps > 1 else None
    return Given(draw(steps, batch, features), draw(batch, hidden), weights, biases, window)


def loss(given, how=FO):
    final = layer(how, given, WHOLE)
    return jnp.sum(final.y**2) + jnp.sum(final.c * 3.0)


def test_gradients_inside_jit_and_outside_have_equal_bits_and_nothing_is_compiled_twice():
    given = arguments()
    outside = jax.grad(loss)(given)
    inside = jax.jit(jax.grad(loss))
    for again in range(3):
        found = inside(jax.tree.map(lambda leaf, n=again: leaf + 0 * n, given))
        for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(outside), strict=True):
            np.testing.assert_array_equal(one, other)
    assert inside._cache_size() == 1


@pytest.mark.parametrize("name", ["x", "weights", "biases", "c", "window"])
def test_a_gradient_wanted_alone_equals_the_one_among_all(name):
    given = arguments()
    alone = jax.grad(lambda value: loss(given._replace(**{name: value})))(getattr(given, name))
    every = getattr(jax.grad(loss)(given), name)
    for one, other in zip(jax.tree.leaves(alone), jax.tree.leaves(every), strict=True):
        np.testing.assert_array_equal(one, other)


def test_products_that_no_gradient_needs_are_not_made():
    given = arguments()

    def results(name):
        def partial(value):
            return loss(given._replace(**{name: value}))

        lines = jax.jit(jax.grad(partial)).lower(getattr(given, name)).as_text().splitlines()
        (call,) = [line for line in lines if xla.TARGETS["backward"] in line]
        return call.rpartition("->")[2].count("tensor<")

    state_and_biases = 1 + 3
    assert results("biases") == state_and_biases
    assert results("x") == state_and_biases + 2
    assert results("weights") == state_and_biases + 3


def test_donated_arguments_give_the_same_result():
    given = arguments()
    wanted = layer(FO, given, WHOLE)

    def step(c, rest):
        return layer(FO, rest._replace(c=c), WHOLE).c

    carried = jax.jit(step, donate_argnums=0)(jnp.copy(given.c), given)
    np.testing.assert_array_equal(carried, wanted.c)


def test_vmap_equals_one_call_per_entry():
    given = arguments()
    x = draw(4, *given.x.shape)
    several = jax.vmap(jax.grad(lambda x: loss(given._replace(x=x))))(x)
    for entry in range(4):
        one = jax.grad(lambda x: loss(given._replace(x=x)))(x[entry])
        np.testing.assert_array_equal(several[entry], one)


@pytest.mark.parametrize(
    "twice",
    [
        lambda f: jax.grad(lambda x: jnp.sum(jax.grad(f)(x) ** 2)),
        jax.hessian,
        lambda f: lambda x: jax.jvp(jax.grad(f), (x,), (x,)),
    ],
    ids=["grad of grad", "hessian", "jvp of grad"],
)
def test_a_second_derivative_raises(twice):
    given = arguments()
    with pytest.raises(NotImplementedError, match="no second derivative: use jax_scan"):
        twice(lambda x: loss(given._replace(x=x)))(given.x)


@pytest.mark.parametrize("short", ["arguments", "results", "attributes"])
def test_a_call_that_does_not_fit_is_refused_not_run(short):
    given, numbers = arguments(), FO.attributes(ragged=False, batch=3)
    shapes = [jax.ShapeDtypeStruct(given.x.shape, jnp.float32)] * (1 if short == "results" else 3)
    operands = jax.tree.leaves(given)[: -1 if short == "arguments" else None]
    if short == "attributes":
        numbers["how"] = numbers["how"][1:]
    call = jax.ffi.ffi_call(xla.TARGETS["forward"], shapes)
    with pytest.raises(jax.errors.JaxRuntimeError, match=r"do not fit|another version"):
        jax.block_until_ready(call(*operands, **numbers))


BITS = """
import ctypes, hashlib, jax, numpy as np
from impls.kernels import xla
from impls.jax_native.layer import How, Sequences, layer
from tests.test_jax_native import arguments
xla.register()
given = arguments(90, 9, 40, 97, gates=4)
def loss(given):
    final = layer(How("ifo", "none", True, False, 0.0, 0), given, Sequences(None, None))
    return (final.y ** 2).sum() + final.c.sum() + final.window.sum(), final
found = jax.jit(jax.value_and_grad(loss, has_aux=True))(given)
(_, final), gradients = found
bits = b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves((final, gradients)))
threads = ctypes.CDLL(str(xla._object())).qb_threads_of_last_call()
print(threads, hashlib.sha256(bits).hexdigest())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="NPROC sets XLA's pool on Linux")
def test_one_to_eight_threads_give_equal_bits():
    found = {}
    for threads in (1, 2, 8):
        done = subprocess.run(
            [sys.executable, "-c", BITS],
            env={**os.environ, "NPROC": str(threads)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        used, bits = done.stdout.split()
        assert int(used) == threads
        found[threads] = bits
    assert len(set(found.values())) == 1


@pytest.fixture
def no_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("QUASIBENCH_CACHE", str(tmp_path))
    xla.lacking.cache_clear()
    yield
    xla.lacking.cache_clear()


def test_no_compiler_is_one_line_that_says_what_to_install(no_cache, tmp_path, monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    said = impls.missing(impls.get(NAME))
    assert "no C++ compiler found" in said
    assert "install one" in said
    assert "\n" not in said


def test_a_jaxlib_without_headers_is_named(no_cache, monkeypatch):
    monkeypatch.setattr(xla, "HEADER", "xla/ffi/api/no_such.h")
    with pytest.raises(CompilerMissing, match=r"no_such\.h: install jax"):
        xla._object()
    assert "no_such.h" in xla.lacking()


def test_card_refuses_another_family_and_device():
    card = impls.get(NAME)
    assert "'lstm'" in card.unsupported(works.small(family="lstm"), Placement())
    assert "jax_scan" in card.unsupported(EVERYTHING, Placement("cuda"))
    assert card.unsupported(EVERYTHING, Placement("cpu", "bfloat16")) is None
