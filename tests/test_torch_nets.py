"""Networks in PyTorch against NumPy's formulas: outputs, gradients, masks, carried states."""

from dataclasses import replace

import numpy as np
import pytest

import impls
from impls import net_params
from impls.contract import Placement, SpecError
from impls.nets import NetSpec, OptimiserSpec
from impls.training import Seeds, trainer
from tests import net_works
from tests.net_works import batch, network, parameters

torch = pytest.importorskip("torch")

from impls._torch.dropout import dropout  # noqa: E402

WIDE = Placement(dtype="float64")
SEEDS = Seeds(dropout=3, zoneout=12345678901234567890)
STILL = OptimiserSpec("sgd", 1e-300, clip_norm=0.0)
"""Its steps leave float64 parameters as they are."""
RAGGED = [4, 9, 1]
STEPS = {"head": "steps"}
SEQUENCE = {"head": "sequence"}


IMPLEMENTATIONS = {"qrnn": "torch_eager"} | {
    family: f"{family}_torch" for family in ("lstm", "conv", "attention")
}


def make(net, params=None, optimiser=STILL, name=None, placement=WIDE):
    params = parameters(net) if params is None else params
    card = impls.get(name or IMPLEMENTATIONS[net.core.family])
    return trainer(card, net, params, optimiser, placement)


def close(found, expected, tolerance=1e-12):
    assert found.shape == np.shape(expected)
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("lengths", [None, RAGGED])
@pytest.mark.parametrize(
    ("core", "changes"),
    [
        ({}, STEPS),
        ({}, SEQUENCE),
        ({"bidirectional": True}, SEQUENCE),
        ({"dense": True, "pooling": "ifo"}, SEQUENCE | {"readout": "mean"}),
        (
            {"bidirectional": True, "kernel_width": 3},
            SEQUENCE | {"readout": "attention", "inputs": "hashed"},
        ),
        ({"kernel_width": 1}, STEPS | {"inputs": "dense", "loss": "squared"}),
        ({"dense": True, "hidden_size": 5}, STEPS | {"tied": True, "outputs": 7}),
        ({"zoneout": 0.4, "zoneout_eval": "expectation"}, STEPS),
        ({"zoneout": 0.4}, STEPS),
    ],
)
def test_outputs_are_numpys_and_padding_is_ignored(core, changes, lengths):
    net = network(core, **changes)
    given = batch(net, lengths=lengths)
    found = make(net).outputs(given)
    expected, _ = net_works.outputs(net, parameters(net), given)
    if lengths is not None and net.head == "steps":
        valid = np.arange(len(given.inputs))[:, None] < given.lengths
        found, expected = found[valid], expected[valid]
    close(found, expected)


GRADIENTS = [
    ({"dense": True, "hidden_size": 5}, STEPS | {"tied": True, "outputs": 7}, True),
    ({"kernel_width": 1, "zoneout": 0.4}, STEPS | {"inputs": "dense", "loss": "squared"}, True),
    (
        {"bidirectional": True, "kernel_width": 3, "pooling": "ifo"},
        SEQUENCE | {"readout": "attention", "inputs": "hashed"},
        False,
    ),
    ({"zoneout": 0.3, "pooling": "ifo"}, SEQUENCE | {"readout": "mean"}, False),
    ({"pooling": "f"}, SEQUENCE | {"loss": "squared"}, False),
    ({"family": "lstm", "bidirectional": True, "dense": True}, SEQUENCE, False),
    ({"family": "conv", "dilated": True, "dense": True}, STEPS, True),
    ({"family": "attention", "hidden_size": 8, "heads": 2}, STEPS, False),
]


@pytest.mark.parametrize("lengths", [None, RAGGED])
@pytest.mark.parametrize(("core", "changes", "weighted"), GRADIENTS)
def test_a_step_of_sgd_subtracts_numpys_gradient(core, changes, weighted, lengths):
    net = network(core, **changes)
    params, rng = parameters(net), np.random.default_rng(5)
    given = batch(net, lengths=lengths, weighted=weighted, rows=3)
    given = replace(given, rows=np.array([8, 2, 5]))

    def numpy_loss(values):
        found, _ = net_works.outputs(net, values, given, SEEDS.zoneout)
        return net_works.loss(net, found, given)

    trained = make(net, params, OptimiserSpec("sgd", 1.0, clip_norm=0.0))
    trained.step(given, SEEDS)
    assert trained.loss() == pytest.approx(numpy_loss(params), rel=1e-12)
    after = trained.export()
    if net.core.family == "qrnn":
        native = make(net, params, OptimiserSpec("sgd", 1.0, clip_norm=0.0), "torch_native")
        native.step(given, SEEDS)
        for name, value in native.export().items():
            close(value, after[name], 1e-11)
    assert list(after) == list(net_params.shapes(net))
    for name, value in params.items():
        towards = rng.standard_normal(value.shape)
        ahead, behind = (
            numpy_loss(params | {name: value + sign * 1e-5 * towards}) for sign in (1, -1)
        )
        slope = ((value - after[name]) * towards).sum()
        assert slope == pytest.approx((ahead - behind) / 2e-5, rel=1e-6, abs=1e-9), name


@pytest.mark.parametrize("changes", [STEPS, SEQUENCE])
@pytest.mark.parametrize("dense", [False, True])
def test_dropout_acts_after_the_embedding_between_layers_and_before_the_head(dense, changes):
    net = network({"dense": dense, "layers": 3}, dropout=0.5, dropout_input=0.25, **changes)
    params, given = parameters(net), batch(net, lengths=RAGGED, rows=3)

    def drop(array, site):
        rate = net.dropout if site else net.dropout_input
        return net_works.dropped(array, rate, SEEDS.dropout, site)

    trained = make(net, params)
    trained.step(given, SEEDS)
    expected = net_works.loss(net, net_works.outputs(net, params, given, drop=drop)[0], given)
    assert trained.loss() == pytest.approx(expected, rel=1e-12)
    evaluated = trained.outputs(given)[0]
    close(evaluated, net_works.outputs(net, params, given)[0][0])


def test_dropout_keeps_the_mean_and_draws_by_seed_and_site():
    x = torch.full((300, 200), 2.0)
    kept = dropout(x, 0.3, 7, 1)
    assert kept.unique().tolist() == [0.0, pytest.approx(2 / 0.7)]
    assert float((kept == 0).double().mean()) == pytest.approx(0.3, abs=0.01)
    for seed, site in ((7, 1), (2**64 - 1, 3), (7 + 2**32, 1)):
        close(
            dropout(x, 0.3, seed, site).numpy(), net_works.dropped(x.numpy(), 0.3, seed, site), 1e-6
        )
    for other in (dropout(x, 0.3, 8, 1), dropout(x, 0.3, 7, 2), dropout(x, 0.3, 7 + 2**32, 1)):
        # two independent masks agree on 0.7^2 + 0.3^2 of their places
        assert float((other == kept).double().mean()) == pytest.approx(0.58, abs=0.02)
    assert dropout(x, 0.3, None, 1) is x
    assert dropout(x, 0.0, 7, 1) is x


def test_zoneout_is_random_in_training_alone():
    net = network({"zoneout": 0.5}, **STEPS)
    given, plain = batch(net), network(**STEPS)
    trained = make(net)
    losses = []
    for zoneout in (1, 2, 1):
        trained.step(given, Seeds(0, zoneout))
        losses.append(trained.loss())
    assert losses[0] == losses[2] != losses[1]
    close(trained.outputs(given), make(plain).outputs(given))


@pytest.mark.parametrize(
    "core",
    [
        {"kernel_width": 3, "zoneout": 0.3},
        {"family": "lstm"},
        {"family": "conv", "kernel_width": 3, "dilated": True},
    ],
)
def test_chunks_that_carry_on_equal_one_long_pass(core):
    net = network(core, **STEPS)
    params, whole = parameters(net), batch(net, steps=12)
    chunks = [
        replace(whole, inputs=whole.inputs[at], targets=whole.targets[at], carry=carry)
        for at, carry in ((slice(5), False), (slice(5, 6), True), (slice(6, 12), True))
    ]
    trained = make(net, params)
    evaluated, losses = [], []
    for chunk in chunks:
        trained.step(chunk, SEEDS)
        losses.append(trained.loss())
        evaluated.append(trained.outputs(chunk))
    close(np.concatenate(evaluated), net_works.outputs(net, params, whole)[0])
    found, _ = net_works.outputs(net, params, whole, SEEDS.zoneout)
    parts = np.split(found, [5, 6])
    expected = [net_works.loss(net, p, c) for p, c in zip(parts, chunks, strict=True)]
    close(np.array(losses), expected)
    trained.step(replace(chunks[0], carry=False), SEEDS)
    assert trained.loss() == pytest.approx(expected[0], rel=1e-12)


def test_a_padded_sequence_carries_the_state_of_its_own_end():
    net = network({"zoneout": 0.3}, **STEPS)
    params, first, second = parameters(net), batch(net, lengths=RAGGED), batch(net, seed=1)
    trained = make(net, params)
    trained.step(first, SEEDS)
    trained.step(replace(second, carry=True), SEEDS)
    _, finals = net_works.outputs(net, params, first, SEEDS.zoneout)
    found, _ = net_works.outputs(net, params, second, SEEDS.zoneout, state=finals)
    assert trained.loss() == pytest.approx(net_works.loss(net, found, second), rel=1e-12)


@pytest.mark.parametrize(
    ("core", "changes", "words"),
    [
        ({}, {"rows": 4}, "4 sequences cannot continue 3"),
        ({"bidirectional": True}, {}, "a reverse direction"),
        ({"family": "attention", "hidden_size": 8}, {}, "attention carries no state"),
    ],
)
def test_what_cannot_carry_on_is_refused(core, changes, words):
    net = network(core, **STEPS)
    trained = make(net)
    trained.step(batch(net), SEEDS)
    with pytest.raises(SpecError, match=words):
        trained.step(batch(net, carry=True, **changes), SEEDS)


def test_pqrnn_has_the_size_that_was_published():
    core = replace(
        net_works.CORE, input_size=256, hidden_size=128, kernel_width=3, bidirectional=True
    )
    net = NetSpec(core, "hashed", features=512, outputs=7, readout="attention")
    assert net_params.count(net, normalisation=False) == 1_314_567
    rng = np.random.default_rng(0)
    given = replace(batch(net, rows=2), inputs=rng.integers(-1, 2, (9, 2, 512)).astype(np.float32))
    params = net_params.init(net, 0)
    found = make(net, params, placement=Placement()).outputs(given)
    close(found, net_works.outputs(net, params, given)[0], 1e-4)
