"""PyTorch and JAX train the same network alike: optimisers, schedules, whole training curves."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

import impls
from harness.agreement import Course, Lesson, agreement, compare, lessons, train
from impls import net_params
from impls.contract import Placement, SpecError
from impls.nets import OptimiserSpec

torch = pytest.importorskip("torch")
jax = pytest.importorskip("jax")
pytest.importorskip("optax")

import jax.numpy as jnp  # noqa: E402

from impls._jax import optimisers  # noqa: E402
from impls._torch.optimisers import build, learning_rate  # noqa: E402

LESSONS = {lesson.name: lesson for lesson in lessons()}
CARDS = tuple(name for name in impls.names() if impls.get(name).core is not None)
SCHEDULES = [
    {},
    {"schedule": "cosine", "total_steps": 20},
    {"schedule": "cosine", "total_steps": 20, "warmup_steps": 4},
    {"schedule": "exponential", "decay": 0.7, "decay_every": 3, "decay_start": 2},
    {"schedule": "exponential", "decay_every": 2, "decay_start": 2, "warmup_steps": 3},
]


def rows_of(names, chosen, dtype):
    rows = list(agreement(map(impls.get, names), chosen, Placement(dtype=dtype)))
    assert sorted(row["impl"] for row in rows) == sorted([*names] * len(chosen))
    return rows


def passed(rows):
    wrong = [(r["case"], r["impl"], r["status"], r["message"]) for r in rows]
    return [what for what in wrong if what[2] != "passed"] == []


@pytest.mark.parametrize("fields", SCHEDULES)
def test_learning_rates_are_the_same_at_every_step(fields):
    spec, steps = OptimiserSpec(learning_rate=0.008, **fields), np.arange(25)
    expected = [learning_rate(spec, step) for step in range(25)]
    with jax.enable_x64(True):
        # optax counts steps in int32
        found = optimisers.learning_rate(spec, jnp.asarray(steps, jnp.int32)) + np.zeros(25)
    np.testing.assert_allclose(found, expected, rtol=1e-14, atol=1e-17)
    if spec.warmup_steps:  # float32 has no other code
        found = optimisers.learning_rate(spec, steps)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize(
    "fields",
    [
        {"algorithm": "sgd", "clip_norm": 0.5},
        {"algorithm": "sgd", "momentum": 0.9, "weight_decay": 0.1, "clip_norm": 0.5},
        {"algorithm": "adam", "betas": (0.8, 0.95), "epsilon": 1e-3, "clip_norm": 0.0},
        {"algorithm": "adam", "weight_decay": 0.1},
        {"algorithm": "adamw", "weight_decay": 0.1},
        {"algorithm": "rmsprop", "smoothing": 0.7, "epsilon": 1e-3, "weight_decay": 0.1},
    ],
)
def test_optax_moves_parameters_as_torch_optim(fields):
    spec = OptimiserSpec(**fields, learning_rate=0.05, schedule="cosine", total_steps=15)
    start = np.random.default_rng(0).standard_normal((2, 7))
    given = {"a.weight": start[0], "b.bias": start[1]}
    descent = optimisers.Descent(spec, quartic, given, Placement(dtype="float64"))
    own = [torch.from_numpy(value.copy()).requires_grad_() for value in given.values()]
    optimiser = build(spec, own)
    for step in range(15):
        descent.step()
        optimiser.zero_grad()
        sum((t - 0.1).pow(4).sum() * (i + 1) for i, t in enumerate(own)).backward()
        if spec.clip_norm:
            torch.nn.utils.clip_grad_norm_(own, spec.clip_norm)
        optimiser.param_groups[0]["lr"] = learning_rate(spec, step)
        optimiser.step()
    for name, tensor in zip(given, own, strict=True):
        expected = tensor.detach().numpy()
        np.testing.assert_allclose(descent.masters[name], expected, rtol=1e-12, atol=1e-13)


def quartic(params):
    return sum(((v - 0.1) ** 4).sum() * (i + 1) for i, v in enumerate(params.values())), None


@pytest.mark.parametrize(
    ("dtype", "names", "lesson"),
    [
        ("float64", ("jax_scan", "torch_eager", "torch_native"), "classes"),
        ("float32", ("torch_native", "jax_native"), "language_model"),
    ],
)
def test_fifty_steps_of_training_agree(dtype, names, lesson):
    if any(impls.missing(impls.get(name)) for name in names):
        pytest.skip("the compiled kernels need a C++ compiler")
    assert LESSONS[lesson].steps == 50
    assert passed(rows_of(names, [LESSONS[lesson]], dtype))


@pytest.mark.parametrize(
    ("family", "lesson"), [("lstm", "sgd"), ("conv", "dilated"), ("attention", "sgd")]
)
def test_a_short_training_of_every_other_family_agrees(family, lesson):
    assert passed(rows_of((f"{family}_torch", f"{family}_jax"), [LESSONS[lesson]], "float32"))


def test_an_encoder_decoder_of_another_family_is_unsupported_and_bfloat16_too():
    rows = rows_of(("lstm_torch", "lstm_jax"), [LESSONS["translation"]], "float32")
    assert {row["status"] for row in rows} == {"unsupported"}
    assert all("qrnn core" in row["message"] for row in rows)
    rows = rows_of(("torch_eager", "jax_scan"), [LESSONS["sgd"]], "bfloat16")
    assert {row["status"] for row in rows} == {"unsupported"}
    assert all("bfloat16" in row["message"] for row in rows)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("lesson", LESSONS)
def test_every_core_trains_alike(lesson, dtype):
    rows = rows_of(CARDS, [LESSONS[lesson]], dtype)
    here = {n for n in CARDS if impls.missing(impls.get(n)) is None}
    done = [row for row in rows if row["status"] not in ("missing", "unsupported")]
    assert passed(done)
    told = {row["impl"] for row in rows if row["status"] != "missing"}
    assert told == here
    wanted = {"torch_eager", "jax_scan", "lstm_torch", "lstm_jax"}
    if LESSONS[lesson].net.head == "seq2seq":
        wanted = {"torch_eager", "jax_scan"}
    assert wanted <= {row["impl"] for row in done}


NEEDED = {"qrnn": "torch_eager"} | {f: f"{f}_torch" for f in ("lstm", "conv", "attention")}
REFUSED = {
    *((f, n) for f in NEEDED if f != "qrnn" for n in ("translation", "translation_state")),
    *(("attention", name) for name in ("language_model", "pqrnn")),
}


def jolted(name, family):
    """How far a float32's rounding of the starting parameters moves the end, in float64."""
    card, lesson = impls.get(NEEDED[family]), LESSONS[name].of_family(family)
    exact = train(card, lesson, Placement(dtype="float64"))
    draws = np.random.default_rng(1)
    start = {
        name: value * (1 + 2.0**-24 * draws.choice([-1.0, 1.0], value.shape))
        for name, value in net_params.init(lesson.net, lesson.seed).items()
    }
    moved = train(card, lesson, Placement(dtype="float64"), start)
    return compare(moved, exact, "float32")


@pytest.mark.parametrize(("family", "lesson"), [("attention", "classes"), ("conv", "rmsprop")])
def test_rounding_does_not_decide_how_a_lesson_ends(family, lesson):
    found = jolted(lesson, family)
    assert 0 < found.error < found.tolerance / 4, found.quantity


@pytest.mark.slow
@pytest.mark.parametrize("lesson", LESSONS)
@pytest.mark.parametrize("family", NEEDED)
def test_rounding_decides_no_lesson(family, lesson):
    if (family, lesson) in REFUSED:
        with pytest.raises(SpecError):
            jolted(lesson, family)
        return
    found = jolted(lesson, family)
    assert found.error < found.tolerance / 4, found.quantity


@pytest.mark.parametrize(
    "changes",
    [
        {"betas": (0.9, 0.998)},
        {"epsilon": 1.1e-5},
        {"clip_norm": 0.31},
        {"total_steps": 51},
        {"weight_decay": 1e-4},
    ],
)
def test_a_slightly_different_optimiser_does_not_pass(changes):
    other = replace(LESSONS["mean"], optimiser=replace(LESSONS["mean"].optimiser, **changes))
    assert compare(course(LESSONS["mean"]), course(LESSONS["mean"]), "float32").error == 0
    assert not compare(course(other), course(LESSONS["mean"]), "float32").passed


@cache
def course(lesson):
    return train(impls.get("torch_eager"), lesson, Placement())


def test_courses_that_are_not_finite_or_not_complete_do_not_pass():
    good = Course(np.ones(3), {"head.bias": np.ones(2)})
    assert compare(good, good, "float64").passed
    for bad in (
        Course(np.array([1, np.nan, 1]), good.changes),
        Course(good.losses[:2], good.changes),
        Course(good.losses, {}),
    ):
        assert not compare(bad, good, "float64").passed
        assert not compare(good, bad, "float64").passed


def test_who_cannot_be_compared_is_named_with_the_reason():
    lesson = replace(LESSONS["sgd"], steps=1)
    plain = impls.get("torch_eager")
    dull = replace(plain, name="dull", core=None)
    refusing = replace(plain, name="refusing", unsupported=lambda spec, placement: "too wide")
    broken = replace(plain, name="broken", core=lambda: 1 / 0)
    absent = replace(plain, name="absent", requires=("torch", "no_such_module"))
    rows = agreement([plain, dull, refusing, broken, absent], [lesson], Placement())
    told = {row["impl"]: (row["status"], row["message"]) for row in rows}
    assert told["torch_eager"] == ("missing", "the other framework has trained nothing here")
    assert told["refusing"] == ("unsupported", "too wide")
    assert told["broken"] == ("failed", "it raised ZeroDivisionError: division by zero")
    assert told["dull"][0] == "unsupported"
    assert "offers no core" in told["dull"][1]
    assert told["absent"][0] == "missing"
    assert "no_such_module not installed" in told["absent"][1]


def test_lessons_have_every_input_head_readout_loss_and_optimiser():
    nets = [lesson.net for lesson in LESSONS.values()]
    assert {net.inputs for net in nets} == {"tokens", "dense", "hashed"}
    assert {net.head for net in nets} == {"sequence", "steps", "seq2seq"}
    translations = [net for net in nets if net.head == "seq2seq"]
    assert {net.decoder for net in translations} == {"projection", "state"}
    ahead = [net for net in translations if not net.masked_encoder and net.reversed_source]
    assert any(net.core.kernel_width == 3 and net.core.pooling == "ifo" for net in ahead)
    assert any(net.core.dilated for net in nets)
    assert {net.readout for net in nets} == {"last", "mean", "attention"}
    assert {net.loss for net in nets} == {"cross_entropy", "squared"}
    assert {net.core.pooling for net in nets} == {"f", "fo", "ifo"}
    algorithms = {lesson.optimiser.algorithm for lesson in LESSONS.values()}
    assert algorithms == {"sgd", "adam", "adamw", "rmsprop"}
    assert isinstance(LESSONS["sgd"], Lesson)
