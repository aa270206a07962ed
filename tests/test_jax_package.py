"""What the JAX implementations share: mask, sessions, precision, probes."""

import dataclasses

import numpy as np
import pytest

jax = pytest.importorskip("jax")

import jax.numpy as jnp  # noqa: E402

from impls import reference  # noqa: E402
from impls._jax import zoneout  # noqa: E402
from impls._jax.probes import probe  # noqa: E402
from impls._jax.session import RESTORE_AFTER  # noqa: E402
from impls.contract import Placement, Run, Session, SpecError  # noqa: E402
from tests import jax_works as works  # noqa: E402


def test_philox_gives_the_known_answer():
    drawn = zoneout.philox4x32(jnp.zeros(2, jnp.uint32), (jnp.uint32(0),) * 4)
    assert [f"{int(word):08x}" for word in drawn] == [
        "6627e8d5",
        "e169c58d",
        "bc57ac4c",
        "9b00dbd8",
    ]


@pytest.mark.parametrize("x64", [False, True])
@pytest.mark.parametrize(
    ("steps", "t0", "rows", "seed"),
    [
        (1, [0, 7, 15], [0, 1, 2], 0),
        (9, [0, 7, 2**32 - 3], [5, 0, 2**31], 2**64 - 1),
        (24, [8, 2**35 + 6, 3], [2**32 + 1, 9, 9], 12345678901234567890),
    ],
)
def test_hold_mask_is_bit_equal_to_the_oracle(steps, t0, rows, seed, x64):
    spec = works.small(zoneout=0.3)
    with jax.enable_x64(x64):
        got = zoneout.hold_mask(
            spec,
            jnp.asarray(zoneout.words(seed)),
            jnp.asarray(zoneout.words(rows)[0]),
            jnp.asarray(zoneout.words(t0)),
            steps,
            3,
            "rev",
            network=1,
        )
    want = reference.hold_mask(spec, seed, np.array(rows), np.array(t0), steps, 3, "rev", 1)
    np.testing.assert_array_equal(got, want)
    assert 0 < want.mean() < 1


def test_float64_leaves_the_process_at_its_defaults():
    spec = works.small()
    own = works.session("jax_scan", spec, "float64")
    run = own.prepare(works.work_of("train_step", spec, "float64"))
    for _ in range(2):
        works.once(run)
    assert {value.dtype.name for value in own.export().values()} == {"float64"}
    assert not jax.config.jax_enable_x64
    assert jax.config.jax_default_matmul_precision is None
    assert jnp.zeros(1).dtype == jnp.float32


def test_session_and_runs_follow_the_contract():
    spec = works.small()
    own = works.session("jax_scan", spec)
    assert isinstance(own, Session)
    for kind in ("forward", "backward", "train_step"):
        run = own.prepare(works.work_of(kind, spec))
        assert isinstance(run, Run)
        with pytest.raises(RuntimeError, match="call it before result"):
            run.result()


def test_export_is_a_copy_of_the_given_parameters():
    spec = works.small()
    own, given = works.session("jax_scan", spec), works.weights(spec)
    for name, value in own.export().items():
        np.testing.assert_array_equal(value, given[name])
        value[:] = 0.0
    assert any(value.any() for value in own.export().values())


def test_run_keeps_no_hold_of_the_works_arrays():
    spec = works.small()
    work = works.work_of("forward", spec, lengths=None)
    run = works.session("jax_scan", spec).prepare(work)
    want = works.once(run)["y"]
    work.x[:] = 0.0
    np.testing.assert_array_equal(works.once(run)["y"], want)


def test_reset_restores_the_parameters_after_a_hundred_calls_and_not_before():
    spec = works.small()
    run = works.session("jax_scan", spec).prepare(works.work_of("train_step", spec))
    losses = []
    for _ in range(RESTORE_AFTER - 1):
        run()
        run.wait()
        run.reset()
        losses.append(float(run._loss))
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0]
    run()
    run.reset()
    run()
    run.wait()
    assert float(run._loss) == losses[0] == float(run.result()["loss"])


def test_every_call_computes_the_whole_layer():
    """The executable's own count of operations holds the products: nothing was folded away."""
    spec = works.small(input_size=32, hidden_size=48)
    run = works.session("jax_scan", spec).prepare(works.work_of("backward", spec, lengths=None))
    products = 3 * 2 * (9 * 3) * (2 * 32) * (3 * 48)
    assert run._call.cost_analysis()["flops"] >= products


@pytest.mark.parametrize("name", ["jax_scan", "jax_associative"])
def test_cuda_would_multiply_float32_as_float32(name):
    """Lowered for a GPU, every product asks for the highest precision: no TF32."""
    from impls._jax.programs import Program
    from impls._jax.stack import zero_state

    spec = works.small(kernel_width=3, zoneout=0.3)
    work = works.work_of("backward", spec, lengths=None)
    inputs = {"x": work.x, "dy": work.dy, "lengths": None, "mask": None}
    inputs |= {key: zero_state(spec, work.x) for key in ("state", "dstate")}
    program = Program("backward", works.impls.get(name).core(), spec, Placement())
    traced = jax.jit(lambda *args: program(*args)).trace(works.weights(spec), inputs)
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
    products = [line for line in text.splitlines() if "stablehlo.dot_general" in line]
    assert len(products) == 9
    assert all("precision = [HIGHEST, HIGHEST]" in line for line in products)


def test_works_and_parameters_that_do_not_fit_are_refused():
    spec = works.small(bidirectional=True)
    own, work = (
        works.session("jax_scan", spec),
        works.work_of("forward", spec, steps=1, lengths=None),
    )
    with pytest.raises(SpecError, match="bidirectional"):
        own.prepare(dataclasses.replace(work, kind="step"))
    with pytest.raises(SpecError, match="input_size 5"):
        own.prepare(dataclasses.replace(work, x=work.x[..., :4]))
    with pytest.raises(SpecError, match=r"state 'layers\.9\.fwd\.c'"):
        own.prepare(dataclasses.replace(work, state={"layers.9.fwd.c": np.zeros((3, 7))}))
    with pytest.raises(SpecError, match="has shape"):
        own.prepare(dataclasses.replace(work, state={"layers.0.fwd.c": np.zeros((3, 8))}))
    with pytest.raises(SpecError, match="another spec"):
        works.impls.get("jax_scan").load(works.small(), works.weights(spec), Placement())


def test_absent_device_is_named():
    if "cuda" in {device.platform for device in jax.devices()} or jax.default_backend() == "gpu":
        pytest.skip("this machine has a CUDA device")
    with pytest.raises(RuntimeError, match="'cuda' was asked for"):
        works.impls.get("jax_scan").load(
            works.small(), works.weights(works.small()), Placement("cuda")
        )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
def test_gemm_probe_multiplies(dtype):
    run = probe("gemm", Placement("cpu", dtype), 16)
    (a, b) = (np.asarray(value, dtype=np.float64) for value in run._inputs)
    assert works.off(works.once(run)["y"], a @ b) <= works.VALUES[dtype]
    assert a.std() > 0.5


@pytest.mark.parametrize(("name", "function"), [("copy", np.copy), ("exp", np.exp)])
def test_probe_reads_its_source_and_writes_into_one_output(name, function):
    run = probe(name, Placement(), 4096)
    place = run._out.unsafe_buffer_pointer()
    for _ in range(3):
        got = works.once(run)["y"]
    (source,) = (np.asarray(value) for value in run._inputs)
    assert works.off(got, function(source)) <= works.VALUES["float32"]
    assert run._out.unsafe_buffer_pointer() == place
    assert run._inputs[0].unsafe_buffer_pointer() != place
    assert got.size == (1024 if name == "copy" else 4096)


def test_dispatch_probe_calls_the_device():
    run = probe("dispatch", Placement(), 1)
    assert [float(works.once(run)["y"]) for _ in range(3)] == [1.0, 2.0, 3.0]


def test_unknown_probe_is_refused():
    with pytest.raises(SpecError, match="'gemm', 'copy', 'dispatch', 'exp'"):
        probe("matmul", Placement(), 1)
