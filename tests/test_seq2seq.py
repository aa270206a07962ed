"""The encoder-decoder with attention in both frameworks against the float64 reference."""

from dataclasses import replace

import numpy as np
import pytest

import impls
from harness.conformance import NETWORK_CHECKS
from harness.conformance.network_checks import SEEDS, parameters, sentences, translation
from harness.conformance.tolerances import GRADIENTS, VALUES
from impls.contract import Placement
from impls.reference import seq2seq
from tests.torch_works import distance
from tests.translating import CORES, NETS, gradients, make, valid

QUICK = {
    *((core, dtype, check) for core in CORES[:2] for dtype in VALUES for check in NETWORK_CHECKS),
    ("jax_native", "float64", "translation_equals_reference"),
    ("jax_native", "float64", "attention_ignores_padding"),
    ("jax_native", "float64", "decoder_gates_have_their_own_projections"),
}


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
