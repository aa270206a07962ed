"""What torch_native computes, and how its operator behaves inside PyTorch."""

from dataclasses import replace

import numpy as np
import pytest

import impls
from impls.contract import POOLINGS, ModelSpec, Placement
from tests.torch_works import TOLERANCE, check_against_oracle, distance, load, parameters, run, work

torch = pytest.importorskip("torch")
if reason := impls.missing(impls.get("torch_native")):
    pytest.skip(reason, allow_module_level=True)

from impls.torch_native import plan  # noqa: E402

NAME = "torch_native"
LAYER = ModelSpec(input_size=12, hidden_size=20)
STACK = ModelSpec(
    input_size=5, hidden_size=6, layers=3, kernel_width=3, dense=True, bidirectional=True
)
RAGGED = (9, 1, 4)


def turn_round(monkeypatch):
    """torch.mm makes the products that the compiled call made, and the other way round."""
    monkeypatch.setattr(plan, "BY_TORCH", frozenset(plan.STATE_OF) - plan.BY_TORCH)


@pytest.fixture(
    params=[(None, False), (4, False), (48, False), (48, True)],
    ids=["one chunk", "4 rows", "48 rows", "48 rows multiplied the other way"],
)
def rows(request, monkeypatch):
    """Rows of a chunk: small ones force many chunks, also ones shorter than the window."""
    most, turned = request.param
    if most:
        monkeypatch.setattr(plan, "ROWS", most)
    if turned:
        turn_round(monkeypatch)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("kernel_width", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_values_states_and_gradients_equal_the_oracle(rows, pooling, kernel_width, dtype):
    spec = replace(LAYER, pooling=pooling, kernel_width=kernel_width, bidirectional=True)
    check_against_oracle(NAME, spec, dtype, steps=21)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_padded_dense_bidirectional_stack_equals_the_oracle(rows, pooling, dtype):
    check_against_oracle(NAME, replace(STACK, pooling=pooling), dtype, lengths=RAGGED)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_padded_bfloat16_layer_equals_the_oracle(rows, bidirectional):
    spec = replace(LAYER, bidirectional=bidirectional, pooling="ifo")
    check_against_oracle(NAME, spec, "bfloat16", lengths=RAGGED)


@pytest.mark.parametrize("lengths", [None, RAGGED])
@pytest.mark.parametrize("mode", ["keep", "literal"])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_zoneout_in_training_equals_the_oracle(rows, pooling, mode, lengths):
    spec = replace(STACK, pooling=pooling, zoneout=0.4, zoneout_mode=mode)
    check_against_oracle(NAME, spec, "float64", lengths=lengths, seed=(1 << 63) + 5)


@pytest.mark.parametrize("steps", [1, 2])
def test_sequences_shorter_than_the_window_equal_the_oracle(rows, steps):
    spec = replace(LAYER, kernel_width=5, bidirectional=True)
    check_against_oracle(NAME, spec, "float64", steps=steps)
    check_against_oracle(NAME, spec, "float64", steps=2, lengths=(1, 2, 1))


@pytest.mark.parametrize(("inputs", "hidden"), [(1, 1), (3, 33), (40, 7), (17, 97)])
@pytest.mark.parametrize("batch", [1, 2, 70])
def test_odd_sizes_equal_the_oracle(inputs, hidden, batch):
    spec = ModelSpec(input_size=inputs, hidden_size=hidden)
    check_against_oracle(NAME, spec, batch=batch, steps=33)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_many_rows_equal_the_oracle(dtype, turned, monkeypatch):
    """Packed weights, several chunks of the usual size, whole and partial panels of channels."""
    if turned:
        turn_round(monkeypatch)
    spec = ModelSpec(input_size=34, hidden_size=72, kernel_width=3)
    check_against_oracle(NAME, spec, dtype, batch=3, steps=230)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("lengths", [None, RAGGED])
def test_loss_and_new_parameters_of_a_train_step_equal_the_oracle(lengths, dtype):
    spec = replace(LAYER, zoneout=0.2)
    check_against_oracle(NAME, spec, dtype, kind="train_step", lengths=lengths, seed=11)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_a_stream_in_uneven_chunks_equals_one_pass(dtype):
    spec = replace(LAYER, layers=2, kernel_width=4, zoneout=0.3)
    given = work(spec, "forward", dtype, steps=23, seed=7)
    session = load(NAME, spec, parameters(spec, dtype), dtype)
    whole, state, outputs, start = run(session, given), given.state, [], 0
    for size in (1, 8, 2, 12):
        part = replace(given, x=given.x[start : start + size], dy=None, target=None, state=state)
        result = run(session, part)
        state = {k.removeprefix("state."): v for k, v in result.items() if k != "y"}
        outputs.append(result["y"])
        start += size
    assert distance(np.concatenate(outputs), whole["y"]) <= TOLERANCE[dtype]


def test_the_card_refuses_what_it_cannot_compute_with_a_reason():
    card = impls.get(NAME)
    assert "'lstm'" in card.unsupported(ModelSpec(family="lstm"), Placement())
    assert "torch_cupy" in card.unsupported(LAYER, Placement("cuda"))
    assert card.unsupported(STACK, Placement(dtype="bfloat16")) is None
