"""What the tasks promise: pure streams, disjoint sets, stable hashes, stated chance levels."""

from __future__ import annotations

import numpy as np
import pytest

from harness import tasks
from harness.errors import UsageError
from impls.nets import Batch

SYNTHETIC = ("counting",)


def same(one: Batch, other: Batch) -> bool:
    pairs = [(getattr(one, n), getattr(other, n)) for n in ("inputs", "targets", "weights")]
    return all((a is None and b is None) or np.array_equal(a, b) for a, b in pairs)


def sequences(batch: Batch) -> list[bytes]:
    return [batch.inputs[:, i].tobytes() for i in range(batch.inputs.shape[1])]


@pytest.mark.parametrize("name", SYNTHETIC)
def test_training_batch_depends_on_run_root_and_step_only(name):
    task = tasks.get(name)
    one, other = task.data(7), task.data(7)
    late = one.train(5)
    one.train(0)
    assert same(other.train(5), late)
    assert same(one.train(5), late)
    assert not same(one.train(6), late)
    assert not same(task.data(8).train(5), late)


@pytest.mark.parametrize("name", SYNTHETIC)
def test_no_evaluation_example_is_in_another_set_or_in_training(name):
    data = tasks.get(name).data(3)
    sets = [data.validation, data.test, data.tuning, [data.train(s) for s in range(40)]]
    seen = [{x for batch in batches for x in sequences(batch)} for batches in sets]
    assert sum(map(len, seen[:3])) == len(set.union(*seen[:3])) == 3 * 512
    assert not seen[3] & set.union(*seen[:3])


def test_counting_target_is_ups_minus_downs():
    batch = tasks.get("counting").data(1).test[0]
    for column in range(20):
        symbols, targets = batch.inputs[:, column].tolist(), batch.targets[:, column].tolist()
        for t in range(60):
            seen = symbols[: t + 1]
            assert targets[t] - 8 == seen.count(1) - seen.count(2)
    assert batch.targets.min() == 0
    assert batch.targets.max() == 16


def test_unknown_task_names_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'counting'"):
        tasks.get("countin")


def test_unknown_option_is_one_clear_line():
    with pytest.raises(UsageError, match="'counting' has no option 'file'; allowed: none"):
        tasks.get("counting").data(0, {"file": "x"})
