"""lstm_jax against the oracle, and its cuDNN layer as far as it goes without a GPU."""

import numpy as np
import pytest

jax = pytest.importorskip("jax")

from impls.contract import Placement  # noqa: E402
from tests import jax_works as works  # noqa: E402

NAME = "lstm_jax"
PLAIN = works.small(family="lstm")
EVERYTHING = works.small(family="lstm", layers=2, dense=True, bidirectional=True)


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_values_states_and_gradients_equal_oracle(dtype):
    works.assert_equals_oracle(NAME, EVERYTHING, dtype)


def test_full_length_batch_equals_oracle():
    works.assert_equals_oracle(NAME, PLAIN, "float64", lengths=None)


def test_bfloat16_does_not_drift_over_many_steps():
    spec = works.small(family="lstm", input_size=24, hidden_size=32)
    works.assert_equals_oracle(NAME, spec, "bfloat16", lengths=None, steps=256)


def test_stream_in_uneven_chunks_equals_sequence():
    works.assert_stream_equals_sequence(NAME, PLAIN, (4, 1, 1, 6))


def test_padded_batch_equals_per_sequence_runs():
    works.assert_padded_equals_single(NAME, PLAIN, (9, 4, 1))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_train_step_equals_oracle(dtype):
    works.assert_train_step_equals_oracle(NAME, PLAIN, dtype)


def test_card_refuses_another_family():
    card = works.impls.get(NAME)
    assert "'qrnn'" in card.unsupported(works.small(), Placement())
    assert card.unsupported(EVERYTHING, Placement("cuda")) is None


@pytest.mark.parametrize(
    ("placement", "module"),
    [
        (Placement("cuda"), "impls.lstm_jax.cudnn"),
        (Placement("cuda", "bfloat16"), "impls.lstm_jax.core"),
        (Placement("cpu"), "impls.lstm_jax.core"),
    ],
)
def test_cudnn_is_taken_where_it_fits(monkeypatch, placement, module):
    taken = []
    monkeypatch.setattr("impls._jax.session.CoreSession", lambda core, *_: taken.append(core))
    works.impls.get(NAME).load(PLAIN, works.weights(PLAIN), placement)
    assert [core.__module__ for core in taken] == [module]


@pytest.mark.parametrize("direction", ["fwd", "rev"])
def test_cudnn_layer_hands_over_what_jax_defines(monkeypatch, direction):
    """cuDNN itself is replaced by JAX's own definition of the same call."""
    from jax.experimental import rnn

    from impls.lstm_jax import core, cudnn

    def defined(x, h0, c0, flat, lengths, inputs, hidden, layers, dropout, both, precision):
        assert precision == jax.lax.Precision.HIGHEST
        parts = rnn.unpack_lstm_weights(flat, inputs, hidden, layers, both)
        return rnn.lstm_ref(x, h0, c0, *parts, lengths, inputs, hidden, layers, dropout, both)

    monkeypatch.setattr(rnn, "lstm", defined)
    work = works.work_of("forward", PLAIN, lengths=(9, 4, 6))
    start = "layers.0.fwd."
    own = {n.removeprefix(start): v for n, v in works.weights(PLAIN).items()}
    state = {n.removeprefix(start): v for n, v in work.state.items()}
    lengths = jax.numpy.asarray(work.lengths, np.int32)
    x = np.nan_to_num(work.x)
    args = (PLAIN, own, x, state, lengths, None, 0, direction)
    y, final = cudnn.core(*args)
    want, last = core.core(*args)
    works.assert_close({"y": y} | final, {"y": want} | last, "float32")
