"""What nn.LSTM computes behind the contract, against the float64 oracle."""

from dataclasses import replace

import numpy as np
import pytest

import impls
from impls import reference
from impls.contract import ModelSpec, Placement
from tests.torch_works import (
    TOLERANCE,
    check_against_oracle,
    distance,
    load,
    parameters,
    run,
    work,
)

torch = pytest.importorskip("torch")

from impls._torch.session import CoreSession  # noqa: E402

NAME = "lstm_torch"
LAYER = ModelSpec(family="lstm", input_size=24, hidden_size=32)
RAGGED = (9, 1, 4)


@pytest.mark.parametrize("lengths", [None, RAGGED])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_values_states_and_gradients_equal_the_oracle(dtype, layers, bidirectional, lengths):
    spec = replace(LAYER, layers=layers, bidirectional=bidirectional)
    check_against_oracle(NAME, spec, dtype, lengths=lengths)


@pytest.mark.parametrize("lengths", [None, (33, 1, 20, 32)])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_bfloat16_layer_equals_the_oracle(bidirectional, lengths):
    spec = replace(LAYER, bidirectional=bidirectional)
    check_against_oracle(NAME, spec, "bfloat16", batch=4, steps=33, lengths=lengths)


@pytest.mark.parametrize("lengths", [None, RAGGED])
@pytest.mark.parametrize("stack", [{}, {"bidirectional": True}, {"dense": True, "layers": 2}])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_the_core_alone_equals_the_oracle(dtype, stack, lengths):
    spec, placement = replace(LAYER, **stack), Placement(dtype=dtype)
    for kind in ("backward", "train_step"):
        given = work(spec, kind, dtype, lengths=lengths)
        params = parameters(spec, dtype)
        session = CoreSession(impls.get(NAME).core(), spec, params, placement)
        result = run(session, given)
        if kind == "train_step":
            result |= {f"param.{key}": value for key, value in session.export().items()}
        expected = reference.run(spec, params, given)
        assert set(result) == set(expected)
        for key, value in expected.items():
            assert distance(result[key], value) <= TOLERANCE[dtype], key


@pytest.mark.parametrize("lengths", [None, RAGGED])
@pytest.mark.parametrize("kind", ["forward", "backward"])
def test_the_core_runs_onednn_on_a_cpu_with_and_without_lengths(kind, lengths):
    session = CoreSession(impls.get(NAME).core(), LAYER, parameters(LAYER), Placement())
    prepared = session.prepare(work(LAYER, kind, lengths=lengths))
    with torch.profiler.profile(acc_events=True) as profile:
        prepared()
    assert "aten::mkldnn_rnn_layer" in {event.key for event in profile.key_averages()}


def test_dense_layers_of_the_card_equal_the_oracle():
    spec = replace(LAYER, dense=True, layers=3, bidirectional=True)
    check_against_oracle(NAME, spec, lengths=RAGGED)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("lengths", [None, RAGGED])
def test_loss_and_new_parameters_of_a_train_step_equal_the_oracle(lengths, dtype):
    check_against_oracle(NAME, LAYER, dtype, kind="train_step", lengths=lengths)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("kind", ["forward", "step"])
def test_kinds_without_gradients_equal_the_oracle(kind, dtype):
    steps = 1 if kind == "step" else 9
    check_against_oracle(NAME, replace(LAYER, layers=2), dtype, kind=kind, steps=steps)


def test_padding_is_ignored_even_where_it_is_nan():
    given = work(LAYER, lengths=RAGGED)
    result = run(load(NAME, LAYER, parameters(LAYER)), given)
    padded = np.arange(9)[:, None] >= given.lengths
    assert np.isnan(given.x[padded]).all()
    assert not result["y"][padded].any()
    assert not result["grad.x"][padded].any()
    assert all(np.isfinite(value).all() for value in result.values())


def test_fields_of_the_qrnn_are_ignored():
    spec = replace(LAYER, pooling="ifo", kernel_width=4, zoneout=0.5, zoneout_eval="expectation")
    check_against_oracle(NAME, spec, "float64", seed=3)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_a_stream_in_uneven_chunks_equals_one_pass(dtype):
    given = work(LAYER, "forward", dtype, steps=23)
    session = load(NAME, LAYER, parameters(LAYER, dtype), dtype)
    whole, state, outputs, start = run(session, given), given.state, [], 0
    for size in (1, 8, 2, 12):
        part = replace(given, x=given.x[start : start + size], dy=None, target=None, state=state)
        result = run(session, part)
        state = {k.removeprefix("state."): v for k, v in result.items() if k != "y"}
        outputs.append(result["y"])
        start += size
    assert distance(np.concatenate(outputs), whole["y"]) <= TOLERANCE[dtype]
    for name, value in state.items():
        assert distance(value, whole[f"state.{name}"]) <= TOLERANCE[dtype], name


def test_the_second_bias_stays_zero_and_training_goes_on():
    session = load(NAME, LAYER, parameters(LAYER))
    prepared = session.prepare(work(LAYER, "train_step"))
    for _ in range(5):
        prepared()
    module = prepared._network._lstm
    assert not module.bias_hh_l0.any()
    after_one = session.export()["layers.0.fwd.bias"]
    assert distance(module.bias_ih_l0.detach().numpy().reshape(4, -1), after_one) > 0


def test_without_lengths_a_cpu_runs_onednn():
    prepared = load(NAME, LAYER, parameters(LAYER)).prepare(work(LAYER, "forward"))
    with torch.profiler.profile(acc_events=True) as profile:
        prepared()
    assert "aten::mkldnn_rnn_layer" in {event.key for event in profile.key_averages()}


def test_a_forward_pass_keeps_nothing_for_a_backward_one():
    session = load(NAME, LAYER, parameters(LAYER))
    network = session._networks[False]
    modes = []
    network._lstm.register_forward_pre_hook(lambda module, _: modes.append(module.training))
    for kind in ("forward", "backward", "forward"):
        session.prepare(work(LAYER, kind))()
    assert modes == [False, True, False]


def test_the_card_refuses_with_a_reason():
    card = impls.get(NAME)
    assert "'qrnn'" in card.unsupported(ModelSpec(), Placement())
    assert card.unsupported(replace(LAYER, dense=True, layers=2), Placement()) is None
    assert card.unsupported(replace(LAYER, layers=2, bidirectional=True), Placement()) is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("lengths", [None, RAGGED])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_cuda_equals_the_oracle(dtype, lengths):
    spec = replace(LAYER, layers=2, bidirectional=True)
    check_against_oracle(NAME, spec, dtype, "cuda", lengths=lengths)
    check_against_oracle(NAME, LAYER, dtype, "cuda", kind="train_step", lengths=lengths)
