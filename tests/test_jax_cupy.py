"""jax_cupy: the CUDA kernels inside XLA's programs, run over the CPU shim."""

import sys
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest

jax = pytest.importorskip("jax")

import impls  # noqa: E402
from harness.conformance import covering_set, run_checks  # noqa: E402
from impls.contract import POOLINGS, ModelSpec, Placement  # noqa: E402
from impls.jax_cupy import launch  # noqa: E402
from impls.jax_cupy.pool import pool  # noqa: E402
from tests import cuda_shim, jax_pooling  # noqa: E402
from tests.cuda_shim.problem import Problem, spec  # noqa: E402

NAME = "jax_cupy"
DTYPES = ("float32", "bfloat16")
HELD = {"zoneout": 0.4}
EXPECTED = HELD | {"zoneout_eval": "expectation"}
FEW = ("f-2-both", "fo-3-ragged", "ifo-3-both", "keep-fo", "one-step", "wider-than-long")
shim = pytest.mark.skipif(cuda_shim.COMPILER is None, reason="no C++ compiler")


def host_address(buffer):
    return np.asarray(buffer).ctypes.data


@pytest.fixture
def on_cpu(monkeypatch):
    """XLA's CPU buffers go to the unchanged kernels over the shim."""
    monkeypatch.setattr(launch, "address", host_address)
    monkeypatch.setattr(launch, "launch", cuda_shim.launch)


@shim
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("pooling", POOLINGS)
def test_values_states_and_gradients_equal_the_oracle(on_cpu, pooling, dtype):
    for (zoneout, training), (lengths, backwards), hidden in product(
        (({}, True), (HELD, True), (EXPECTED, False)), ((None, False), ((21, 1, 9), True)), (5, 6)
    ):
        own = spec(pooling, hidden, **zoneout)
        problem = Problem(own, dtype, 3, 21, lengths, training, backwards, 2)
        problem.check(jax_pooling.run(pool, problem, ragged=lengths is not None))


@shim
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "names", [FEW, pytest.param(None, marks=pytest.mark.slow)], ids=["few", "all"]
)
def test_the_conformance_suite_passes(on_cpu, names, dtype):
    """The same checks as on a device, of the card with the CPU let in."""
    here = replace(impls.get(NAME), requires=("jax",), unsupported=lambda *_: None)
    chosen = [case for case in covering_set() if names is None or case.name in names]
    rows = list(run_checks(here, (dtype,), chosen))
    assert len(rows) > (40 if names is None else 12)
    assert [row["message"] for row in rows if row["status"] != "passed"] == []


@shim
def test_a_compiled_program_launches_anew_at_every_call(on_cpu):
    problem = Problem(spec())
    call, (pre, *rest) = jax_pooling.call_of(problem), jax_pooling.arguments(problem)
    compiled = jax.jit(lambda pre: pool(call, pre, *rest)[0])
    first, second, again = (np.asarray(compiled(value)) for value in (pre, pre + 1, pre))
    assert np.all(first != second)
    np.testing.assert_array_equal(first, again)


@pytest.mark.parametrize("dtype", DTYPES)
def test_calls_lower_for_cuda_as_parts_of_a_command_buffer(dtype):
    problem = Problem(spec(zoneout=0.3), dtype)
    call, args = jax_pooling.call_of(problem), jax_pooling.arguments(problem)

    def loss(*own):
        return pool(call, *own, args[3])[0].sum()

    text = jax.jit(jax.grad(loss)).trace(*args[:3]).lower(lowering_platforms=("cuda",)).as_text()
    assert text.count("custom_call @xla_buffer_python_gpu_callback_cmd_buffer") == 2


class FakeCupy:
    """Remembers on which stream, with what and how often kernels are compiled and launched."""

    def __init__(self, capturing=False):
        self.compiled, self.launched, self.current, self.capturing = [], [], None, capturing
        self.cuda = SimpleNamespace(
            Stream=SimpleNamespace(from_external=self.enter), Device=lambda _: nullcontext()
        )

    @contextmanager
    def enter(self, stream):
        self.current = stream.__cuda_stream__()
        yield SimpleNamespace(is_capturing=lambda: self.capturing)
        self.current = None

    def RawModule(self, code, options, name_expressions):  # noqa: N802 - CuPy's name
        self.compiled += name_expressions
        return SimpleNamespace(get_function=lambda name: self.launch)

    def launch(self, grid, block, args, shared_mem):
        self.launched.append((self.current, grid, block, args, shared_mem))


@pytest.fixture
def fake_cupy(monkeypatch):
    fake = FakeCupy()
    monkeypatch.setitem(sys.modules, "cupy", fake)
    monkeypatch.setattr(launch, "address", host_address)
    monkeypatch.setattr(launch, "_functions", {})
    return fake


def enqueued(stream, kernel):
    """One launch as XLA's program makes it: with a context and a buffer of its own."""
    buffer = SimpleNamespace(__dlpack_device__=lambda: (2, 0))
    launch.launch(kernel, 3, (1, 2), (SimpleNamespace(stream=stream), buffer))


def kernel_of(problem):
    return problem.kernel("pool_forward")


def test_each_launch_goes_to_the_stream_of_its_own_call_and_only_the_first_compiles(fake_cupy):
    kernel = kernel_of(Problem(spec()))
    enqueued(0xABC, kernel)
    enqueued(0xDEF, kernel)
    assert [launched[0] for launched in fake_cupy.launched] == [(0, 0xABC), (0, 0xDEF)]
    assert fake_cupy.launched[0][1:] == ((3,), (128,), (1, 2), kernel.shared_bytes)
    assert fake_cupy.compiled == [kernel.expression]


def test_an_uncompiled_kernel_is_refused_while_a_graph_is_captured(fake_cupy):
    fake_cupy.capturing = True
    with pytest.raises(RuntimeError, match="make the same call once before the capture"):
        enqueued(1, kernel_of(Problem(spec())))
    assert not fake_cupy.compiled


def test_kernels_are_compiled_while_a_program_is_traced(fake_cupy, monkeypatch):
    device = SimpleNamespace(core_count=1, local_hardware_id=0)
    monkeypatch.setattr(launch, "_first_device", lambda: device)
    problem = Problem(spec(), steps=40)
    call, args = jax_pooling.call_of(problem), jax_pooling.arguments(problem)
    fake_cupy.capturing = True
    jax.eval_shape(lambda *own: pool(call, *own), *args)
    # The plan is for this device: two blocks are plenty for its one multiprocessor.
    assert fake_cupy.compiled == ["qb::pool_forward<float, 1, 0, true, 1, 32, 8, 8>"]
    assert not fake_cupy.launched


def wrong(**changes):
    problem = Problem(spec())
    args = dict(zip(("pre", "bias", "c0"), jax_pooling.arguments(problem), strict=False))
    args |= {name: change(args[name]) for name, change in changes.items()}
    jax.eval_shape(
        lambda *own: pool(jax_pooling.call_of(problem), *own, jax_pooling.arguments(problem)[3]),
        *args.values(),
    )


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"pre": lambda a: a.astype("float16")}, TypeError, "pre is float16: give float32 or"),
        ({"c0": lambda a: a.astype("float16")}, TypeError, "c0 is float16: give float32"),
        ({"bias": lambda a: a[1:]}, ValueError, r"bias \(14,\) .* with G = 3"),
        ({"c0": lambda a: a[:1]}, ValueError, r"give \[T, B, G\*H\]"),
    ],
)
def test_wrong_arguments_are_refused_while_tracing(changes, error, message):
    wrong()
    with pytest.raises(error, match=message):
        wrong(**changes)


def test_a_second_derivative_is_refused_and_says_what_to_do():
    problem = Problem(spec())
    args, call = jax_pooling.arguments(problem), jax_pooling.call_of(problem)

    def slope(pre):
        return jax.grad(lambda pre: pool(call, pre, *args[1:])[0].sum())(pre).sum()

    with pytest.raises(NotImplementedError, match="no second derivative: take it through jax_scan"):
        jax.eval_shape(jax.grad(slope), args[0])


def test_the_card_says_where_it_runs_and_what_it_needs():
    card = impls.get(NAME)
    assert "'lstm'" in card.unsupported(ModelSpec(family="lstm"), Placement("cuda"))
    assert "jax_scan" in card.unsupported(ModelSpec(), Placement("cpu"))
    assert "float64" in card.unsupported(ModelSpec(), Placement("cuda", "float64"))
    assert card.unsupported(ModelSpec(), Placement("cuda", "bfloat16")) is None
    if impls.absent("cupy"):
        assert "cupy not installed" in impls.missing(card)
