"""Snapshots in both frameworks: what they say of themselves, and what `restore` forgets."""

import json
from dataclasses import replace

import numpy as np
import pytest

import impls
from impls.contract import Placement, SpecError
from impls.nets import OptimiserSpec
from impls.training import Seeds, trainer
from tests.net_works import batch, network, parameters

NET = network(head="steps")
NAMES = ("torch_eager", "jax_scan")


def make(name, dtype="float32"):
    card = impls.get(name)
    pytest.importorskip(card.requires[0])
    return trainer(card, NET, parameters(NET), OptimiserSpec(), Placement(dtype=dtype))


@pytest.mark.parametrize("name", NAMES)
def test_a_snapshot_of_another_number_format_or_a_damaged_one_is_refused(name):
    made = make(name)
    good = make(name).snapshot()
    with pytest.raises(SpecError, match="dtype = 'float64', this trainer has 'float32'"):
        made.restore(make(name, "float64").snapshot())
    for damage in (good["identity"][:-3], good["identity"][:0], np.array([255], np.uint8)):
        with pytest.raises(SpecError, match="a damaged snapshot"):
            made.restore(good | {"identity": damage})
    with pytest.raises(SpecError, match="a damaged snapshot"):
        made.restore(good | {"identity": np.frombuffer(b"[1]", np.uint8)})
    fields = json.loads(good["identity"].tobytes())
    del fields["dtype"]
    older = np.frombuffer(json.dumps(fields).encode(), np.uint8)
    made.restore(good | {"identity": older})


@pytest.mark.parametrize("name", NAMES)
def test_restore_forgets_what_evaluation_carried_and_the_loss(name):
    made, given = make(name), batch(NET)
    start = made.snapshot()
    # Nothing is carried yet, so that a stream's first batch starts from zeros.
    first = made.outputs(replace(given, carry=True))
    np.testing.assert_array_equal(first, made.outputs(given))
    assert not np.array_equal(first, made.outputs(replace(given, carry=True)))
    made.restore(start)
    np.testing.assert_array_equal(first, made.outputs(replace(given, carry=True)))
    made.step(given, Seeds(0, 0))
    assert np.isfinite(made.loss())
    made.restore(start)
    with pytest.raises(RuntimeError, match="made or restored"):
        made.loss()
