"""Networks in both frameworks against NumPy's formulas: outputs, dropout, carried states.

JAX gets fewer cases: it compiles each.
"""

from dataclasses import replace

import numpy as np
import pytest

import impls
from impls.training import trainer
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

IMPLEMENTATIONS = {
    "torch": {"qrnn": "torch_eager", "lstm": "lstm_torch", "conv": "conv_torch"},
    "jax": {"qrnn": "jax_scan"},
}
LIBRARIES = {"torch": ("torch",), "jax": ("jax", "optax")}


def make(framework, net):
    for library in LIBRARIES[framework]:
        pytest.importorskip(library)
    card = impls.get(IMPLEMENTATIONS[framework][net.core.family])
    return trainer(card, net, parameters(net), STILL, WIDE)


def dropout_of(framework):
    """What makes an array of the framework, and its dropout(array, rate, seed, site)."""
    if framework == "torch":
        torch = pytest.importorskip("torch")
        from impls._torch.dropout import dropout

        return torch.as_tensor, dropout
    jnp = pytest.importorskip("jax.numpy")
    from impls._jax.dropout import dropout
    from impls._jax.zoneout import words

    def drop(x, rate, seed, site):
        return dropout(x, rate, None if seed is None else words(seed), site)

    return jnp.asarray, drop


TORCH_NETS = [
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
]
JAX_NETS = [
    ({"zoneout": 0.4, "zoneout_eval": "expectation"}, STEPS, RAGGED),
    ({"bidirectional": True}, SEQUENCE, RAGGED),
    ({"bidirectional": True}, SEQUENCE, None),
    ({"dense": True, "pooling": "ifo"}, SEQUENCE | {"readout": "mean"}, RAGGED),
    ({"kernel_width": 3}, SEQUENCE | {"readout": "attention", "inputs": "hashed"}, RAGGED),
    ({"dense": True, "hidden_size": 5}, STEPS | {"tied": True, "outputs": 7}, None),
]


@pytest.mark.parametrize(
    ("framework", "core", "changes", "lengths"),
    [("torch", *net, lengths) for net in TORCH_NETS for lengths in (None, RAGGED)]
    + [("jax", *net) for net in JAX_NETS],
)
def test_outputs_are_numpys_and_padding_is_ignored(framework, core, changes, lengths):
    net = network(core, **changes)
    given = batch(net, lengths=lengths)
    found = make(framework, net).outputs(given)
    expected, _ = net_works.outputs(net, parameters(net), given)
    if lengths is not None and net.head == "steps":
        valid = np.arange(len(given.inputs))[:, None] < given.lengths
        found, expected = found[valid], expected[valid]
    close(found, expected)


@pytest.mark.parametrize(
    ("framework", "dense", "changes"),
    [("torch", dense, changes) for dense in (False, True) for changes in (STEPS, SEQUENCE)]
    + [("jax", True, STEPS)],
)
def test_dropout_acts_after_the_embedding_between_layers_and_before_the_head(
    framework, dense, changes
):
    net = network({"dense": dense, "layers": 3}, dropout=0.5, dropout_input=0.25, **changes)
    params, given = parameters(net), batch(net, lengths=RAGGED)

    def drop(array, site):
        rate = net.dropout if site else net.dropout_input
        return net_works.dropped(array, rate, SEEDS.dropout, site)

    trained = make(framework, net)
    trained.step(given, SEEDS)
    expected = net_works.loss(net, net_works.outputs(net, params, given, drop=drop)[0], given)
    assert trained.loss() == pytest.approx(expected, rel=1e-12)
    evaluated = trained.outputs(given)[0]
    close(evaluated, net_works.outputs(net, params, given)[0][0])


@pytest.mark.parametrize("framework", IMPLEMENTATIONS)
def test_dropout_keeps_the_mean_and_draws_by_seed_and_site(framework):
    array, dropout = dropout_of(framework)
    values = np.full((300, 200), 2.0, np.float32)
    x = array(values)
    first, others = (7, 1), ((8, 1), (7, 2), (7 + 2**32, 1), (2**64 - 1, 3))
    drawn = {at: np.asarray(dropout(x, 0.3, *at)) for at in (first, *others)}
    for at, found in drawn.items():
        close(found, net_works.dropped(values, 0.3, *at), 1e-6)
    kept = drawn[first]
    assert np.unique(kept).tolist() == [0.0, pytest.approx(2 / 0.7)]
    assert float((kept == 0).mean()) == pytest.approx(0.3, abs=0.01)
    for at in others:
        # two independent masks agree on 0.7^2 + 0.3^2 of their places
        assert float((drawn[at] == kept).mean()) == pytest.approx(0.58, abs=0.02)
    assert dropout(x, 0.3, None, 1) is x
    assert dropout(x, 0.0, 7, 1) is x


@pytest.mark.parametrize(
    ("framework", "core", "cuts"),
    [
        ("torch", {"kernel_width": 3, "zoneout": 0.3}, (5, 6)),
        ("torch", {"family": "lstm"}, (5, 6)),
        ("torch", {"family": "conv", "kernel_width": 3, "dilated": True}, (5, 6)),
        ("jax", {"kernel_width": 3, "zoneout": 0.3}, (6,)),
    ],
)
def test_chunks_that_carry_on_equal_one_long_pass(framework, core, cuts):
    net = network(core, **STEPS)
    params, whole = parameters(net), batch(net, steps=12)
    pieces = zip(np.split(whole.inputs, cuts), np.split(whole.targets, cuts), strict=True)
    chunks = [
        replace(whole, inputs=inputs, targets=targets, carry=at > 0)
        for at, (inputs, targets) in enumerate(pieces)
    ]
    trained = make(framework, net)
    evaluated, losses = [], []
    for chunk in chunks:
        trained.step(chunk, SEEDS)
        losses.append(trained.loss())
        evaluated.append(trained.outputs(chunk))
    close(np.concatenate(evaluated), net_works.outputs(net, params, whole)[0])
    found, _ = net_works.outputs(net, params, whole, SEEDS.zoneout)
    parts = np.split(found, cuts)
    expected = [net_works.loss(net, p, c) for p, c in zip(parts, chunks, strict=True)]
    close(np.array(losses), expected)
    trained.step(chunks[0], SEEDS)
    assert trained.loss() == pytest.approx(expected[0], rel=1e-12)
