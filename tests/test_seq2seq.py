"""The encoder-decoder with attention in both frameworks against the float64 reference."""

from dataclasses import replace

import numpy as np
import pytest

import impls
from harness.conformance import NETWORK_CHECKS
from harness.conformance.network_checks import (
    CORE,
    PLAIN,
    SEEDS,
    ZONED,
    parameters,
    sentences,
    translation,
)
from harness.conformance.tolerances import GRADIENTS, VALUES
from impls.contract import Placement, SpecError
from impls.nets import OptimiserSpec
from impls.reference import seq2seq
from impls.training import Batch, Seeds, trainer
from tests.net_works import dropped
from tests.torch_works import distance

CORES = ("torch_eager", "torch_native", "jax_scan", "jax_native", "jax_associative")
QUICK = {
    *((core, dtype, check) for core in CORES[:2] for dtype in VALUES for check in NETWORK_CHECKS),
    ("jax_native", "float64", "translation_equals_reference"),
    ("jax_native", "float64", "attention_ignores_padding"),
    ("jax_native", "float64", "decoder_gates_have_their_own_projections"),
}
NETS = {
    "f": translation(core=replace(ZONED, pooling="f", kernel_width=2), decoder_width=3),
    "fo-wide": translation(
        core=replace(CORE, dense=True, kernel_width=6), masked_encoder=False, decoder_width=1
    ),
    "fo-state": translation(core=replace(CORE, kernel_width=1), decoder="state"),
    "ifo": translation(
        core=replace(ZONED, pooling="ifo", zoneout_eval="expectation"), reversed_source=True
    ),
    "ifo-literal": translation(
        core=replace(ZONED, pooling="ifo", dense=True, layers=3, zoneout_mode="literal"),
        masked_encoder=False,
        decoder="state",
    ),
    "one-layer": translation(core=replace(ZONED, layers=1), reversed_source=True),
}


def make(name, net, params, dtype="float64", optimiser=PLAIN):
    card = impls.get(name)
    pytest.importorskip(card.requires[0])
    return trainer(card, net, params, optimiser, Placement("cpu", dtype))


def valid(outputs, batch):
    return outputs[np.arange(len(outputs))[:, None] < batch.target_lengths]


def gradients(made, params, batch, seeds=SEEDS):
    made.step(batch, seeds)
    return {name: params[name] - value for name, value in made.export().items()}


@pytest.mark.parametrize(
    ("name", "dtype", "check"),
    [
        pytest.param(*one, marks=[] if one in QUICK else pytest.mark.slow)
        for core in CORES
        for dtype in VALUES
        for check in NETWORK_CHECKS
        for one in [(core, dtype, check)]
    ],
)
def test_networks_around_every_core_keep_every_claim(name, dtype, check):
    card = impls.get(name)
    pytest.importorskip(card.requires[0])
    assert NETWORK_CHECKS[check](card, Placement("cpu", dtype)).passed


@pytest.mark.parametrize(
    ("name", "case"),
    [
        pytest.param(name, case, marks=pytest.mark.slow if name.startswith("jax") else ())
        for name in CORES
        for case in NETS
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_logits_and_training_losses_are_the_references(name, case, dtype):
    net, batch = NETS[case], sentences()
    params = parameters(net, dtype)
    made = make(name, net, params, dtype)
    expected = seq2seq.forward(net, params, batch)
    assert distance(valid(made.outputs(batch), batch), valid(expected, batch)) <= VALUES[dtype]
    made.step(batch, SEEDS)
    loss = seq2seq.loss(net, params, batch, SEEDS.zoneout)
    assert abs(made.loss() - loss) <= VALUES[dtype] * loss


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, marks=pytest.mark.slow if case in ("ifo-literal", "one-layer") else ())
        for case in NETS
    ],
)
def test_gradients_are_the_central_differences_of_the_reference(case):
    net, batch = NETS[case], sentences()
    params, rng = parameters(net, "float64"), np.random.default_rng(8)
    found = gradients(make("torch_eager", net, params), params, batch)
    assert set(found) == set(params)
    for name, gradient in found.items():
        direction = rng.standard_normal(gradient.shape)
        direction /= np.linalg.norm(direction)
        up, down = (
            seq2seq.loss(net, params | {name: params[name] + e * direction}, batch, SEEDS.zoneout)
            for e in (1e-4, -1e-4)
        )
        size = np.linalg.norm(gradient) / np.sqrt(gradient.size)
        assert abs((up - down) / 2e-4 - np.sum(gradient * direction)) <= 1e-6 * size + 1e-11, name


@pytest.mark.parametrize(
    ("name", "case"),
    [
        pytest.param(name, case, marks=() if (name, case) in quick else pytest.mark.slow)
        for quick in [{*(("torch_native", case) for case in NETS), ("jax_native", "ifo")}]
        for name in CORES[1:]
        for case in NETS
    ],
)
def test_gradients_agree_across_cores_and_frameworks(name, case):
    pytest.importorskip("torch")
    net, batch = NETS[case], sentences()
    params = parameters(net, "float64")
    expected, found = (
        gradients(make(core, net, params), params, batch) for core in ("torch_eager", name)
    )
    for key, value in expected.items():
        assert np.any(value), key
        assert distance(found[key], value) <= GRADIENTS["float64"], key


@pytest.mark.parametrize("name", ["torch_eager", pytest.param("jax_scan", marks=pytest.mark.slow)])
def test_padding_cannot_matter_even_where_its_embedding_is_nan(name):
    net, batch = NETS["ifo"], sentences()
    params = parameters(net, "float64")
    clean = make(name, net, params)
    expected = clean.outputs(batch)
    for table in ("embedding.weight", "decoder.embedding.weight"):
        params[table][0] = np.nan  # symbol 0 pads
    inputs, targets = np.zeros((9, 4), int), np.zeros((8, 4), int)
    inputs[:7], targets[:6] = batch.inputs, batch.targets
    longer = replace(batch, inputs=inputs, targets=targets)
    made = make(name, net, params)
    np.testing.assert_allclose(
        valid(made.outputs(longer), batch), valid(expected, batch), rtol=1e-12, atol=1e-13
    )
    made.step(longer, SEEDS)
    clean.step(batch, SEEDS)
    assert made.loss() == pytest.approx(clean.loss(), rel=1e-12)
    moved, steady = made.export(), clean.export()
    for key, value in steady.items():
        rows = slice(1, None) if "embedding" in key else slice(None)
        np.testing.assert_allclose(moved[key][rows], value[rows], rtol=1e-9, atol=1e-12)


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


def test_bfloat16_scores_and_logits_are_summed_in_float32():
    torch = pytest.importorskip("torch")
    from impls._torch import attention, heads

    torch.manual_seed(0)
    cells, y, weight = (torch.randn(s).bfloat16() for s in ((3, 2, 64), (5, 2, 64), (64, 8)))
    narrow, wide = (attention.memory_of(values, None) for values in (y, y.float()))
    found = attention.shares(4 * cells, narrow)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, attention.shares(4 * cells.float(), wide))
    net, bias = translation(), torch.zeros(8)
    found = heads.head(net, {"head.weight": weight, "head.bias": bias}, cells)
    expected = heads.head(net, {"head.weight": weight.float(), "head.bias": bias}, cells.float())
    torch.testing.assert_close(found, expected)
    lengths = torch.tensor([5, 2])
    found = heads.attention(weight[:, 0], y, lengths)
    expected = heads.attention(weight[:, 0].float(), y.float(), lengths).bfloat16()
    assert torch.equal(found, expected)


def test_masked_attention_gives_padding_exactly_nothing():
    torch = pytest.importorskip("torch")
    from impls._torch import attention

    y = torch.randn(5, 3, 4)
    memory = attention.memory_of(y, torch.tensor([5, 1, 3]))
    shares = attention.shares(10 * torch.randn(2, 3, 4), memory)
    assert torch.equal(shares.sum(2).round(decimals=5), torch.ones(3, 2))
    assert not shares[1, :, 1:].any()
    assert not shares[2, :, 3:].any()


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
