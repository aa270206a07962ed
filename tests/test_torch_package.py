"""The pieces that the PyTorch implementations share: mask, taps, sessions, probes."""

from dataclasses import replace

import numpy as np
import pytest

from impls import reference
from impls.contract import ModelSpec, Placement, SpecError
from tests.torch_works import TOLERANCE, distance, load, parameters, run, work

torch = pytest.importorskip("torch")

from impls._torch import ops, probes, zoneout  # noqa: E402
from impls._torch.arrays import to_tensor  # noqa: E402
from impls._torch.session import CoreSession  # noqa: E402
from impls.torch_eager.core import core  # noqa: E402

SPEC = ModelSpec(input_size=5, hidden_size=6, kernel_width=3, pooling="ifo", bidirectional=True)


@pytest.mark.parametrize("steps", [1, 7, 8, 30])
@pytest.mark.parametrize("seed", [0, 12345678901234567890, (1 << 64) - 1])
def test_the_mask_is_bit_for_bit_the_oracles(seed, steps):
    spec = replace(SPEC, hidden_size=37, zoneout=0.3)
    rows, t0 = np.array([0, 9, 1 << 33]), np.array([0, 13, (1 << 35) + 6])
    for layer, direction, network in ((0, "fwd", 0), (3, "rev", 1)):
        where = (steps, layer, direction, network)
        expected = reference.hold_mask(spec, seed, rows, t0, *where)
        given = zoneout.hold_mask(spec, seed, torch.from_numpy(rows), torch.from_numpy(t0), *where)
        np.testing.assert_array_equal(given.numpy(), expected)


def test_philox_gives_its_known_answer():
    zero = torch.zeros(2, dtype=torch.int64)
    words = zoneout.philox4x32(0, (zero, zero, 0, 0))
    assert [int(word[0]) for word in words] == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]


@pytest.mark.parametrize("lengths", [None, [4, 1, 3]])
def test_reversal_flips_valid_steps_only_and_is_its_own_inverse(lengths):
    x = torch.arange(12.0).reshape(4, 3, 1).expand(4, 3, 2)
    given = None if lengths is None else torch.tensor(lengths)
    once = ops.reverse_valid(x, given)
    for b, length in enumerate(lengths or [4, 4, 4]):
        assert torch.equal(once[:length, b], x[:length, b].flip(0))
        assert torch.equal(once[length:, b], x[length:, b])
    assert torch.equal(ops.reverse_valid(once, given), x)


def test_the_oldest_tap_comes_first_and_the_window_precedes_x():
    x, window = torch.tensor([[[3.0]], [[4.0]]]), torch.tensor([[[1.0]], [[2.0]]])
    line = ops.window_of(x, window)
    assert ops.unfold(line, 3)[:, 0].tolist() == [[1, 2, 3], [2, 3, 4]]
    assert ops.final_window(line, 3, None).flatten().tolist() == [3, 4]
    assert ops.final_window(line, 3, torch.tensor([1])).flatten().tolist() == [2, 3]


def test_a_fused_layer_shows_its_gates_by_name_without_a_copy():
    given = {
        name.removeprefix("layers.0.fwd."): torch.from_numpy(value)
        for name, value in parameters(SPEC).items()
        if ".fwd." in name
    }
    fused = ops.fuse(SPEC, given)
    assert set(fused) == set(given)
    assert len(fused) == len(given)
    for name, value in given.items():
        assert torch.equal(fused[name], value), name
    assert ops.fuse(SPEC, fused) is fused
    assert fused["f.weight"].untyped_storage().data_ptr() == fused.weight.data_ptr()
    with pytest.raises(KeyError, match=r"g\.weight"):
        fused["g.weight"]


def test_a_core_may_read_canonical_parameters():
    def canonical_core(spec, params, *rest):
        return core(spec, dict(params), *rest)

    given, params = work(SPEC), parameters(SPEC)
    placement = Placement()
    expected = run(CoreSession(core, SPEC, params, placement), given)
    result = run(CoreSession(canonical_core, SPEC, params, placement), given)
    assert set(result) == set(expected)
    for name, value in expected.items():
        assert distance(result[name], value) <= TOLERANCE["float32"], name


def test_arrays_of_any_strides_are_copied():
    array = np.arange(6.0)[::-1]
    tensor = to_tensor(array, torch.float32, torch.device("cpu"))
    array[:] = 0
    assert tensor.tolist() == [5, 4, 3, 2, 1, 0]


@pytest.mark.parametrize("name", ["torch_eager", "lstm_torch"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_parameters_come_back_after_100_training_calls(name, dtype):
    spec = ModelSpec(family="lstm" if name == "lstm_torch" else "qrnn", input_size=4, hidden_size=4)
    params = parameters(spec, dtype)
    session = load(name, spec, params, dtype)
    prepared = session.prepare(work(spec, "train_step", dtype))
    prepared()
    loss, exported = prepared.result()["loss"], session.export()
    for _ in range(98):
        prepared()
    prepared.reset()
    before = {n: value.clone() for n, value in prepared._network.leaves.items()}
    prepared()
    assert any(not torch.equal(before[n], value) for n, value in prepared._masters.items())
    prepared.reset()
    tensors = prepared._network.canonical(prepared._network.leaves)
    for n, value in params.items():
        assert np.array_equal(tensors[n].detach().float().numpy(), value), n
    assert prepared.result()["loss"] == loss
    assert all(np.array_equal(session.export()[n], value) for n, value in exported.items())


def test_a_training_run_leaves_the_sessions_other_runs_alone():
    session = load("torch_eager", SPEC, parameters(SPEC))
    forward, train = (session.prepare(work(SPEC, kind)) for kind in ("forward", "train_step"))
    forward()
    before = forward.result()["y"].copy()
    train()
    forward()
    np.testing.assert_array_equal(forward.result()["y"], before)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "step", "x": np.zeros((1, 3, 5)), "dy": None, "target": None}, "bidirectional"),
        ({"x": np.zeros((9, 3, 4))}, "x has 4 features, the spec has input_size 5"),
        ({"state": {"layers.0.fwd.h": np.zeros((3, 6))}}, r"state 'layers.0.fwd.h': .* only"),
        ({"dstate": {"layers.0.fwd.c": np.zeros((3, 7))}}, r"shape \(3, 7\): give \(3, 6\)"),
    ],
)
def test_a_work_that_does_not_fit_is_refused_in_one_clear_line(changes, message):
    session = load("torch_eager", SPEC, parameters(SPEC))
    with pytest.raises(SpecError, match=message):
        session.prepare(replace(work(SPEC), **changes))


def test_an_absent_cuda_device_is_named_when_loading(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RuntimeError, match=r"'cuda' was asked for.*no CUDA device"):
        load("torch_eager", SPEC, parameters(SPEC), device="cuda")


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_the_gemm_probe_multiplies_random_data_in_its_dtype(dtype):
    run_ = probes.probe("gemm", Placement(dtype=dtype), 32)
    run_()
    run_.wait()
    y = run_.result()["y"]
    assert y.shape == (32, 32)
    assert 4.0 < y.std() < 8.0  # the sum of 32 products of standard normal numbers: sqrt(32)


def test_probes_do_what_they_are_named_after():
    copy, exp, dispatch = (
        probes.probe(name, Placement(), size)
        for name, size in (("copy", 400), ("exp", 50), ("dispatch", 1))
    )
    for run_ in (copy, exp, dispatch):
        run_()
    assert copy.result()["y"].nbytes == 400
    assert np.unique(copy.result()["y"]).size == 100
    assert exp.result()["y"].min() > 0
    assert dispatch.result()["y"].size == 1
    with pytest.raises(SpecError, match="allowed are gemm, copy, dispatch, exp"):
        probes.probe("matmul", Placement(), 3)


@pytest.mark.parametrize("family", ["qrnn", "lstm", "conv", "attention"])
@pytest.mark.parametrize("kernel_width", [1, 2])
def test_a_stack_knows_how_many_states_it_has(family, kernel_width):
    from impls._torch.stack import _states
    from impls.params import state_shapes

    both = family != "attention"  # which is causal
    spec = ModelSpec(family=family, layers=3, bidirectional=both, kernel_width=kernel_width)
    assert _states(spec) == len(state_shapes(spec, 2))
