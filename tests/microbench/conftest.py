"""pytest-benchmark with interleaved contenders: measured in turns, then replayed to the plugin.

The plugin times one test after the other, and a machine that slows down half-way would favour
the first. So the first test of a cell measures all contenders of that cell in random turns; each
test then replays its own samples through the plugin's public `timer` option. Tables, JSON and
`--benchmark-compare` stay the plugin's.
"""

import random
from dataclasses import replace

import pytest

import impls
from harness.conformance.tolerances import VALUES
from harness.speed import clock, parts
from harness.speed.gate import distance
from harness.speed.grid import params_of, work_of
from impls import reference

ROUNDS = 30


class Replay:
    """A clock that stands still until it is told how long the next sample took, in seconds."""

    def __init__(self):
        self.now, self.samples = 0.0, iter([0.0])

    def __call__(self):
        return self.now

    def advance(self):
        self.now += next(self.samples)


def prepared(contender, point):
    """A warm Run of a layer, or a part of it, that has passed its gate; skips where absent."""
    name, card = contender.name, impls.get(contender.impl)
    if reason := impls.missing(card):
        pytest.skip(reason)
    spec = replace(point.spec, family=card.family)
    params, work = params_of(spec, point, 1), work_of(point, spec, 1)
    if contender.is_part:
        run = card.parts[contender.mode](spec, params, point.placement, work)
        clock.sample(run, 1)
        parts.check(contender.mode, run, spec, params, work, point.placement.dtype)
        return run
    run = card.load(spec, params, point.placement).prepare(work)
    clock.sample(run, 1)
    error = distance(run.result()["y"], reference.run(spec, params, work)["y"])
    assert error <= VALUES[point.placement.dtype], f"{name} is wrong by {error:.1e}: not timed"
    return run


def in_turns(runs):
    """Seconds per call, by name: ROUNDS rounds, the order drawn anew in each."""
    chance, out = random.Random(1), {name: [] for name in runs}
    inner = {name: clock.inner_calls(clock.sample(run, 2)[0]) for name, run in runs.items()}
    for _ in range(ROUNDS):
        for name in chance.sample(list(runs), len(runs)):
            clock.sample(runs[name], 1)  # warms the caches after another's turn
            out[name].append(clock.sample(runs[name], inner[name])[0] * 1e-9)
    return out


@pytest.fixture(scope="session")
def measured():
    """Samples by group and contender, measured when the first test of a group asks."""
    return {}


@pytest.fixture
def replay(request):
    """The clock of one test; ask for it before `benchmark`."""
    timer = Replay()
    request.node.add_marker(pytest.mark.benchmark(timer=timer))
    return timer


@pytest.fixture
def measure(measured, replay, benchmark):
    """Measures one contender in the group of all that are timed in turns with it."""

    def one(group, contender, all_of_them, point):
        benchmark.group = group
        if not benchmark.enabled:  # as a test: one gated call
            benchmark(prepared(contender, point))
            return
        if group not in measured:
            runs = {other.name: prepared(other, point) for other in all_of_them}
            measured[group] = in_turns(runs)
        samples = measured[group][contender.name]
        replay.samples = iter(samples)
        benchmark.pedantic(replay.advance, rounds=len(samples), iterations=1)

    return one
