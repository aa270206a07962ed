"""Training in PyTorch: optimisers against torch.optim itself, snapshots, formats, learning."""

from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import impls
from impls import net_params
from impls.contract import ModelSpec, Placement, SpecError
from impls.nets import NetSpec, OptimiserSpec
from impls.training import Batch, Seeds, trainer
from tests.net_works import batch, network, parameters

torch = pytest.importorskip("torch")

from impls._torch.flat import FlatParameters  # noqa: E402
from impls._torch.optimisers import Descent, learning_rate  # noqa: E402

STEPS = {"head": "steps"}
ALGORITHMS = [
    {"algorithm": "sgd"},
    {"algorithm": "sgd", "momentum": 0.9, "weight_decay": 0.1},
    {"algorithm": "adam", "betas": (0.8, 0.95), "epsilon": 1e-3},
    {"algorithm": "adam", "weight_decay": 0.1},
    {"algorithm": "adamw", "weight_decay": 0.1},
    {"algorithm": "rmsprop", "smoothing": 0.7, "epsilon": 1e-3, "weight_decay": 0.1},
]
WORDS = [" ".join(f"{k}={v}" for k, v in a.items()) for a in ALGORITHMS]


def make(net, params, optimiser, name="torch_eager", dtype="float32"):
    return trainer(impls.get(name), net, params, optimiser, Placement(dtype=dtype))


def torchs_own(spec, tensors):
    """The optimiser that a user of torch would write down for one tensor per parameter."""
    rate, decay = spec.learning_rate, spec.weight_decay
    if spec.algorithm == "sgd":
        return torch.optim.SGD(tensors, lr=rate, momentum=spec.momentum, weight_decay=decay)
    if spec.algorithm == "rmsprop":
        return torch.optim.RMSprop(
            tensors, lr=rate, alpha=spec.smoothing, eps=spec.epsilon, weight_decay=decay
        )
    kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    kind = kinds[spec.algorithm]
    return kind(tensors, lr=rate, betas=spec.betas, eps=spec.epsilon, weight_decay=decay)


@pytest.mark.parametrize("fields", ALGORITHMS, ids=WORDS)
@pytest.mark.parametrize("clip", [0.0, 0.5])
def test_flat_parameters_move_as_torch_optim_moves_each(fields, clip):
    spec = OptimiserSpec(
        **fields, learning_rate=0.05, clip_norm=clip, schedule="cosine", total_steps=15
    )
    net = network({"pooling": "ifo", "bidirectional": True}, **STEPS)
    params = parameters(net)
    flat = FlatParameters(net, params, Placement(dtype="float64"))
    descent = Descent(spec, flat)
    own = {n: torch.from_numpy(v.copy()).requires_grad_() for n, v in params.items()}
    optimiser = torchs_own(spec, list(own.values()))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, spec.total_steps)

    def objective(named):
        return sum((t - 0.1).pow(4).sum() * (1 + len(n) % 3) for n, t in named.items())

    for _ in range(15):
        descent.step(sum_of_leaves(flat, objective))
        optimiser.zero_grad()
        objective(own).backward()
        if clip:
            torch.nn.utils.clip_grad_norm_(list(own.values()), clip)
        optimiser.step()
        schedule.step()
    for name, value in flat.canonical(flat.master).items():
        torch.testing.assert_close(value, own[name], rtol=1e-10, atol=1e-12)


def sum_of_leaves(flat, objective):
    """The objective of canonical parameters that are cut out of the leaves."""
    joined = torch.cat([leaf.reshape(-1) for leaf in flat.leaves.values()])
    return objective(flat.canonical(joined))


def test_the_cosine_is_torchs():
    spec = OptimiserSpec(learning_rate=0.3, schedule="cosine", total_steps=20)
    optimiser = torch.optim.SGD([torch.zeros(1)], lr=0.3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 20)
    for step in range(21):
        assert learning_rate(spec, step) == pytest.approx(schedule.get_last_lr()[0], abs=1e-15)
        optimiser.step()
        schedule.step()
    assert learning_rate(spec, 25) == 0.0


def test_warm_up_is_linear_from_zero_and_delays_the_schedule():
    spec = OptimiserSpec(
        learning_rate=0.4, schedule="cosine", warmup_steps=4, total_steps=12, decay=0.5
    )
    rates = [learning_rate(spec, step) for step in (0, 1, 2, 4, 8, 12)]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.4, 0.2, 0.0])
    rising = replace(spec, schedule="constant")
    assert [learning_rate(rising, step) for step in (3, 4, 99)] == pytest.approx([0.3, 0.4, 0.4])
    falling = replace(spec, schedule="exponential", decay_every=2, decay_start=3)
    rates = [learning_rate(falling, step) for step in (4, 7, 8, 9, 10, 11)]
    assert rates == pytest.approx([0.4, 0.4, 0.4, 0.2, 0.2, 0.1])


def test_the_learning_rate_of_the_step_is_the_one_used():
    spec = OptimiserSpec(
        "sgd", 0.4, clip_norm=0.0, schedule="exponential", warmup_steps=2, decay=0.5
    )
    net = network(**STEPS)
    flat = FlatParameters(net, parameters(net), Placement(dtype="float64"))
    descent, moved = Descent(spec, flat), []
    for _ in range(5):
        before = flat.master.clone()
        descent.step(sum(leaf.sum() for leaf in flat.leaves.values()))
        moved.append(float((before - flat.master).mean()))
    assert moved == pytest.approx([0.0, 0.2, 0.4, 0.2, 0.1])


@pytest.mark.parametrize("fields", ALGORITHMS, ids=WORDS)
def test_a_restored_run_goes_on_bit_for_bit(fields, tmp_path):
    net = network({"zoneout": 0.2, "pooling": "ifo"}, dropout=0.3, dropout_input=0.1, **STEPS)
    spec = OptimiserSpec(**fields, learning_rate=0.01, schedule="cosine", total_steps=9)
    batches = [batch(net, seed=seed, carry=seed > 0) for seed in range(9)]
    straight = make(net, parameters(net), spec)
    other = make(net, parameters(net, seed=2), spec)
    other.step(batches[3], Seeds(9, 9))
    for at, given in enumerate(batches):
        if at in (0, 4):
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


def test_a_snapshot_from_before_the_first_step_starts_anew():
    net, spec = network(**STEPS), OptimiserSpec(learning_rate=0.01)
    trained = make(net, parameters(net), spec)
    start = trained.snapshot()
    losses = []
    for _ in range(2):
        trained.restore(start)
        for _ in range(3):
            trained.step(batch(net), Seeds(0, 0))
        losses.append(trained.loss())
    assert losses[0] == losses[1]


@pytest.mark.parametrize(("core", "rate"), [({}, 1e-5), ({"kernel_width": 3}, 0.1)])
def test_bfloat16_trains_float32_masters_and_resumes(core, rate):
    net, spec = network(core, **STEPS), OptimiserSpec(learning_rate=rate)
    params = {n: v.astype(np.float32) for n, v in parameters(net).items()}
    given = batch(net, lengths=[9, 3, 5])
    trained = make(net, params, spec, dtype="bfloat16")
    for _ in range(3):
        trained.step(replace(given, carry=True), Seeds(0, 0))
    resumed = make(net, params, spec, dtype="bfloat16")
    resumed.restore(trained.snapshot())
    for one in (trained, resumed):
        one.step(replace(given, carry=True), Seeds(0, 0))
    exported = trained.export()
    for name, value in exported.items():
        assert value.dtype == np.float32
        assert 0 < np.abs(value - params[name]).max() < 5 * rate, name
        np.testing.assert_array_equal(value, resumed.export()[name])
    wide = make(net, exported, spec).outputs(given)
    found = trained.outputs(given)
    assert found.dtype == np.float32
    valid = np.arange(9)[:, None] < given.lengths
    assert np.linalg.norm((found - wide)[valid]) < 2e-2 * np.linalg.norm(wide[valid])


def test_a_snapshot_of_something_else_is_refused_and_changes_nothing():
    net, spec = network(**STEPS), OptimiserSpec(learning_rate=0.01)
    params = parameters(net)
    trained = make(net, params, spec)
    trained.step(batch(net), Seeds(0, 0))
    good = trained.snapshot()
    victim = make(net, params, spec)
    before = victim.snapshot()
    shallow = network({"layers": 1}, **STEPS)
    others = [
        (make(shallow, parameters(shallow), spec), r"core\.layers = 1, .* has 2"),
        (make(net, params, OptimiserSpec(learning_rate=0.02)), r"learning_rate = 0\.02"),
    ]
    bad = [(other.snapshot(), words) for other, words in others]
    bad += [
        ({n: v for n, v in good.items() if n != "identity"}, "no 'identity'"),
        ({n: v for n, v in good.items() if n != "count"}, "no 'count'"),
        ({n: v for n, v in good.items() if ".exp_avg." not in n}, "exp_avg"),
        (good | {"parameter.head.bias": np.zeros(9, np.float32)}, r"head\.bias"),
        ({n: v for n, v in good.items() if n != "carried.t0"}, "carried"),
    ]
    for snapshot, words in bad:
        with pytest.raises(SpecError, match=words):
            victim.restore(snapshot)
    after = victim.snapshot()
    assert list(after) == list(before)
    for name, value in before.items():
        np.testing.assert_array_equal(value, after[name])


def test_parameters_of_another_network_are_refused():
    params = parameters(network(**STEPS))
    with pytest.raises(SpecError, match="parameters of another network"):
        make(network({"layers": 3}, **STEPS), params, OptimiserSpec())


def test_a_loss_before_the_first_step_is_refused():
    net = network(**STEPS)
    with pytest.raises(RuntimeError, match="no step yet"):
        make(net, parameters(net), OptimiserSpec()).loss()


def test_a_diverged_run_says_so_in_its_loss():
    net = network(inputs="dense", loss="squared", **STEPS)
    trained = make(net, parameters(net), OptimiserSpec("sgd", 1e30, clip_norm=0.0))
    for _ in range(4):
        trained.step(batch(net), Seeds(0, 0))
    assert not np.isfinite(trained.loss())


@pytest.mark.parametrize("name", ["torch_eager", "torch_native"])
def test_a_network_learns_to_remember_the_one_symbol_among_blanks(name):
    core = ModelSpec(input_size=8, hidden_size=16, layers=1, kernel_width=2, pooling="fo")
    net = NetSpec(core, vocabulary=5, outputs=4)
    spec = OptimiserSpec(learning_rate=0.03, schedule="cosine", total_steps=100)
    trained = make(net, net_params.init(net, 0), spec, name)
    rng = np.random.default_rng(0)

    def draw():
        inputs, lengths, symbols = (
            np.zeros((12, 32), int),
            rng.integers(6, 13, 32),
            rng.integers(0, 4, 32),
        )
        inputs[rng.integers(0, 6, 32), np.arange(32)] = symbols + 1
        return Batch(inputs, symbols, lengths)

    test = draw()
    assert accuracy(trained, test) < 0.5
    for step in range(100):
        trained.step(draw(), Seeds(step, step))
    assert accuracy(trained, test) > 0.95


def accuracy(trained, given):
    return np.mean(trained.outputs(given).argmax(1) == given.targets)
