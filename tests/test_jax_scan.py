"""jax_scan against the oracle."""

import pytest

pytest.importorskip("jax")

from impls.contract import Placement
from tests import jax_works as works

NAME = "jax_scan"
EVERYTHING = works.small(
    layers=2, kernel_width=3, pooling="ifo", zoneout=0.3, dense=True, bidirectional=True
)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_values_states_and_gradients_equal_oracle(dtype):
    works.assert_equals_oracle(NAME, EVERYTHING, dtype)


@pytest.mark.parametrize(
    ("changes", "lengths"),
    [
        ({"pooling": "f", "kernel_width": 1}, None),
        ({"pooling": "f", "zoneout": 0.4}, (9, 4, 6)),
        ({"pooling": "fo", "kernel_width": 6}, (2, 9, 1)),
        ({"pooling": "ifo", "zoneout": 0.4, "zoneout_mode": "literal"}, None),
    ],
)
def test_every_pooling_and_width_equals_oracle(changes, lengths):
    works.assert_equals_oracle(NAME, works.small(**changes), "float64", lengths=lengths)


@pytest.mark.parametrize("mode", ["keep", "literal"])
def test_zoneout_expectation_in_evaluation_equals_oracle(mode):
    spec = works.small(pooling="ifo", zoneout=0.4, zoneout_mode=mode, zoneout_eval="expectation")
    work = works.work_of("backward", spec, "float64", seed=None)
    got = works.once(works.session(NAME, spec, "float64").prepare(work))
    want = works.reference.run(spec, works.weights(spec, "float64"), work)
    works.assert_close(got, want, "float64")


def test_stream_in_uneven_chunks_equals_sequence():
    spec = works.small(layers=2, kernel_width=3, zoneout=0.3)
    works.assert_stream_equals_sequence(NAME, spec, (4, 1, 1, 6))


def test_padded_batch_equals_per_sequence_runs():
    works.assert_padded_equals_single(NAME, works.small(bidirectional=True), (9, 4, 1))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_train_step_equals_oracle(dtype):
    works.assert_train_step_equals_oracle(NAME, works.small(zoneout=0.3), dtype)


def test_card_refuses_another_family():
    card = works.impls.get(NAME)
    assert "'lstm'" in card.unsupported(works.small(family="lstm"), Placement())
    assert card.unsupported(EVERYTHING, Placement("cuda", "bfloat16")) is None
