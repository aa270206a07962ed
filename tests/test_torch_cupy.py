"""torch_cupy: the operator and the layer, their kernels over the CPU shim."""

import mmap
from dataclasses import replace

import numpy as np
import pytest

import impls
from harness.conformance import covering_set, run_checks
from harness.speed import parts
from harness.speed.grid import params_of, work_of
from impls import reference
from impls.contract import PARTS, POOLINGS, ModelSpec, Placement
from tests import cuda_shim
from tests.cuda_shim.arguments import arguments, offered_on_cpu, pool
from tests.measuring import point
from tests.torch_works import check_against_oracle, parameters

torch = pytest.importorskip("torch")

NAME = "torch_cupy"
LAYER = ModelSpec(input_size=12, hidden_size=20)
STACK = ModelSpec(
    input_size=5, hidden_size=6, layers=3, kernel_width=3, dense=True, bidirectional=True
)
RAGGED = (9, 1, 4)
DTYPES = ("float32", "bfloat16")
shim = pytest.mark.skipif(cuda_shim.COMPILER is None, reason="no C++ compiler")


@pytest.fixture
def on_cpu(monkeypatch):
    """The operator takes CPU tensors and launches the unchanged kernels over the shim."""
    from impls.torch_cupy import launch

    offered_on_cpu()
    monkeypatch.setattr(launch, "launch", cuda_shim.launch)


@shim
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kernel_width", [1, 2, 5])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_values_states_and_gradients_equal_the_oracle(on_cpu, pooling, kernel_width, dtype):
    spec = replace(LAYER, pooling=pooling, kernel_width=kernel_width)
    check_against_oracle(NAME, spec, dtype)


@shim
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("lengths", [None, RAGGED])
@pytest.mark.parametrize("mode", ["keep", "literal"])
def test_a_dense_bidirectional_stack_with_zoneout_equals_the_oracle(on_cpu, mode, lengths, dtype):
    layers = 3 if dtype == "float32" else 1
    spec = replace(STACK, pooling="ifo", zoneout=0.4, zoneout_mode=mode, layers=layers)
    check_against_oracle(NAME, spec, dtype, lengths=lengths, seed=(1 << 63) + 5)


@shim
@pytest.mark.parametrize("policy", ["off", "expectation"])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_zoneout_in_evaluation_follows_its_policy(on_cpu, pooling, policy):
    spec = replace(LAYER, pooling=pooling, zoneout=0.4, zoneout_eval=policy)
    check_against_oracle(NAME, spec)


@shim
def test_sequences_shorter_than_the_window_equal_the_oracle(on_cpu):
    spec = replace(LAYER, kernel_width=5, bidirectional=True)
    for steps, lengths in ((1, None), (2, None), (2, (1, 2, 1))):
        check_against_oracle(NAME, spec, steps=steps, lengths=lengths)


@shim
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["train_step", "forward", "step"])
def test_other_kinds_of_work_equal_the_oracle(on_cpu, kind, dtype):
    spec = replace(LAYER, zoneout=0.2)
    check_against_oracle(NAME, spec, dtype, kind=kind, steps=1 if kind == "step" else 9, seed=11)


@shim
@pytest.mark.parametrize("dtype", DTYPES)
def test_gradients_of_any_stride_equal_those_of_a_dense_one(on_cpu, dtype):
    args = arguments(dtype=dtype)
    y = pool(*args)[0]
    dense = torch.randn_like(y)
    spread = torch.stack([dense, dense], dim=3)[..., 0]
    turned = dense.permute(2, 1, 0).contiguous().permute(2, 1, 0)
    one = torch.ones((), dtype=y.dtype)
    for given, expected in (
        (spread, dense),
        (turned, dense),
        (one.expand_as(y), torch.ones_like(y)),
    ):
        assert given.stride() != expected.stride()
        found, wanted = (
            torch.autograd.grad(y, args[:3], dy, retain_graph=True) for dy in (given, expected)
        )
        for a, b in zip(found, wanted, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=0)


@shim
def test_gates_that_are_a_slice_of_a_wider_tensor_are_read_in_place(on_cpu):
    args = arguments()
    wide = torch.randn(6, 5, 2 * 12)
    wide[:, 1:3, 4:16] = args[0].detach()
    sliced = wide[:, 1:3, 4:16].requires_grad_()
    found, expected = pool(sliced, *args[1:]), pool(*args)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    (a,), (b,) = (torch.autograd.grad(o[0].square().sum(), x)
                  for o, x in ((found, sliced), (expected, args[0])))  # fmt: skip
    torch.testing.assert_close(a, b, rtol=0, atol=0)


@shim
@pytest.mark.parametrize("reverse", [False, True])
def test_offsets_beyond_31_bits_are_addressed(on_cpu, reverse):
    step = (1 << 31) + 64  # elements; the pages between the steps are never touched
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0x4000)
    room = torch.frombuffer(mmap.mmap(-1, 2 * (2 * step + 24), flags=flags), dtype=torch.bfloat16)
    args = arguments(dtype="bfloat16", steps=3, reverse=reverse)
    far = room.as_strided((3, 2, 12), (step, 12, 1))
    with torch.no_grad():
        far.copy_(args[0])
        torch.testing.assert_close(pool(far, *args[1:]), pool(*args), rtol=0, atol=0)


@shim
def test_a_decoder_draws_masks_of_its_own(on_cpu):
    """With f = 0 a step's state is z of that step, or where zoneout holds the state before."""
    spec = ModelSpec(hidden_size=4, pooling="f", zoneout=0.5)
    rows, t0 = torch.tensor([3, 8]), torch.tensor([0, 5])
    for decoder, direction in ((False, "fwd"), (True, "dec")):
        args = arguments(
            "f", steps=40, zone="hold", seed=torch.tensor([77]), rows=rows, t0=t0,
            zoneout=0.5, layer=2, decoder=decoder,
        )  # fmt: skip
        with torch.no_grad():
            args[0][..., 4:] = -60.0
            args[1][:] = 0.0
            y, _, _ = pool(*args)
        held = y == torch.cat([args[2][None], y[:-1]])
        where = (40, 2, direction)
        expected = reference.hold_mask(spec, 77, rows.numpy(), t0.numpy(), *where)
        np.testing.assert_array_equal(held.numpy(), expected)
        network = reference.hold_mask(spec, 77, rows.numpy(), t0.numpy(), 40, 2, "fwd", 1)
        assert decoder == np.array_equal(expected, network)


@shim
def test_opcheck_passes(on_cpu):
    for args in (arguments(), arguments("ifo", "bfloat16", lengths=torch.tensor([6, 2]))):
        torch.library.opcheck(torch.ops.quasibench_cuda.pool.default, args)


@shim
def test_torch_compile_sees_no_graph_break_and_equal_gradients(on_cpu):
    def loss(pre, *more):
        y, c, _ = pool(pre * 2, *more)
        return (y * 3).sum() + c.sum()

    args = arguments()
    assert torch._dynamo.explain(loss)(*args).graph_break_count == 0
    torch._dynamo.reset()
    expected = torch.autograd.grad(loss(*args), args[:3])
    quick = torch.compile(loss, backend="aot_eager", fullgraph=True)
    for a, b in zip(torch.autograd.grad(quick(*args), args[:3]), expected, strict=True):
        torch.testing.assert_close(a, b)
    torch._dynamo.reset()


@shim
def test_a_second_derivative_raises_and_says_what_to_do(on_cpu):
    args = arguments()
    first = torch.autograd.grad(pool(*args)[0].square().sum(), args[:3], create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative: take it through torch_eager"):
        first[0].sum().backward()


@shim
def test_an_unused_output_costs_no_gradient_of_it(on_cpu):
    args = arguments()
    y, c, _ = pool(*args)
    by_c = torch.autograd.grad(c.sum(), args[:3], retain_graph=True)
    by_both = torch.autograd.grad(c.sum() + 0 * y.sum(), args[:3])
    for a, b in zip(by_c, by_both, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


@shim
def test_autocast_runs_the_product_and_the_gates_in_bfloat16(on_cpu):
    from impls.torch_cupy.core import core

    params = {n: torch.from_numpy(v) for n, v in parameters(LAYER).items()}
    own = {n.removeprefix("layers.0.fwd."): v for n, v in params.items()}
    state = {"c": torch.zeros(3, 20), "window": torch.zeros(1, 3, 12)}
    x = torch.randn(9, 3, 12)
    exact, _ = core(LAYER, own, x, state, None, None, 0, "fwd")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, final = core(LAYER, own, x, state, None, None, 0, "fwd")
    assert (y.dtype, final["c"].dtype) == (torch.bfloat16, torch.float32)
    assert (y.float() - exact).norm() / exact.norm() < 2e-2


@shim
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_conformance_suite_passes(on_cpu, dtype):
    """The same checks as on a device, of the card with the CPU let in."""
    here = replace(impls.get(NAME), requires=("torch",), unsupported=lambda *_: None)
    rows = list(run_checks(here, (dtype,), covering_set()))
    assert len(rows) > 40
    assert [row["message"] for row in rows if row["status"] != "passed"] == []


def test_the_card_says_where_it_runs():
    card = impls.get(NAME)
    assert "'lstm'" in card.unsupported(ModelSpec(family="lstm"), Placement("cuda"))
    assert "torch_native" in card.unsupported(ModelSpec(), Placement("cpu"))
    assert "float64" in card.unsupported(ModelSpec(), Placement("cuda", "float64"))
    for dtype in DTYPES:
        assert card.unsupported(STACK, Placement("cuda", dtype)) is None


@shim
@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("pooling", POOLINGS)
def test_the_parts_that_are_timed_alone_are_right(on_cpu, part, dtype, pooling):
    spec = ModelSpec(input_size=7, hidden_size=36, kernel_width=3, pooling=pooling)
    for kind in ("forward", "backward"):
        at = point(kind=kind, spec=spec, placement=Placement(dtype=dtype), batch=3, steps=35)
        params, given = params_of(spec, at, 3), work_of(at, spec, 3)
        run = impls.get(NAME).parts[part](spec, params, at.placement, given)
        for _ in range(2):  # a second call starts from the same state
            run()
            run.wait()
            parts.check(part, run, spec, params, given, dtype)
