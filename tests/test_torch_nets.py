"""Networks in PyTorch against NumPy's formulas: gradients, masks, states of padded sequences.

Outputs, dropout and chunks that carry on are in test_nets, for both frameworks.
"""

from dataclasses import replace

import numpy as np
import pytest

import impls
from impls import net_params
from impls.contract import Placement, SpecError
from impls.nets import NetSpec, OptimiserSpec
from impls.training import Seeds, trainer
from tests import net_works
from tests.net_works import (
    RAGGED,
    SEEDS,
    SEQUENCE,
    STEPS,
    STILL,
    WIDE,
    batch,
    close,
    network,
    parameters,
)

pytest.importorskip("torch")


IMPLEMENTATIONS = {"qrnn": "torch_eager"} | {
    family: f"{family}_torch" for family in ("lstm", "conv", "attention")
}


def make(net, params=None, optimiser=STILL, name=None, placement=WIDE):
    params = parameters(net) if params is None else params
    card = impls.get(name or IMPLEMENTATIONS[net.core.family])
    return trainer(card, net, params, optimiser, placement)


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
