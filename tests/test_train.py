"""The course of a training: its evaluations, when it stops, and that a resumed one is the same."""

import itertools
import math
import signal
import sys
import time
from dataclasses import asdict

import numpy as np
import pytest

from harness.ablation import checkpoint, losses, train
from harness.ablation.course import Course, evaluation_steps
from harness.errors import UsageError
from harness.process import Worker, WorkerFailure
from impls.contract import ModelSpec
from impls.nets import NetSpec, OptimiserSpec
from impls.training import Batch

NET = NetSpec(
    ModelSpec(input_size=8, hidden_size=8, layers=2, zoneout=0.1), vocabulary=10, outputs=8,
    head="steps", dropout=0.1,
)  # fmt: skip


def identity(impl="torch_native", steps=24, **changed):
    optimiser = OptimiserSpec(learning_rate=8e-3, schedule="cosine", total_steps=steps)
    return {
        "impl": impl, "task": "selective_copy", "root": 1, "seed": 3, "role": "final",
        "net": asdict(NET), "optimiser": {**asdict(optimiser), "betas": [0.9, 0.999]},
        "steps": steps, "target": 0.95, "evaluations": 3, "dtype": "float32", **changed,
    }  # fmt: skip


def test_evaluations_are_log_spaced_and_end_with_the_last_step():
    points = evaluation_steps(350, 12)
    assert len(points) == 12
    assert (points[0], points[-1]) == (7, 350)
    ratios = [b / a for a, b in itertools.pairwise(points)]
    assert max(ratios) < 1.6
    assert evaluation_steps(3, 12) == [1, 2, 3]


def course(*scores, points=(1, 2, 4, 8, 16), loss=1.0):
    made = Course(list(points), first_loss=1.0)
    for at, score in zip(points, scores, strict=False):
        made.done = at
        made.judge(loss, score, "accuracy")
        made.test.append(score - 0.1 if made.needs_test else None)
        if made.ended:
            break
    return made


def test_the_final_score_is_the_mean_of_the_last_two_evaluations_not_the_best():
    made = course(0.1, 0.8, 0.2, 0.5, 0.6)
    assert made.test == [None, None, None, 0.4, 0.5]
    assert made.final(made.validation) == pytest.approx(0.55)
    assert made.final(made.test) == pytest.approx(0.45)


def test_two_evaluations_at_99_percent_stop_and_their_score_is_carried_forward():
    made = course(0.5, 0.995, 0.99, 0.0, 0.0)
    assert (made.stop, made.done) == ("solved", 4)
    assert made.final(made.test) == pytest.approx(0.89)
    assert made.carried(made.validation) == [0.5, 0.995, 0.99, 0.99, 0.99]
    assert made.steps_to(0.9, higher_is_better=True) == 2
    assert course(0.995, 0.5, 0.995, 0.5, 0.5).stop is None, "one evaluation is not enough"


def test_a_score_below_99_percent_an_error_or_bits_never_end_a_training_early():
    assert course(*[0.989] * 5).stop is None, "cut off where more was to be learned"
    for metric, score in (("mse", 0.0), ("bits_per_character", 1.0), ("bits_per_character", 0.0)):
        made = Course([1, 2, 3], first_loss=1.0)
        for _ in made.points:
            made.judge(0.1, score, metric)
        assert made.stop is None


def test_no_training_ends_at_its_target():
    job = train.Job(identity(target=0.01, steps=6), {})
    end = train.run(job)["row"]
    assert (end["stop_reason"], end["steps_done"]) == ("budget", 6)
    assert end["steps_to_target"] == 1


def test_a_loss_of_three_times_the_first_has_diverged_and_has_no_score():
    made = course(0.5, loss=3.1)
    assert (made.stop, made.status) == ("diverged", "diverged")
    assert made.final(made.validation) is made.auc() is None
    assert course(0.5, loss=2.9).stop is None
    assert course(0.5, loss=math.inf).status == "nonfinite"


def test_the_area_is_over_the_logarithm_of_steps():
    assert course(0.0, 0.0, 1.0, 1.0, 1.0).auc() == pytest.approx(0.625)
    assert course(*[0.7] * 5).auc() == pytest.approx(0.7)


@pytest.mark.parametrize("head", ["sequence", "steps"])
def test_the_loss_of_outputs_counts_what_the_trainer_counts(head):
    rng = np.random.default_rng(0)
    net = NetSpec(ModelSpec(input_size=2), vocabulary=3, outputs=4, head=head)
    shape = (5, 2) if head == "steps" else (2,)
    targets = rng.integers(0, 4, shape)
    lengths = np.array([5, 3]) if head == "steps" else None
    logits = rng.standard_normal((*shape, 4)).astype(np.float32)
    batch = Batch(np.zeros((5, 2), int), targets, lengths)
    terms = -np.log(np.exp(logits) / np.exp(logits).sum(-1, keepdims=True))
    kept = [
        terms[(*at, targets[at])]
        for at in np.ndindex(shape)
        if lengths is None or at[0] < lengths[at[1]]
    ]
    assert losses.mean(net, [logits], [batch]) == pytest.approx(np.mean(kept), rel=1e-6)


def test_a_checkpoint_keeps_every_bit_and_refuses_another_training(tmp_path):
    file = tmp_path / "a.safetensors"
    arrays = {"x": np.array(3), "y": np.arange(4, dtype=np.float32).reshape(2, 2)}
    checkpoint.save(file, identity(), {"step": 3, "loss": math.nan}, arrays)
    words, found = checkpoint.load(file, identity())
    assert words["step"] == 3
    assert math.isnan(words["loss"])
    for name, value in arrays.items():
        assert found[name].shape == value.shape
        assert (found[name] == value).all()
    with pytest.raises(UsageError, match="another training, its seed is 3, this one's 4"):
        checkpoint.load(file, identity(seed=4))
    file.write_bytes(b"no checkpoint")
    with pytest.raises(UsageError, match="not a checkpoint"):
        checkpoint.load(file, identity())


@pytest.mark.parametrize("role", ["tune", "final"])
def test_a_training_looks_at_the_set_of_its_role_alone(role):
    job = train.Job(identity(role=role), {})
    held_out = train._Training(job, None, Course([1])).held_out
    assert held_out is (job.data.tuning if role == "tune" else job.data.validation)


@pytest.mark.skipif(sys.platform != "linux", reason="stops workers by Linux signals")
def test_killed_in_the_middle_and_resumed_the_parameters_are_bit_equal(tmp_path):
    pytest.importorskip("torch")
    file = tmp_path / "cut.safetensors"
    with Worker("cut", 1, tmp_path) as worker:
        arguments = {"identity": identity(), "options": {}, "file": str(file), "every_s": 0.0}
        worker.ask("train", **arguments, stale_key="s")
        deadline = time.monotonic() + 100
        while not file.exists() and time.monotonic() < deadline:
            time.sleep(0.002)
        worker._process.send_signal(signal.SIGKILL)
        with pytest.raises(WorkerFailure, match="SIGKILL"):
            worker.answer(60)
    done = checkpoint.header(file, identity())["course"]["done"]
    assert 0 < done < 24, "it was not in the middle"
    resumed = train.run(train.Job(identity(), {}, file))
    whole = train.run(train.Job(identity(), {}))
    assert not file.exists(), "a training that has ended keeps no checkpoint"
    assert resumed["curve"] == whole["curve"]
    for name in ("params_sha256", "metric", "validation", "auc", "train_loss", "steps_done"):
        assert resumed["row"][name] == whole["row"][name], name
    other = train.run(train.Job(identity(seed=4), {}))
    assert other["row"]["params_sha256"] != whole["row"]["params_sha256"]
