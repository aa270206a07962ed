"""Gated convolutions and attention: what a layer is, its look back, its refusals, both packages."""

import math
from dataclasses import replace

import numpy as np
import pytest

import impls
from impls import params, reference
from impls.contract import ModelSpec, Placement, SpecError, Work
from impls.reference import attention, conv
from tests.test_reference import assert_same, tree, work

CONV = ModelSpec("conv", 3, 4, kernel_width=3, layers=3, dilated=True)
ATTENTION = ModelSpec("attention", 3, 8, layers=2, heads=2)
NAMES = {"conv": ("conv_torch", "conv_jax"), "attention": ("attention_torch", "attention_jax")}


def sigmoid(a):
    return 1 / (1 + math.exp(-a))


@pytest.mark.parametrize("layer", [0, 2])
def test_a_gated_convolution_is_the_scalar_formula(layer):
    """The layer alone, with the dilation that it has as layer `layer` of a dilated stack."""
    stride, one = 2**layer, replace(CONV, layers=1)
    weights, x = tree(one), np.random.default_rng(2).standard_normal((12, 1, 3))
    window = np.random.default_rng(3).standard_normal((2 * stride, 1, 3))
    own = {name.removeprefix("layers.0.fwd."): value for name, value in weights.items()}
    ends = np.array([12])
    y, state, _ = conv.forward(one, own, x, {"window": window}, ends)
    line = np.concatenate([window, x])[:, 0]
    for t in range(12):
        for h in range(4):
            a = {gate: own[f"{gate}.bias"][h] for gate in "zo"}
            for gate in "zo":
                for tap in range(3):
                    seen = line[t + tap * stride]
                    a[gate] += sum(seen[c] * own[f"{gate}.weight"][tap, c, h] for c in range(3))
            assert y[t, 0, h] == pytest.approx(math.tanh(a["z"]) * sigmoid(a["o"]), abs=1e-14)
    np.testing.assert_array_equal(state["window"], np.concatenate([window, x])[12:])


def test_a_convolution_is_an_fo_layer_whose_past_is_forgotten_at_once():
    spec = ModelSpec("conv", 3, 4, kernel_width=3)
    qrnn, weights = replace(spec, family="qrnn"), tree(spec)
    never = {
        "layers.0.fwd.f.weight": np.zeros((3, 3, 4)),
        "layers.0.fwd.f.bias": np.full(4, -800.0),
    }
    given = replace(work(spec, "forward"), state={})
    expected = reference.run(qrnn, weights | never, given)["y"]
    np.testing.assert_allclose(reference.run(spec, weights, given)["y"], expected, atol=1e-15)


@pytest.mark.parametrize("dilated", [False, True])
def test_a_stack_sees_exactly_its_field_of_view(dilated):
    spec = replace(CONV, dilated=dilated)
    reach = sum(2 * spec.dilation(layer) for layer in range(3))
    assert reach == (14 if dilated else 6)
    x = np.random.default_rng(0).standard_normal((20, 1, 3))
    before = reference.run(spec, tree(spec), Work("forward", x))["y"]
    x[2] += 1.0
    moved = np.any(reference.run(spec, tree(spec), Work("forward", x))["y"] != before, axis=(1, 2))
    assert not moved[:2].any()
    assert moved[2 + reach]
    assert not moved[3 + reach :].any()


@pytest.mark.parametrize("chunks", [(1, 1, 7, 2), (3, 8)])
@pytest.mark.parametrize("changes", [{}, {"dilated": False}, {"dense": True}])
def test_uneven_chunks_of_a_convolution_equal_one_pass(changes, chunks):
    spec = replace(CONV, **changes)
    given = work(spec, "forward", steps=11, lengths=None)
    state, parts, at = given.state, [], 0
    for steps in chunks:
        part = replace(given, x=given.x[at : at + steps], dy=None, target=None, state=state)
        out = reference.run(spec, tree(spec), part)
        state = {n.removeprefix("state."): v for n, v in out.items() if n != "y"}
        parts.append(out["y"])
        at += steps
    found = {"y": np.concatenate(parts)} | {f"state.{n}": v for n, v in state.items()}
    assert_same(found, reference.run(spec, tree(spec), given))


def test_attention_is_the_scalar_formula():
    """One step's mixture from the scores by hand, its pairs turned as complex numbers."""
    rng, heads, size = np.random.default_rng(1), 2, 4
    spec = ModelSpec("attention", 8, 8, heads=heads)
    q, k, v = (rng.standard_normal((5, 1, 8)) for _ in range(3))
    mixed, _ = attention._attend(spec, np.concatenate([q, k, v], axis=-1))

    def turned(row, t):
        rates = [10000.0 ** (-2 * i / size) for i in range(size // 2)]
        pairs = [complex(row[i], row[i + size // 2]) for i in range(size // 2)]
        return [
            p * complex(math.cos(t * r), math.sin(t * r)) for p, r in zip(pairs, rates, strict=True)
        ]

    for t in range(5):
        for head in range(heads):
            own = slice(head * size, (head + 1) * size)
            left = turned(q[t, 0, own], t)
            scores = []
            for s in range(t + 1):
                right = turned(k[s, 0, own], s)
                dots = [(a * b.conjugate()).real for a, b in zip(left, right, strict=True)]
                scores.append(sum(dots) / math.sqrt(size))
            shares = [math.exp(score) for score in scores]
            expected = sum(p * v[s, 0, own] for s, p in enumerate(shares)) / sum(shares)
            np.testing.assert_allclose(mixed[t, 0, own], expected, atol=1e-14)


def test_scores_depend_on_the_distance_of_two_steps_alone():
    q, k = np.random.default_rng(4).standard_normal((2, 1, 1, 1, 6))
    same = np.broadcast_to
    turned = [attention._turned(same(array, (1, 1, 9, 6))) for array in (q, k)]
    scores = turned[0][0, 0] @ turned[1][0, 0].T
    for distance in range(9):
        np.testing.assert_allclose(np.diagonal(scores, distance), scores[0, distance], atol=1e-13)


def test_a_transformer_projects_where_widths_differ_and_normalises_last():
    names = set(params.shapes(ATTENTION))
    assert "layers.0.fwd.input.weight" in names
    assert "layers.1.fwd.input.weight" not in names
    assert "layers.0.fwd.final_norm.scale" not in names
    assert "layers.1.fwd.final_norm.scale" in names
    dense = params.shapes(replace(ATTENTION, dense=True))
    assert dense["layers.1.fwd.input.weight"] == (3 + 8, 8)
    assert params.shapes(replace(ATTENTION, input_size=8)).keys() == names - {
        "layers.0.fwd.input.weight", "layers.0.fwd.input.bias"
    }  # fmt: skip


def test_norms_start_as_the_identity_and_gates_have_their_fan_in():
    first = params.init(ATTENTION, 1)
    assert set(np.unique(first["layers.1.fwd.final_norm.scale"])) == {1.0}
    assert not first["layers.1.fwd.final_norm.shift"].any()
    wide = params.init(ModelSpec("conv", 64, 256, kernel_width=4), 1)["layers.0.fwd.o.weight"]
    assert wide.std() == pytest.approx(1 / 16, rel=0.05)


def test_attention_carries_nothing_and_a_step_of_it_is_refused_with_the_reason():
    assert params.state_shapes(ATTENTION, 3) == {}
    step = work(ATTENTION, "step", steps=1, lengths=None)
    with pytest.raises(SpecError, match=r"attention carries no state: .* give whole sequences"):
        reference.run(ATTENTION, tree(ATTENTION), step)
    given = replace(work(ATTENTION, "forward"), state={"layers.0.fwd.c": np.zeros((3, 8))})
    with pytest.raises(SpecError, match=r"state 'layers\.0\.fwd\.c': this spec has none"):
        reference.run(ATTENTION, tree(ATTENTION), given)


@pytest.mark.parametrize("name", NAMES["attention"])
def test_a_session_offers_no_step_of_attention(name):
    card = impls.get(name)
    if impls.missing(card):
        pytest.skip(impls.missing(card))
    session = card.load(ATTENTION, params.init(ATTENTION, 1), Placement())
    with pytest.raises(NotImplementedError, match="carries no state"):
        session.prepare(work(ATTENTION, "step", steps=1, lengths=None))


@pytest.mark.parametrize("family", NAMES)
def test_cards_refuse_what_their_family_is_not(family):
    for card in map(impls.get, NAMES[family]):
        assert "'qrnn'" in card.unsupported(ModelSpec(), Placement())
        assert card.unsupported(ModelSpec(family), Placement("cuda", "bfloat16")) is None
        both = card.unsupported(ModelSpec(family, bidirectional=True), Placement())
        odd = card.unsupported(ModelSpec(family, hidden_size=12), Placement())
        if family == "conv":
            assert both is odd is None
        else:
            assert "causal" in both
            assert odd == (
                "hidden_size = 12 is no multiple of 2 * heads = 8: rotary positions turn pairs of "
                "features of one head"
            )


def test_no_parameters_are_made_for_a_transformer_that_cannot_be():
    with pytest.raises(SpecError, match="no multiple of 2"):
        params.shapes(replace(ATTENTION, hidden_size=6))
    with pytest.raises(SpecError, match="causal here, give false"):
        params.state_shapes(replace(ATTENTION, bidirectional=True), 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"heads": 0}, "heads = 0: give a whole"), ({"dilated": 1}, "dilated = 1: give true or")],
)
def test_the_new_fields_are_checked(changes, message):
    with pytest.raises(SpecError, match=message):
        ModelSpec(**changes)


def test_fields_that_a_family_does_not_know_are_ignored():
    given = work(ATTENTION, "forward")
    other = replace(ATTENTION, pooling="ifo", kernel_width=5, zoneout=0.5, dilated=True)
    assert params.shapes(other) == params.shapes(ATTENTION)
    assert_same(
        reference.run(other, tree(other), given), reference.run(ATTENTION, tree(other), given)
    )
    assert ModelSpec(dilated=True).dilation(3) == 1


@pytest.mark.parametrize("family", NAMES)
@pytest.mark.parametrize("lengths", [None, (9, 1, 4)])
def test_torch_equals_the_oracle_in_every_dtype(family, lengths):
    pytest.importorskip("torch")
    from tests.torch_works import TOLERANCE, check_against_oracle

    spec = ModelSpec(family, 24, 32, layers=3, kernel_width=3, dilated=True)
    for dtype in TOLERANCE:
        for kind in ("backward", "train_step"):
            check_against_oracle(NAMES[family][0], spec, dtype, kind=kind, lengths=lengths)


@pytest.mark.parametrize("family", NAMES)
@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_jax_equals_the_oracle(family, dtype):
    pytest.importorskip("jax")
    from tests import jax_works

    spec = ModelSpec(family, 24, 32, layers=2, kernel_width=3, dilated=True)
    jax_works.assert_equals_oracle(NAMES[family][1], spec, dtype)


def test_training_after_inference_uses_no_inference_tensor():
    torch = pytest.importorskip("torch")
    spec = ModelSpec("attention", 16, 16, heads=2)
    session = impls.get("attention_torch").load(spec, params.init(spec, 1), Placement())
    for kind in ("forward", "backward"):
        run = session.prepare(work(spec, kind, steps=13, lengths=None))
        run()
    assert torch.isfinite(run._grads[0]).all()
