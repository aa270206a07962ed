"""Equal parameters and equal FLOPs: the formulas against counted ones, the width against all."""

from dataclasses import replace

import pytest

from harness import tasks
from harness.ablation import budgets, changes
from harness.errors import UsageError
from impls import net_params
from impls.contract import ModelSpec
from impls.nets import NetSpec

BASE = {"input_size": 32, "pooling": "fo", "kernel_width": 2, "layers": 2, "hidden_size": 64}
ARMS = {
    "f": {"pooling": "f"},
    "ifo": {"pooling": "ifo"},
    "k1": {"kernel_width": 1},
    "k4": {"kernel_width": 4},
    "dense": {"dense": True},
}


def network(**changed):
    task = tasks.get("counting")
    return changes.network(task.net, task.input_size, {**BASE, **changed})


@pytest.mark.parametrize("mode", ["params", "flops"])
@pytest.mark.parametrize("arm", ARMS)
def test_the_width_is_the_nearest_there_is_and_within_one_percent(arm, mode):
    net, base = network(**ARMS[arm]), network()
    found = budgets.fitted(net, base, mode, 32, 60)

    def cost(hidden):
        one = replace(net, core=replace(net.core, hidden_size=hidden))
        return budgets.params(one) if mode == "params" else budgets.flops(one, 32, 60)

    goal = budgets.params(base) if mode == "params" else budgets.flops(base, 32, 60)
    best = min(range(1, 200), key=lambda hidden: abs(cost(hidden) - goal))
    assert found.hidden_size == best
    assert found.difference == pytest.approx(cost(best) / goal - 1)
    assert found.near
    assert abs(found.difference) <= 0.01


def test_the_parameters_are_those_of_the_protocols_formula():
    net = network()
    per_layer = [3 * (2 * inputs * 64 + 64) for inputs in (32, 64)]
    assert budgets.params(net) == sum(per_layer) + 3 * 32 + 64 * 17 + 17


def test_a_step_costs_three_products_of_every_matrix():
    net = network()
    weights = sum(
        value.size for name, value in net_params.init(net, 0).items()
        if name.endswith("weight") and not name.startswith("embedding")
    )  # fmt: skip
    assert budgets.flops(net, 32, 60) == 6 * 32 * 60 * weights


def test_dense_inputs_need_no_gradient_and_a_hashed_bottleneck_costs_its_own():
    core = ModelSpec(input_size=4, hidden_size=8)
    first = 2 * 4 * 8 * 3
    dense = NetSpec(core, inputs="dense", outputs=5)
    assert budgets.flops(dense, 2, 3) == 2 * 2 * 6 * first + 6 * 2 * 8 * 5
    hashed = NetSpec(core, inputs="hashed", features=7, outputs=5)
    assert budgets.flops(hashed, 2, 3) == 6 * 6 * (first + 7 * 4) + 6 * 2 * 8 * 5


def test_the_same_width_is_kept_where_only_the_training_differs():
    net = network(zoneout=0.1)
    assert budgets.fitted(net, network(), "params", 32, 60) == budgets.Width(64, 0.0)
    assert budgets.fitted(network(pooling="f"), network(), "as_is", 32, 60).hidden_size == 64


def test_what_cannot_be_made_small_enough_is_said():
    with pytest.raises(UsageError, match="one hidden unit costs"):
        budgets.solve(network(input_size=4096), 10.0, budgets.params)
