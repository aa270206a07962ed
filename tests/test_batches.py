"""Batches made ready: padding becomes zero, what counts becomes weights, misfits are refused."""

from dataclasses import replace

import numpy as np
import pytest

from impls.batches import carry_hindrance, ready
from impls.contract import ModelSpec, SpecError
from impls.nets import NetSpec
from impls.training import Batch, Seeds
from tests.net_works import batch, network

STEPS = {"head": "steps"}
TRANSLATION = NetSpec(
    ModelSpec(input_size=3, hidden_size=3), vocabulary=6, outputs=6, head="seq2seq"
)


def test_padded_steps_become_zero_and_do_not_count():
    net = network(**STEPS)
    given = batch(net, lengths=[2, 9, 4])
    kept = [given.inputs.copy(), given.targets.copy()]
    found = ready(net, given)
    valid = np.arange(9)[:, None] < given.lengths
    for array, original in ((found.inputs, given.inputs), (found.targets, given.targets)):
        np.testing.assert_array_equal(array, np.where(valid, original, 0))
    np.testing.assert_array_equal(found.weights, valid)
    assert found.weights.dtype == np.float32
    np.testing.assert_array_equal(kept, [given.inputs, given.targets])


def test_nan_on_padded_steps_is_gone():
    net = network(inputs="dense", loss="squared", **STEPS)
    found = ready(net, batch(net, lengths=[2, 9, 4]))
    assert np.isfinite(found.inputs).all()
    assert np.isfinite(found.targets).all()


def test_given_weights_count_on_valid_steps_alone():
    net = network(**STEPS)
    given = batch(net, lengths=[2, 9, 4], weighted=True)
    weights = given.weights.copy()
    weights[5, 0] = np.nan
    given.targets[weights == 0] = -1
    found = ready(net, replace(given, weights=weights))
    valid = np.arange(9)[:, None] < given.lengths
    np.testing.assert_array_equal(found.weights, np.where(valid, given.weights, 0))


def test_where_all_counts_there_are_no_weights():
    net = network(**STEPS)
    assert ready(net, batch(net)).weights is None
    sequence = network(head="sequence")
    assert ready(sequence, batch(sequence, lengths=[2, 9, 4])).weights is None


def test_a_translation_counts_its_target_steps():
    source, targets = np.array([[1, 2], [3, -1], [4, -1]]), np.array([[5, 1], [1, -1]])
    given = Batch(source, targets, np.array([3, 1]), target_lengths=np.array([2, 1]))
    found = ready(TRANSLATION, given)
    assert found.inputs.tolist() == [[1, 2], [3, 0], [4, 0]]
    assert found.targets.tolist() == [[5, 1], [1, 0]]
    assert found.weights.tolist() == [[1, 1], [1, 0]]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"inputs": np.zeros((9, 3, 1), int)}, r"'tokens' are \[T, B\]"),
        ({"inputs": np.zeros((0, 3), int)}, "T and B above 0"),
        ({"inputs": np.zeros((9, 3))}, "inputs of type float64: give whole numbers in 0..6"),
        ({"inputs": np.full((9, 3), 7)}, r"inputs hold 7\.\.7: give whole numbers in 0\.\.6"),
        ({"inputs": np.full((9, 3), -1)}, r"inputs hold -1\.\.-1"),
        ({"targets": np.full((9, 3), 4)}, r"targets hold 4\.\.4: give whole numbers in 0\.\.3"),
        ({"targets": np.zeros((9, 2), int)}, r"targets of shape \(9, 2\).* has \[9, 3\]"),
        ({"targets": np.zeros((9, 3, 4))}, r"targets of shape \(9, 3, 4\)"),
        ({"lengths": np.array([0, 9, 9])}, r"lengths = \[0 9 9\]: give 3 whole numbers in 1\.\.9"),
        ({"lengths": np.array([10, 9, 9])}, "give 3 whole numbers"),
        ({"lengths": np.array([9, 9])}, "give 3 whole numbers"),
        ({"lengths": np.array([9.0, 4.0, 9.0])}, "give 3 whole numbers"),
        ({"rows": np.array([0, 1])}, r"rows of shape \(2,\).*: give 3 whole numbers"),
        ({"rows": np.array([0.0, 1.0, 2.0])}, "type float64: give 3 whole numbers"),
        ({"target_lengths": np.array([9, 9, 9])}, "target_lengths: head 'steps' has none"),
        ({"weights": np.ones((9, 2))}, r"weights of shape \(9, 2\): give \[9, 3\]"),
        ({"weights": np.zeros((9, 3))}, "one above 0 on a valid step"),
        ({"weights": np.full((9, 3), -1.0)}, "at least 0"),
    ],
)
def test_a_batch_that_does_not_fit_is_refused(changes, words):
    net = network(**STEPS)
    with pytest.raises(SpecError, match=words):
        ready(net, replace(batch(net), **changes))


def test_weights_of_a_head_with_one_target_are_refused():
    net = network(head="sequence")
    with pytest.raises(SpecError, match="weights: head 'sequence'"):
        ready(net, replace(batch(net), weights=np.ones((9, 3), np.float32)))


@pytest.mark.parametrize("ends", [None, np.array([2, 1])])
def test_a_target_without_its_end_mark_is_refused(ends):
    given = Batch(np.array([[1, 2]]), np.array([[5, 2], [1, 4]]), target_lengths=ends)
    with pytest.raises(SpecError, match=r"sentence 1 ends with [24], each must end"):
        ready(TRANSLATION, given)


@pytest.mark.parametrize("value", [-1, 2**64, 1.5, True, None])
def test_seeds_are_of_64_bits(value):
    assert Seeds(0, 2**64 - 1).zoneout == 2**64 - 1
    for field in ("dropout", "zoneout"):
        with pytest.raises(SpecError, match=f"{field} = .*: give a whole number in 0"):
            Seeds(**{"dropout": 1, "zoneout": 2} | {field: value})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"head": "seq2seq", "loss": "squared"}, "loss 'cross_entropy'"),
        ({"head": "seq2seq", "outputs": 1}, "outputs = 1: .* the end mark 1"),
        ({"tied": 1}, "tied = 1: give true or false"),
        ({"masked_encoder": "no"}, "masked_encoder = 'no'"),
        ({"reversed_source": None}, "reversed_source = None"),
    ],
)
def test_fields_of_a_network_that_cannot_be_are_refused(changes, words):
    with pytest.raises(SpecError, match=words):
        network(**changes)


def test_who_cannot_carry_says_why():
    assert carry_hindrance(network()) is None
    assert carry_hindrance(network({"family": "lstm"})) is None
    assert "reverse direction" in carry_hindrance(network({"bidirectional": True}))
    assert "no state" in carry_hindrance(network({"family": "attention", "hidden_size": 8}))
    assert "from its start" in carry_hindrance(TRANSLATION)


@pytest.mark.parametrize(
    ("core", "words"),
    [
        ({"bidirectional": True}, "a reverse direction"),
        ({"family": "attention", "hidden_size": 8}, "no state"),
    ],
)
def test_what_has_no_state_cannot_carry_on(core, words):
    net = network(core, **STEPS)
    with pytest.raises(SpecError, match=f"carry = True: .*{words}"):
        ready(net, batch(net, carry=True))


def test_dense_features_have_the_cores_width():
    net = network(inputs="dense", **STEPS)
    with pytest.raises(SpecError, match=r"'dense' are \[T, B, 5\]"):
        ready(net, replace(batch(net), inputs=np.zeros((9, 3, 4), np.float32)))
