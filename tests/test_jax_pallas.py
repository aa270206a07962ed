"""jax_pallas: the kernels in Pallas' interpreter, and their lowering for CUDA, without a GPU."""

import re
from contextlib import nullcontext
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

jax = pytest.importorskip("jax")

import jax.numpy as jnp  # noqa: E402
from jax.experimental import pallas as pl  # noqa: E402

import impls  # noqa: E402
from harness.conformance import covering_set, run_checks  # noqa: E402
from impls._jax.pooling import Sequences  # noqa: E402
from impls.contract import POOLINGS, ModelSpec, Placement  # noqa: E402
from impls.jax_pallas import plan  # noqa: E402
from impls.jax_pallas.pool import gradients, pool  # noqa: E402
from impls.reference import hold_mask  # noqa: E402
from tests import jax_pooling  # noqa: E402
from tests import jax_works as works  # noqa: E402
from tests.cuda_shim.problem import SEED, Problem, spec  # noqa: E402

NAME = "jax_pallas"
DTYPES = ("float32", "bfloat16")
HELD = {"zoneout": 0.4}
LITERAL = HELD | {"zoneout_mode": "literal"}
EXPECTED = HELD | {"zoneout_eval": "expectation"}


@pytest.fixture
def interpreted():
    with plan.interpreted():
        yield


def on_cpu():
    """The card with the CPU let in, for the interpreter."""
    return replace(impls.get(NAME), unsupported=lambda *_: None)


@pytest.mark.parametrize(
    ("pooling", "dtype", "zoneout", "training", "lengths", "backwards", "hidden"),
    [
        ("f", "float32", {}, True, None, False, 33),
        ("fo", "float32", EXPECTED, False, (21, 1, 9), True, 5),
        ("ifo", "bfloat16", HELD, True, (21, 1, 9), True, 5),
        pytest.param("f", "float32", HELD, True, (33, 1, 9), True, 5, marks=pytest.mark.slow),
        pytest.param("fo", "bfloat16", {}, True, None, False, 33, marks=pytest.mark.slow),
        pytest.param("ifo", "float32", LITERAL, True, (9, 21, 8), False, 5, marks=pytest.mark.slow),
        pytest.param("ifo", "float32", EXPECTED, False, None, True, 5, marks=pytest.mark.slow),
    ],
)
def test_values_states_and_gradients_equal_the_oracle(
    interpreted, pooling, dtype, zoneout, training, lengths, backwards, hidden
):
    steps = max(lengths or (21,))
    problem = Problem(
        spec(pooling, hidden, **zoneout), dtype, 3, steps, lengths, training, backwards, 2
    )
    problem.check(jax_pooling.run(pool, problem, ragged=lengths is not None))


def test_the_mask_is_the_oracles_bit_for_bit(interpreted):
    problem = Problem(spec("f", 9, zoneout=0.5), batch=3, steps=50, backwards=True, layer=3)
    problem.t0 = np.array([5, (1 << 33) + 11, (1 << 32) - 3])
    problem.pre[:] = problem.bias[:] = 0  # z = 0 and f = 1/2: c is held or halved, exactly
    y, _ = jax.jit(pool, static_argnums=0)(
        jax_pooling.call_of(problem), *jax_pooling.arguments(problem, ragged=False)
    )
    cells = np.concatenate([problem.c0[None], problem.order(np.asarray(y))])
    held = hold_mask(problem.spec, SEED, problem.rows, problem.t0, 50, 3, "rev")
    np.testing.assert_array_equal(cells[1:] == cells[:-1], held)


@pytest.mark.slow
def test_a_layer_in_both_directions_equals_the_oracle(interpreted):
    whole = works.small(pooling="f", kernel_width=3, zoneout=0.3, bidirectional=True)
    work, weights = works.work_of("backward", whole), works.weights(whole)
    got = works.once(on_cpu().load(whole, weights, Placement()).prepare(work))
    works.assert_close(got, works.reference.run(whole, weights, work), "float32")


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_conformance_suite_passes(interpreted, dtype):
    """The same checks as on a device, in the interpreter."""
    rows = list(run_checks(on_cpu(), (dtype,), covering_set()))
    assert len(rows) > 40
    assert [row["message"] for row in rows if row["status"] != "passed"] == []


def an_h100():
    """JAX 0.11 asks for the GPU's name before it lowers a kernel; 0.10 has no such question."""
    if jax.__version_info__ < (0, 11):
        return nullcontext()
    from jax.sharding import AbstractDevice, AbstractMesh, use_abstract_mesh

    device = AbstractDevice("NVIDIA H100 80GB HBM3", 132, "gpu")
    return use_abstract_mesh(AbstractMesh((), (), abstract_device=device))


def lowered(function, *args):
    """The program for CUDA, or None where this jaxlib compiles kernels already while it lowers.

    jaxlib above 0.10.2 hands the finished Triton module to a compiler that only the CUDA plugin
    brings: without it the error below is the proof that the module was made.
    """
    try:
        with an_h100():
            return jax.jit(function).trace(*args).lower(lowering_platforms=("cuda",)).as_text()
    except RuntimeError as error:
        if "does not have a Triton compilation handler" not in str(error):
            raise
        return None


def check_lowering(problem, ragged):
    call = jax_pooling.call_of(problem)
    pre, bias, c0, given = jax_pooling.arguments(problem, ragged)
    own = plan.choose(call, pre.dtype, problem.steps, problem.batch, c0.shape[1], ragged)
    checkpoints = jax.ShapeDtypeStruct((own.tiles, *c0.shape), jnp.float32)
    y = jax.ShapeDtypeStruct((*pre.shape[:2], c0.shape[1]), pre.dtype)
    forward = lowered(lambda *args: pool(call, *args), pre, bias, c0, given)
    backward = lowered(lambda *a: gradients(call, *a), pre, bias, checkpoints, given, y, c0)
    for text, name in ((forward, "qrnn_pool_forward"), (backward, "qrnn_pool_backward")):
        assert text is None or text.count("custom_call @__gpu$xla.gpu.triton") == 1
        assert text is None or name in text


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("zone", ["none", "hold", "expect"])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_both_kernels_lower_for_cuda(pooling, zone, dtype):
    zoneout = {"none": {}, "hold": HELD, "expect": EXPECTED}[zone]
    if zoneout and dtype == "bfloat16":
        zoneout = zoneout | {"zoneout_mode": "literal"}
    problem = Problem(spec(pooling, 20, **zoneout), dtype, steps=9, training=zone == "hold",
                      backwards=dtype == "float32")  # fmt: skip
    assert problem.zone == zone
    check_lowering(problem, ragged=zone == "hold")


def test_long_and_wide_problems_lower_for_cuda():
    for hidden, steps, dtype in ((33, 70, "float32"), (2048, 17, "bfloat16")):
        check_lowering(Problem(spec("f", hidden), dtype, 40, steps), ragged=False)


def offsets(module):
    """By number of a kernel's argument, the types of integer that are added to its pointer."""
    roots = dict(re.findall(r"%(\w+) = tt.splat %arg(\d+) :", module))
    found = {}
    pointer = r"tt.addptr %(\w+), %\w+ : tensor<[^>]*>>?, tensor<\d+x(i\d+)>"
    for root, integer in re.findall(pointer, module):
        found.setdefault(int(roots[root]), set()).add(integer)
    return found


@pytest.mark.parametrize("dtype", DTYPES)
def test_offsets_into_more_than_2_to_the_31_elements_have_64_bits(dtype, monkeypatch, capfd):
    monkeypatch.setattr(pl, "pallas_call", partial(pl.pallas_call, debug=True))
    call = jax_pooling.call_of(Problem(spec("f")))
    steps, batch, hidden = 1 << 20, 64, 64
    y = jax.ShapeDtypeStruct((steps, batch, hidden), dtype)
    pre = jax.ShapeDtypeStruct((steps, batch, 2 * hidden), dtype)
    bias, c0 = (jax.ShapeDtypeStruct(s, jnp.float32) for s in ((2 * hidden,), (batch, hidden)))
    assert y.size > 1 << 31
    given = Sequences(None, None, None, None)
    lowered(lambda *args: pool(call, *args, given), pre, bias, c0)
    forward = offsets(capfd.readouterr().out)
    own = plan.choose(call, pre.dtype, steps, batch, hidden, False)
    checkpoints = jax.ShapeDtypeStruct((own.tiles, *c0.shape), jnp.float32)
    lowered(lambda *args: gradients(call, *args), pre, bias, checkpoints, given, y, c0)
    backward = offsets(capfd.readouterr().out)
    # forward: pre bias c0 -> y c; backward: pre bias checkpoints dy dc -> dpre dc0 dbias
    assert {at: forward[at] for at in (0, 3)} == {0: {"i64"}, 3: {"i64"}}
    assert {at: backward[at] for at in (0, 3, 5)} == {0: {"i64"}, 3: {"i64"}, 5: {"i64"}}


def test_blocks_and_tiles_follow_the_work():
    call = jax_pooling.call_of(Problem(spec()))

    def shape(batch, steps, hidden, dtype="float32"):
        own = plan.choose(call, jnp.dtype(dtype), steps, batch, hidden, False)
        return own.block, own.tile

    assert shape(8, 512, 320) == (32, 16)
    assert shape(8, 20, 320) == (32, 8)
    assert shape(256, 512, 320) == (32, 8)
    assert shape(256, 512, 320, "bfloat16") == (64, 8)
    assert shape(256, 512, 321, "bfloat16") == (32, 8)
    assert shape(8, 512, 320, "bfloat16") == (32, 16)


def test_a_second_derivative_is_refused_and_says_what_to_do():
    problem = Problem(spec())
    args, call = jax_pooling.arguments(problem), jax_pooling.call_of(problem)

    def slope(pre):
        return jax.grad(lambda pre: pool(call, pre, *args[1:])[0].sum())(pre).sum()

    with pytest.raises(NotImplementedError, match="no second derivative: take it through jax_scan"):
        jax.eval_shape(jax.grad(slope), args[0])


def test_the_interpreter_is_asked_for_and_not_a_fallback():
    problem = Problem(spec())
    with pytest.raises(ValueError, match="Only interpret mode is supported on CPU"):
        jax_pooling.run(pool, problem)
    with plan.interpreted():
        assert plan.choose(jax_pooling.call_of(problem), np.float32, 3, 2, 5, False).interpret
    assert not plan.choose(jax_pooling.call_of(problem), np.float32, 3, 2, 5, False).interpret


def test_the_card_says_where_it_runs():
    card = impls.get(NAME)
    assert "'lstm'" in card.unsupported(ModelSpec(family="lstm"), Placement("cuda"))
    assert "jax_scan" in card.unsupported(ModelSpec(), Placement("cpu"))
    assert "float64" in card.unsupported(ModelSpec(), Placement("cuda", "float64"))
    assert card.unsupported(ModelSpec(), Placement("cuda", "bfloat16")) is None
