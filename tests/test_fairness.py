"""Rules that keep a comparison fair: twins are treated alike, no card picks its own weights."""

import random
from dataclasses import replace

import numpy as np
import pytest

from harness.commands import parameters
from harness.config import parse
from harness.errors import UsageError
from harness.speed import sitting
from harness.speed.arm import Arm, Limits, choose_baseline
from harness.speed.grid import Contender, Point, params_of
from impls import hindrance
from impls.contract import Implementation, ModelSpec, Placement

POINT = Point("forward", ModelSpec(input_size=3, hidden_size=4), Placement(), 2, 3)


class Recorder(Arm):
    """An arm that notes what it is asked and answers at once."""

    def ask(self, command, timeout, finish=False, **arguments):
        self.turns.append((arguments["samples"], arguments["burn"]))
        return {"wall_ns": [1e6], "cpu_ns": [1e6]}


def test_a_twin_gets_the_blocks_and_burned_calls_of_its_original():
    own, twin = (Recorder(Contender("lstm_torch", twin), None) for twin in (False, True))
    own.warm, twin.warm = [19.9e6], [20.1e6]  # on both sides of what counts as a short call
    rule = sitting.Rules(0.0, least=2, most=2, floor=2, target=0.01)
    sitting.sample([own, twin], rule, "auto", random.Random(1), Limits(), lambda: None)
    asked = [[turn for turn in arm.turns if isinstance(turn, tuple)] for arm in (own, twin)]
    assert asked[0] == asked[1] == [(asked[0][0][0], 1)] * 2
    assert own.wanted == twin.wanted == 2


def test_the_baseline_is_the_fastest_by_the_clock_that_is_published():
    torch, jax = (Arm(Contender(f"lstm_{name}"), None) for name in ("torch", "jax"))
    torch.wall, torch.cpu = [[1.0]], [[2.0]]
    jax.wall, jax.cpu = [[2.0]], [[1.0]]
    assert choose_baseline([torch, jax], "auto") is torch
    assert choose_baseline([torch, jax], "auto", "cpu") is jax


def test_a_card_cannot_choose_the_weights_of_a_family_that_the_oracle_knows():
    def zeros(spec, seed):
        return {"layers.0.fwd.z.weight": np.zeros(1)}

    card = Implementation("x", "", (), lambda s, p: None, lambda s, a, p: None, "qrnn", zeros)
    given, right = parameters(card, POINT.spec, POINT, 1), params_of(POINT.spec, POINT, 1)
    assert given.keys() == right.keys()
    assert all(np.array_equal(given[name], right[name]) for name in right)
    own = replace(POINT.spec, family="own")
    assert parameters(replace(card, family="own"), own, POINT, 1).keys() == {
        "layers.0.fwd.z.weight"
    }


def test_a_card_whose_answer_raises_is_a_reason_and_no_crash():
    def broken(spec, placement):
        raise ModuleNotFoundError("No module named 'torch'")

    card = Implementation("x", "", (), broken, lambda s, a, p: None)
    assert "ModuleNotFoundError: No module named 'torch'" in hindrance(
        card, POINT.spec, Placement()
    )


def test_a_profile_names_one_device():
    text = '[profile]\nbudget = "1m"\n[[grid]]\nkind = "forward"\nbatch = 1\nsteps = 2\n'
    parse(text, "one")
    with pytest.raises(UsageError, match="one device per profile"):
        parse(text + 'device = ["cpu", "cuda"]\n', "two")
