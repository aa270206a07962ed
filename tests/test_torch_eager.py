"""What torch_eager computes, against the float64 oracle."""

from dataclasses import replace

import numpy as np
import pytest

import impls
from impls.contract import POOLINGS, ModelSpec, Placement
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

NAME = "torch_eager"
LAYER = ModelSpec(input_size=12, hidden_size=20)
STACK = ModelSpec(
    input_size=5, hidden_size=6, layers=3, kernel_width=3, dense=True, bidirectional=True
)
RAGGED = (9, 1, 4)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("kernel_width", [1, 2, 5])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_values_states_and_gradients_equal_the_oracle(pooling, kernel_width, dtype):
    spec = replace(LAYER, pooling=pooling, kernel_width=kernel_width)
    check_against_oracle(NAME, spec, dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_padded_dense_bidirectional_stack_equals_the_oracle(pooling, dtype):
    check_against_oracle(NAME, replace(STACK, pooling=pooling), dtype, lengths=RAGGED)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_padded_bfloat16_layer_equals_the_oracle(bidirectional):
    spec = replace(LAYER, bidirectional=bidirectional, pooling="ifo")
    check_against_oracle(NAME, spec, "bfloat16", lengths=RAGGED)


@pytest.mark.parametrize("lengths", [None, RAGGED])
@pytest.mark.parametrize("mode", ["keep", "literal"])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_zoneout_in_training_equals_the_oracle(pooling, mode, lengths):
    spec = replace(STACK, pooling=pooling, zoneout=0.4, zoneout_mode=mode)
    check_against_oracle(NAME, spec, "float64", lengths=lengths, seed=(1 << 63) + 5)


@pytest.mark.parametrize("policy", ["off", "expectation"])
@pytest.mark.parametrize("mode", ["keep", "literal"])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_zoneout_in_evaluation_follows_its_policy(pooling, mode, policy):
    spec = replace(LAYER, pooling=pooling, zoneout=0.4, zoneout_mode=mode, zoneout_eval=policy)
    check_against_oracle(NAME, spec, "float64")


@pytest.mark.parametrize("steps", [1, 2])
def test_sequences_shorter_than_the_window_equal_the_oracle(steps):
    spec = replace(LAYER, kernel_width=5, bidirectional=True)
    check_against_oracle(NAME, spec, "float64", steps=steps)
    check_against_oracle(NAME, spec, "float64", steps=2, lengths=(1, 2, 1))


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("lengths", [None, RAGGED])
def test_loss_and_new_parameters_of_a_train_step_equal_the_oracle(lengths, dtype):
    spec = replace(LAYER, zoneout=0.2)
    check_against_oracle(NAME, spec, dtype, kind="train_step", lengths=lengths, seed=11)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("kind", ["forward", "step"])
def test_kinds_without_gradients_equal_the_oracle(kind, dtype):
    steps = 1 if kind == "step" else 9
    check_against_oracle(NAME, LAYER, dtype, kind=kind, steps=steps)


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
    for name, value in state.items():
        assert distance(value, whole[f"state.{name}"]) <= TOLERANCE[dtype], name


def test_forward_repeats_bit_for_bit_and_changes_no_input():
    session = load(NAME, LAYER, parameters(LAYER))
    prepared = session.prepare(work(LAYER, "forward"))
    prepared()
    first = {name: value.copy() for name, value in prepared.result().items()}
    prepared()
    for name, value in prepared.result().items():
        np.testing.assert_array_equal(value, first[name], err_msg=name)


def test_the_loop_records_one_autograd_node_per_step():
    from impls.torch_eager.core import pool

    def nodes(steps):
        f, term = (torch.rand(steps, 2, 3, requires_grad=True) for _ in range(2))
        found, todo = set(), [pool(LAYER, f, term, torch.zeros(2, 3)).grad_fn]
        while todo:
            node = todo.pop()
            if node is not None and node not in found:
                found.add(node)
                todo += [parent for parent, _ in node.next_functions]
        return len(found)

    assert nodes(20) - nodes(10) == 10  # indexing f[t] and term[t] would make it 30


def test_the_card_refuses_other_families_with_a_reason():
    card = impls.get(NAME)
    assert "'lstm'" in card.unsupported(ModelSpec(family="lstm"), Placement())
    assert card.unsupported(ModelSpec(dense=True, bidirectional=True), Placement()) is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_cuda_equals_the_oracle(dtype):
    spec = replace(LAYER, bidirectional=True, zoneout=0.2)
    check_against_oracle(NAME, spec, dtype, "cuda", lengths=RAGGED, seed=3)
    check_against_oracle(NAME, spec, dtype, "cuda", kind="train_step")
