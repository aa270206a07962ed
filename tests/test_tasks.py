"""What the tasks promise: pure streams, disjoint sets, stable hashes, stated chance levels."""

from __future__ import annotations

import sys
import time
from dataclasses import fields

import numpy as np
import pytest

from harness import tasks
from harness.errors import UsageError
from harness.tasks import digits, draws, mqar, number_words
from impls import net_params
from impls.contract import ModelSpec
from impls.nets import NetSpec, net_fields
from impls.training import Batch

SYNTHETIC = ("adding", "counting", "mqar", "reverse", "selective_copy")
OFFLINE = (*SYNTHETIC, "digits", "number_words")
SHA256 = {  # of run_root 7; a change of any example must raise the task's version
    "adding": "7ebe2db3cf1f42f0",
    "counting": "7d5a2002a6192026",
    "mqar": "c2e9173a04151149",
    "reverse": "5aadb5b8ab614231",
    "selective_copy": "c52d1585e138f3a4",
    "digits": "f72832d43a7efd0d",
    "number_words": "2f0932335ebf9b2b",
}


def same(one: Batch, other: Batch) -> bool:
    pairs = [(getattr(one, f.name), getattr(other, f.name)) for f in fields(Batch)]
    return all(np.array_equal(a, b) for a, b in pairs if a is not None or b is not None)


def examples(batch: Batch) -> list[bytes]:
    return [batch.inputs[:, i].tobytes() for i in range(batch.inputs.shape[1])]


def net_of(task: tasks.Task, net: dict, changes: dict) -> NetSpec:
    core = {"input_size": task.input_size, "hidden_size": 16, "layers": 2}
    own = {k: v for k, v in changes.items() if k in net_fields()}
    core |= {k: v for k, v in changes.items() if k not in own}
    return NetSpec(core=ModelSpec(**core), **(net | own))


@pytest.mark.parametrize("name", OFFLINE)
def test_training_batch_depends_on_run_root_and_step_only(name):
    task = tasks.get(name)
    one, other = task.data(7), task.data(7)
    late = one.train(45)
    one.train(0)
    assert same(other.train(45), late)
    assert same(one.train(45), late)
    assert not same(one.train(46), late)
    assert not same(task.data(8).train(45), late)


@pytest.mark.parametrize("name", SYNTHETIC)
def test_evaluation_sets_are_of_the_run_and_apart_from_each_other_and_from_training(name):
    task = tasks.get(name)
    data, again, elsewhere = task.data(3), task.data(3), task.data(4)
    assert all(same(a, b) for a, b in zip(data.test, again.test, strict=True))
    sets = [data.validation, data.test, data.tuning, elsewhere.tuning]
    sets.append([data.train(step) for step in range(40)])
    seen = [{x for batch in batches for x in examples(batch)} for batches in sets]
    assert [len(found) for found in seen[:4]] == [512] * 4
    assert sum(map(len, seen)) == len(set.union(*seen))


@pytest.mark.parametrize("name", OFFLINE)
def test_hash_of_the_evaluation_sets_is_stable(name):
    assert tasks.get(name).data(7).sha256[:16] == SHA256[name]


def test_hash_follows_the_version_and_every_array():
    batch = tasks.get("mqar").data(7).test[0]
    other = Batch(batch.inputs, batch.targets, weights=batch.weights[::-1])
    found = {draws.fingerprint("a", 1, [[batch]]), draws.fingerprint("a", 2, [[batch]])}
    found |= {draws.fingerprint("a", 1, [[other]]), draws.fingerprint("a", 1, [[batch], []])}
    found.add(draws.fingerprint("b", 1, [[batch]]))
    assert len(found) == 5


@pytest.mark.parametrize("name", OFFLINE)
def test_examples_fit_the_network_and_both_control_arms_exist(name):
    task, data = tasks.get(name), tasks.get(name).data(0)
    assert set(task.net) <= set(net_fields())
    nets = [net_of(task, data.net, changes) for changes in (task.good, task.bad)]
    assert nets[0] != nets[1]
    assert all(net_params.count(net) > 0 for net in nets)
    net = nets[0]
    for batch in (data.train(0), *data.validation, *data.test, *data.tuning):
        if net.inputs == "tokens":
            assert batch.inputs.dtype.kind == "i"
            assert 0 <= batch.inputs.min() <= batch.inputs.max() < net.vocabulary
        else:
            assert batch.inputs.shape[2] == task.input_size
            assert batch.inputs.dtype == np.float32
        if net.loss == "cross_entropy":
            assert 0 <= batch.targets.min() <= batch.targets.max() < net.outputs
    assert data.train(0).inputs.shape[1] == task.batch_size


@pytest.mark.parametrize("name", SYNTHETIC)
def test_a_batch_costs_less_than_two_milliseconds(name):
    data, best = tasks.get(name).data(0), np.inf
    for step in range(40):
        start = time.process_time()
        data.train(step)
        best = min(best, time.process_time() - start)
    assert best < 2e-3


@pytest.mark.parametrize("name", ["counting", "selective_copy", "mqar"])
def test_chance_is_the_best_constant_guess(name):
    task, data = tasks.get(name), tasks.get(name).data(11)
    batches = [data.train(step) for step in range(200)]
    scores = []
    for guess in range(data.net["outputs"]):
        logits = np.eye(data.net["outputs"])[guess]
        wide = [np.broadcast_to(logits, (*b.targets.shape, len(logits))) for b in batches]
        scores.append(data.score(wide, batches))
    assert max(scores) == pytest.approx(task.chance, rel=0.06)  # 5 standard errors of mqar


def test_chance_of_digits_is_a_uniform_guess():
    data, generator = tasks.get("digits").data(11), np.random.default_rng(0)
    batches = [data.train(step) for step in range(300)]
    scored = data.score([generator.random((32, 10)) for _ in batches], batches)
    assert scored == pytest.approx(tasks.get("digits").chance, abs=0.012)  # 4 standard errors


def test_chance_of_adding_is_the_error_of_always_one():
    data = tasks.get("adding").data(11)
    batches = [data.train(step) for step in range(300)]
    guesses = {g: data.score([np.full((32, 1), g)] * 300, batches) for g in (0.9, 1.0, 1.1)}
    assert min(guesses, key=guesses.get) == 1.0
    assert guesses[1.0] == pytest.approx(tasks.get("adding").chance, rel=0.05)


def test_a_guess_among_the_shown_values_of_mqar_scores_what_is_stated():
    data, right, total = tasks.get("mqar").data(5), 0, 0
    for step in range(200):
        batch = data.train(step)
        for column in range(32):
            shown = (batch.inputs[1:8:2, column] - 16).tolist()
            guess = max(shown, key=shown.count)
            asked = batch.weights[:, column] > 0
            right += int((batch.targets[asked, column] == guess).sum())
            total += int(asked.sum())
    assert right / total == pytest.approx(mqar.SHOWN, abs=0.01)


def test_step_scores_agree_with_a_loop_over_counted_steps():
    generator = np.random.default_rng(0)
    logits = generator.standard_normal((2, 5, 3, 4)).astype(np.float32)
    targets = generator.integers(0, 4, (2, 5, 3))
    weights = generator.integers(0, 2, (5, 3)).astype(np.float32)
    batches = [Batch(targets[0], targets[0], weights=weights)]
    batches.append(Batch(targets[1], targets[1], lengths=np.array([5, 1, 3])))
    right, nats, count = 0, 0.0, 0
    for k, t, b in np.ndindex(2, 5, 3):
        if weights[t, b] if k == 0 else t < (5, 1, 3)[b]:
            share = np.exp(logits[k, t, b].astype(float))
            right += int(logits[k, t, b].argmax() == targets[k, t, b])
            nats -= np.log(share[targets[k, t, b]] / share.sum())
            count += 1
    assert draws.step_accuracy(list(logits), batches) == pytest.approx(right / count)
    assert draws.bits(list(logits), batches) == pytest.approx(nats / count / np.log(2))


def test_exact_match_counts_sequences_up_to_their_end_mark():
    targets = np.array([[3, 2, 2], [4, 1, 3], [1, 0, 1]])
    batch = Batch(targets, targets, target_lengths=np.array([3, 2, 3]))
    logits = np.eye(5)[targets]
    logits[2, 1] = np.eye(5)[4]  # behind the end mark: does not count
    assert draws.exact_match([logits], [batch]) == 1
    logits[0, 0] = np.eye(5)[4]
    assert draws.exact_match([logits], [batch]) == pytest.approx(2 / 3)


def test_scores_refuse_outputs_of_another_number_of_batches():
    data = tasks.get("counting").data(0)
    with pytest.raises(ValueError, match="argument 2 is longer"):
        data.score([np.zeros((60, 128, 17))], data.test)


def test_unknown_task_names_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'counting'"):
        tasks.get("countin")


def test_unknown_option_is_one_clear_line():
    with pytest.raises(UsageError, match="'counting' has no option 'file'; allowed: none"):
        tasks.get("counting").data(0, {"file": "x"})
    with pytest.raises(UsageError, match="did you mean 'file'"):
        tasks.get("char_lm").data(0, {"flie": "x"})


@pytest.mark.parametrize(
    ("library", "call", "cached"),
    [
        ("sklearn", lambda: tasks.get("digits").data(0), (digits._images, digits.parts)),
        ("num2words", lambda: number_words.words(7, "de"), (number_words._library,)),
        ("sacrebleu", lambda: number_words.chrf(["a"], ["a"]), ()),
    ],
)
def test_a_missing_library_is_one_line_on_what_to_install(monkeypatch, library, call, cached):
    for name in [m for m in sys.modules if m.split(".")[0] == library]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)
    for function in cached:
        function.cache_clear()
    with pytest.raises(UsageError, match=r"pip install 'quasibench\[tasks\]'"):
        call()
