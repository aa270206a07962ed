"""A translator's decoding, dropout and restored state, and the batches and beams it refuses."""

from dataclasses import replace

import numpy as np
import pytest

from harness.conformance.network_checks import SEEDS, parameters, sentences
from impls.contract import SpecError
from impls.nets import OptimiserSpec
from impls.reference import seq2seq
from impls.training import Batch, Seeds
from tests.net_works import dropped
from tests.translating import NETS, make


@pytest.mark.parametrize("case", ["f", "fo-wide", "fo-state", "ifo"])
@pytest.mark.parametrize("beam", [1, 3])
@pytest.mark.parametrize(
    "name", ["torch_native", pytest.param("jax_native", marks=pytest.mark.slow)]
)
def test_streaming_gives_what_full_recomputation_gives(name, case, beam):
    net, batch = NETS[case], sentences()
    params = parameters(net, "float64")
    made = make(name, net, params)
    found = made.candidates(batch, beam, 0.6)
    assert made.decode(batch, beam, 0.6) == [one.symbols for one in found]
    for b, one in enumerate(found):
        source = batch.inputs[: batch.lengths[b], b]
        target = np.array(one.symbols + [seq2seq.END] * one.ended)
        read = np.concatenate([[seq2seq.END], target[:-1]])
        logits = seq2seq.logits_of(net, params, source, read)
        expected = seq2seq.log_probability(logits, target)
        assert one.log_probability == pytest.approx(expected, rel=1e-10)
        ended = np.array([*one.symbols, seq2seq.END])  # a batch's targets are whole sentences
        whole = made.outputs(Batch(source[:, None], ended[:, None]))[: len(target), 0]
        np.testing.assert_allclose(whole, logits, rtol=1e-9, atol=1e-10)
        if beam == 1:
            assert np.argmax(logits, axis=1).tolist() == target.tolist()


def test_a_beam_reorders_its_states():
    """Otherwise the test above could not see a stream that ignores its parents."""
    net = NETS["fo-wide"]
    batch, seen = sentences(), []
    made = make("torch_eager", net, parameters(net, "float64"))
    stream = made._stream

    def watched(given, beam):
        step = stream(given, beam)

        def call(symbols, parents):
            seen.append(np.any(parents != np.arange(len(parents))))
            return step(symbols, parents)

        return call

    made._stream = watched
    made.candidates(batch, 3)
    assert sum(seen) > 1


@pytest.mark.parametrize("name", ["torch_native", pytest.param("jax_scan", marks=pytest.mark.slow)])
def test_a_restored_translator_goes_on_bit_for_bit(name):
    net, batch = replace(NETS["ifo"], dropout=0.3, dropout_input=0.2), sentences()
    params, optimiser = parameters(net, "float32"), OptimiserSpec("adam", learning_rate=0.01)
    first = make(name, net, params, "float32", optimiser)
    for step in range(2):
        first.step(batch, Seeds(step, step))
    kept = first.snapshot()
    second = make(name, net, params, "float32", optimiser)
    second.restore(kept)
    for one in (first, second):
        one.step(batch, Seeds(2, 2))
    assert first.loss() == second.loss()
    for key, value in first.export().items():
        np.testing.assert_array_equal(second.export()[key], value)
    fewer = {n: v for n, v in params.items() if not n.endswith("projection")}
    other = make(name, replace(net, decoder="state"), fewer, "float32", optimiser)
    with pytest.raises(SpecError, match="another network"):
        other.restore(kept)


@pytest.mark.parametrize("name", ["torch_eager", pytest.param("jax_scan", marks=pytest.mark.slow)])
@pytest.mark.parametrize("case", ["fo-wide", "ifo", "ifo-literal"])
def test_dropout_of_a_translator_acts_where_the_reference_says(name, case):
    net, batch = replace(NETS[case], dropout=0.4, dropout_input=0.3), sentences()
    params = parameters(net, "float64")

    def drop(sentence):
        def one(features, site):
            steps = len(batch.targets if site > net.core.layers else batch.inputs)
            ones = np.ones((steps, 4, features.shape[1]))
            rate = 0.3 if site in (0, net.core.layers + 1) else 0.4
            return features * dropped(ones, rate, SEEDS.dropout, site)[: len(features), sentence]

        return one

    made = make(name, net, params)
    made.step(batch, SEEDS)
    expected = seq2seq.loss(net, params, batch, SEEDS.zoneout, drop)
    assert made.loss() == pytest.approx(expected, rel=1e-12)
    assert made.loss() != pytest.approx(seq2seq.loss(net, params, batch, SEEDS.zoneout), rel=1e-3)


def test_dropout_of_a_translator_follows_its_seed_and_ends_with_training():
    net, batch = replace(NETS["fo-wide"], dropout=0.4, dropout_input=0.3), sentences()
    params = parameters(net, "float64")
    losses = []
    for seed in (1, 1, 2):
        made = make("torch_eager", net, params)
        made.step(batch, Seeds(seed, 0))
        losses.append(made.loss())
    assert losses[0] == losses[1] != losses[2]
    plain = make("torch_eager", replace(net, dropout=0.0, dropout_input=0.0), params)
    np.testing.assert_array_equal(
        make("torch_eager", net, params).outputs(batch), plain.outputs(batch)
    )


@pytest.mark.parametrize("name", ["torch_eager", pytest.param("jax_scan", marks=pytest.mark.slow)])
def test_a_batch_or_a_beam_that_does_not_fit_is_refused(name):
    net, batch = NETS["f"], sentences()
    made = make(name, net, parameters(net, "float64"))
    with pytest.raises(SpecError, match="target_lengths"):
        made.outputs(replace(batch, target_lengths=np.array([2, 6, 5, 7])))
    with pytest.raises(SpecError, match="beam = 0"):
        made.decode(batch, 0)
    with pytest.raises(SpecError, match="alpha = -1"):
        made.decode(batch, 2, -1)
    for alpha in (float("inf"), float("nan"), "1"):
        with pytest.raises(SpecError, match="finite number"):
            made.decode(batch, 2, alpha)
    with pytest.raises(SpecError, match="carry = True"):
        made.step(replace(batch, carry=True), SEEDS)
