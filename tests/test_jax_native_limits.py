"""What jax_native refuses, and what it does where memory ends or offsets are long."""

import mmap
import os
import subprocess
import sys

import numpy as np
import pytest

import impls

jax = pytest.importorskip("jax")
if reason := impls.missing(impls.get("jax_native")):
    pytest.skip(reason, allow_module_level=True)

import jax.numpy as jnp  # noqa: E402

from impls.jax_native.layer import Given, Sequences, layer  # noqa: E402
from impls.kernels import xla  # noqa: E402
from tests.test_jax_native import FO, WHOLE, arguments, draw, loss  # noqa: E402

xla.register()


def like(array, shape=None, dtype=None):
    return jnp.zeros(array.shape if shape is None else shape, dtype or array.dtype)


MISFITS = {
    "x float16": ("x", "float16", None, "allowed are float32, bfloat16, float64"),
    "x bfloat16": ("x", "bfloat16", None, r"weights\[0\] has dtype float32: give bfloat16"),
    "x [T, C]": ("x", None, (40, 6), r"give \[T, B, C\]"),
    "T = 0": ("x", None, (0, 3, 6), "each at least 1"),
    "B = 0": ("x", None, (40, 0, 6), "each at least 1"),
    "a wider x": ("x", None, (40, 3, 7), r"weights\[0\].* give \[2, 7, 10\]"),
    "c bfloat16": ("c", "bfloat16", None, "c has dtype bfloat16: give float32"),
    "c of other sequences": ("c", None, (4, 10), r"c has shape .* give \[3, 10\]"),
    "a longer window": ("window", None, (2, 3, 6), r"window .* give \[1, 3, 6\]"),
    "window bfloat16": ("window", "bfloat16", None, "window has dtype bfloat16: give float32"),
}


@pytest.mark.parametrize("case", MISFITS)
def test_arguments_that_do_not_fit_are_refused_while_tracing(case):
    name, dtype, shape, says = MISFITS[case]
    given = arguments()
    wrong = given._replace(**{name: like(getattr(given, name), shape, dtype)})
    for function in (lambda given: layer(FO, given, WHOLE), jax.grad(loss)):
        with pytest.raises(TypeError if dtype else ValueError, match=says):
            jax.eval_shape(function, wrong)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda g: {"weights": g.weights[:2]}, "2 weights and 3 biases: .* has 3 gates"),
        (lambda g: {"weights": (*g.weights[:2], like(g.weights[2], (2, 400, 10)))}, r"\[2, 6, 10"),
        (lambda g: {"weights": tuple(like(w, (2, 6, 0)) for w in g.weights)}, "at least 1"),
        (lambda g: {"biases": (*g.biases[:2], like(g.biases[2], (11,)))}, r"biases\[2\]"),
        (lambda g: {"window": None}, "window is missing"),
    ],
)
def test_parameters_that_do_not_fit_are_refused_while_tracing(change, says):
    given = arguments()
    with pytest.raises(ValueError, match=says):
        jax.eval_shape(lambda given: layer(FO, given, WHOLE), given._replace(**change(given)))


@pytest.mark.parametrize(
    ("zone", "lengths", "mask", "says"),
    [
        ("none", like(np.zeros(3), dtype="uint32"), None, "lengths has dtype uint32: give int32"),
        ("none", jnp.zeros(4, "int32"), None, r"lengths has shape \[4\]: give \[3\]"),
        ("hold", None, None, "zone 'hold' has no mask"),
        ("none", None, ((2,), (3,), (2, 3)), "zone 'none' takes no mask"),
        ("hold", None, ((2,), (3,), (3, 2)), r"mask t0 has shape \[3, 2\]: give \[2, 3\]"),
    ],
)
def test_sequences_that_do_not_fit_are_refused_while_tracing(zone, lengths, mask, says):
    given, how = arguments(), FO._replace(zone=zone)
    mask = None if mask is None else tuple(jnp.zeros(shape, "uint32") for shape in mask)
    with pytest.raises((TypeError, ValueError), match=says):
        jax.eval_shape(lambda given: layer(how, given, Sequences(lengths, mask)), given)


@pytest.mark.parametrize("place", range(9))
@pytest.mark.parametrize("wrong", ["dtype", "shape", "rank"])
def test_compiled_code_refuses_every_buffer_that_does_not_fit(place, wrong):
    given, numbers = arguments(), FO.attributes(ragged=False, batch=3)
    operands = jax.tree.leaves(given)
    shape, dtype = operands[place].shape, "float32"
    if wrong == "dtype":
        dtype = "float16"
    else:
        shape = (shape[0] + 1, *shape[1:]) if wrong == "shape" else (*shape, 1)
    if (place, wrong) == (0, "shape"):
        shape = (0, *shape[1:])
    operands[place] = jnp.zeros(shape, dtype)
    shapes = [(40, 3, 10), (3, 10), (1, 3, 6)]
    results = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    call = jax.ffi.ffi_call(xla.TARGETS["forward"], results)
    with pytest.raises(jax.errors.JaxRuntimeError, match="do not fit: "):
        jax.block_until_ready(call(*operands, **numbers))


def test_compiled_code_refuses_a_result_that_does_not_fit():
    given, numbers = arguments(), FO.attributes(ragged=False, batch=3)
    shapes = [(40, 3, 10), (3, 10), (2, 3, 6)]
    results = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    call = jax.ffi.ffi_call(xla.TARGETS["forward"], results)
    with pytest.raises(jax.errors.JaxRuntimeError, match="do not fit: result 2, window"):
        jax.block_until_ready(call(*jax.tree.leaves(given), **numbers))


STARVED = """
import math, resource, jax, jax.numpy as jnp
from impls.kernels import xla
from impls.jax_native.layer import Given, How, Sequences, layer
xla.register()
MIB = 1 << 20
def arguments(steps, features, taps, hidden):
    weights = tuple(jnp.zeros((taps, features, hidden)) for _ in range(3))
    biases = jnp.ones(hidden), jnp.zeros(hidden), jnp.zeros(hidden)
    window = jnp.zeros((taps - 1, 1, features)) if taps > 1 else None
    return Given(jnp.zeros((steps, 1, features)), jnp.ones((1, hidden)), weights, biases, window)
def used():
    (line,) = (line for line in open("/proc/self/status") if line.startswith("VmSize"))
    return int(line.split()[1]) << 10
# Packed weights of a task: 3 gates, 8 taps of 65536 inputs, 32 columns, 201 MB, by 2 tasks.
# Gate sums of a chunk, before tasks begin: 512 rows of 3 gates of 65536 channels, 403 MB.
for sizes in ((257, 65536, 8, 64), (2, 1, 1, 65536)):
    given = arguments(*sizes)
    how = How("fo", "none", True, False, 0.0, 0)
    call = jax.jit(lambda given: layer(how, given, Sequences(None, None))).lower(given).compile()
    for again in range(2):
        resource.setrlimit(resource.RLIMIT_AS, (used() + 180 * MIB, -1))
        try:
            jax.block_until_ready(call(given))
            print("enough")
        except jax.errors.JaxRuntimeError as error:
            print(str(error).splitlines()[0])
        resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
    left = 0.5 ** sizes[0]
    print(float(jnp.max(jnp.abs(call(given).c - left - (1 - left) * math.tanh(1)))))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone limits a process's addresses")
def test_a_call_that_finds_no_memory_raises_and_the_next_one_is_right():
    done = subprocess.run(
        [sys.executable, "-c", STARVED],
        env={**os.environ, "NPROC": "2"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    starved = "RESOURCE_EXHAUSTED: the QRNN layer found no memory"
    for first, second, off in (done.stdout.splitlines()[at : at + 3] for at in (0, 3)):
        assert first.startswith(starved)
        assert second.startswith(starved)
        assert float(off) <= 2e-6


@pytest.mark.slow  # gigabytes of zero pages
def test_offsets_beyond_2_to_the_31_elements_are_right():
    # Pages that are only read take no memory: x is one row of numbers behind 4 GB of zeros.
    steps, batch, features, hidden = 33000, 2, 1 << 15, 1
    private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    memory = mmap.mmap(-1, 2 * steps * batch * features, flags=private)
    x = np.frombuffer(memory, jnp.bfloat16).reshape(steps, batch, features)
    assert x.size > 1 << 31
    x[-1, -1] = np.linspace(-1, 1, features)
    whole = jax.device_put(x, may_alias=True)
    assert whole.unsafe_buffer_pointer() == x.ctypes.data
    weights = tuple(draw(1, features, hidden).astype("bfloat16") / (gate + 9) for gate in range(2))
    biases, c = (jnp.zeros(hidden),) * 2, jnp.zeros((batch, hidden))

    @jax.jit
    def run(weights, x):
        final = layer(FO._replace(pooling="f"), Given(x, c, weights, biases, None), WHOLE)
        return jnp.sum(final.c), final.c

    gradient = jax.grad(run, has_aux=True)
    want = gradient(weights, jnp.asarray(x[-3:]))
    assert jnp.all(want[1][-1] != 0)
    for got, right in zip(
        jax.tree.leaves(gradient(weights, whole)), jax.tree.leaves(want), strict=True
    ):
        np.testing.assert_array_equal(got, right)
