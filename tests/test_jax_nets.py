"""Training in JAX: one compiled step, seeds as arguments, snapshots, what is refused.

Outputs, dropout and carried states are in test_nets; gradients, schedules and optimisers are
compared with PyTorch's in test_nets_agree.
"""

from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import impls
from impls.contract import Placement, SpecError
from impls.nets import OptimiserSpec
from impls.training import Seeds, trainer
from tests import net_works
from tests.absent import run_without
from tests.net_works import SEEDS, STEPS, STILL, WIDE, batch, network, parameters

jax = pytest.importorskip("jax")
pytest.importorskip("optax")


def make(net, params=None, optimiser=STILL, name="jax_scan", placement=WIDE):
    params = parameters(net) if params is None else params
    return trainer(impls.get(name), net, params, optimiser, placement)


def compiled(trained):
    """How often the training step was compiled."""
    return trained._descent._step._cache_size()


def test_a_batch_that_carries_on_is_not_compiled_again():
    net = network({"kernel_width": 3, "zoneout": 0.3}, **STEPS)
    trained = make(net)
    before = compiled(trained)
    for carry in (False, True, False):
        trained.step(batch(net, steps=7, carry=carry), SEEDS)
    assert compiled(trained) == before + 1


def test_float64_networks_leave_the_number_format_of_the_process_alone():
    net = network(**STEPS)
    assert make(net).outputs(batch(net)).dtype == np.float64
    assert not jax.config.jax_enable_x64


RANDOM = network({"zoneout": 0.3}, dropout=0.3, **STEPS)
COSINE = OptimiserSpec(learning_rate=0.01, schedule="cosine", total_steps=9)


def test_seeds_and_learning_rates_are_arguments_of_one_compiled_and_donated_step():
    given, params = batch(RANDOM), parameters(RANDOM)
    slow, fast = (
        make(RANDOM, params, replace(COSINE, learning_rate=rate), placement=Placement())
        for rate in (1e-9, 0.1)
    )
    losses = []
    for seeds in ((5, 5), (6, 5), (5, 6), (5, 5)):
        old = slow._descent.masters["head.bias"]
        arrays = replace(given, inputs=given.inputs.copy(), targets=given.targets.copy())
        slow.step(arrays, Seeds(*seeds))
        arrays.inputs[:], arrays.targets[:] = 0, 0  # the step has its own copy
        losses.append(slow.loss())
        assert old.is_deleted()
    assert losses[0] == pytest.approx(losses[3], rel=1e-6)
    for other in losses[1:3]:
        assert other != pytest.approx(losses[0], rel=1e-5)
    fast.step(given, Seeds(5, 5))
    assert fast.loss() == losses[0]
    moved = [np.abs(t.export()["head.bias"] - params["head.bias"]) for t in (fast, slow)]
    assert moved[0].min() > 0.09
    assert moved[1].max() < 1e-7
    assert fast._descent._step is slow._descent._step
    assert compiled(fast) == 1


def test_a_restored_run_goes_on_bit_for_bit(tmp_path):
    batches = [batch(RANDOM, seed=seed, carry=seed > 0) for seed in range(9)]
    straight = make(RANDOM, optimiser=COSINE, placement=Placement())
    other = make(RANDOM, parameters(RANDOM, seed=2), COSINE, placement=Placement())
    other.step(batches[3], Seeds(9, 9))
    for at, given in enumerate(batches):
        if at == 4:
            save_file(straight.snapshot(), tmp_path / "snapshot.safetensors")
        straight.step(given, Seeds(at, 2**64 - 1 - at))
    other.restore(load_file(tmp_path / "snapshot.safetensors"))
    for at, given in enumerate(batches[4:], 4):
        other.step(given, Seeds(at, 2**64 - 1 - at))
    first, second = straight.snapshot(), other.snapshot()
    assert list(first) == list(second)
    assert any(name.startswith("carried.layers.1") for name in first)
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name], err_msg=name)
    assert compiled(straight) == 1


def test_a_snapshot_of_something_else_is_refused_and_changes_nothing():
    net, spec = network(**STEPS), OptimiserSpec(learning_rate=0.01)
    victim = make(net, optimiser=spec)
    good = victim.snapshot()
    shallow = network({"layers": 1}, **STEPS)
    bad = [
        (make(shallow, optimiser=spec).snapshot(), r"core\.layers = 1, .* has 2"),
        (make(net, optimiser=replace(spec, learning_rate=0.02)).snapshot(), r"rate = 0\.02"),
        ({n: v for n, v in good.items() if n != "identity"}, "no 'identity'"),
        ({n: v for n, v in good.items() if ".mu." not in n}, "mu"),
        ({n: v for n, v in good.items() if ".count" not in n}, "count"),
        (good | {"parameter.head.bias": np.zeros(9)}, r"head\.bias"),
        (good | {"carried.layers.0.fwd.c": np.zeros((3, 6))}, "carried"),
    ]
    for snapshot, message in bad:
        with pytest.raises(SpecError, match=message):
            victim.restore(snapshot)
    for name, value in victim.snapshot().items():
        np.testing.assert_array_equal(value, good[name])


@pytest.mark.slow
def test_bfloat16_trains_float32_masters():
    net, spec = network({"layers": 1}, **STEPS), OptimiserSpec(learning_rate=1e-5)
    params = {n: v.astype(np.float32) for n, v in parameters(net).items()}
    given = batch(net, lengths=[9, 3, 5])
    trained = make(net, params, spec, placement=Placement(dtype="bfloat16"))
    for _ in range(3):
        trained.step(replace(given, carry=True), Seeds(0, 0))
    exported = trained.export()
    for name, value in exported.items():
        assert value.dtype == np.float32
        assert 0 < np.abs(value - params[name]).max() < 1e-4, name
    wide, _ = net_works.outputs(net, exported, replace(given, carry=False))
    found, valid = trained.outputs(given), np.arange(9)[:, None] < given.lengths
    assert np.linalg.norm((found - wide)[valid]) < 2e-2 * np.linalg.norm(wide[valid])


def test_a_loss_before_the_first_step_is_refused():
    with pytest.raises(RuntimeError, match="no step yet"):
        make(network(**STEPS)).loss()


def test_without_optax_training_says_so_in_one_line_and_layers_run():
    code = """
import numpy as np
import impls
from impls.contract import Placement, SpecError, Work
from impls.nets import OptimiserSpec
from impls.training import trainer
from tests.net_works import network, parameters
net = network(head="steps")
card = impls.get("jax_scan")
assert impls.missing(card) is None
own = {n: v for n, v in parameters(net).items() if n.startswith("layers")}
run = card.load(net.core, own, Placement()).prepare(Work("forward", np.ones((2, 1, 5))))
run(); run.wait()
try:
    trainer(card, net, parameters(net), OptimiserSpec())
except SpecError as error:
    print(error)
"""
    done = run_without(["optax"], code)
    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        "training in JAX needs optax, which is not installed: pip install 'quasibench[jax]'\n"
    )
