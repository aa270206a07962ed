"""The compiled pooling kernels against the float64 oracle, and their edges."""

import subprocess
import sys

import numpy as np
import pytest

from impls.contract import POOLINGS, ModelSpec
from impls.kernels import native
from tests.pooling import compiled, draw, expected
from tests.torch_works import distance

pytestmark = pytest.mark.skipif(
    native.lacking() is not None, reason=f"no working C++ compiler: {native.lacking()}"
)
EXACT = {"float32": 1e-6, "bfloat16": 1e-6, "float64": 1e-12}
"""Carried state and bias gradients, given the same gate sums."""
STORED = {"float32": 1e-6, "bfloat16": 3e-3, "float64": 1e-12}
"""What is written in the I/O format: one rounding to bfloat16 is at most 2e-3."""
ZONES = {
    "none": ({}, False),
    "held": ({"zoneout": 0.4}, True),
    "held_literal": ({"zoneout": 0.4, "zoneout_mode": "literal"}, True),
    "expected": ({"zoneout": 0.4, "zoneout_eval": "expectation"}, False),
    "expected_literal": (
        {"zoneout": 0.4, "zoneout_eval": "expectation", "zoneout_mode": "literal"},
        False,
    ),
}
# batch, steps, hidden, spacing
SHAPES = [(8, 1, 6, 1), (9, 4, 1, 2), (3, 9, 7, 4), (2, 21, 33, 5), (1, 40, 97, 16)]


def layer(pooling, hidden, **more):
    return ModelSpec(input_size=1, hidden_size=hidden, kernel_width=1, pooling=pooling, **more)


def lengths_of(batch, steps):
    return np.maximum(1, steps * np.arange(batch, 0, -1) // (batch + 1))


def check(case, **how):
    given, wanted = compiled(case, **how), expected(case)
    for name in ("c", "dc", "dbias"):
        assert distance(given[name], wanted[name]) <= EXACT[case.dtype], name
    for name in ("y", "dpre"):
        assert distance(given[name], wanted[name]) <= STORED[case.dtype], name


@pytest.mark.parametrize("dtype", EXACT)
@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("pooling", POOLINGS)
def test_values_and_gradients_equal_the_oracle(pooling, zone, dtype):
    more, training = ZONES[zone]
    for batch, steps, hidden, spacing in SHAPES:
        spec = layer(pooling, hidden, **more)
        for reverse in (False, True):
            for lengths in (None, lengths_of(batch, steps)):
                case = draw(
                    spec, dtype, batch, steps, lengths=lengths, reverse=reverse, training=training
                )
                check(case, spacing=spacing, chunk=2 * spacing, ragged=lengths is not None)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("lengths", [None, [50, 3, 23]])
def test_chunks_give_the_bits_of_one_pass(reverse, lengths):
    spec = layer("ifo", 40, zoneout=0.3)
    case = draw(spec, "float32", 3, 50, lengths=lengths, reverse=reverse, training=True)
    whole, parts = (compiled(case, chunk=chunk, spacing=8) for chunk in (None, 8))
    for name in ("y", "c", "dpre", "dc"):
        np.testing.assert_array_equal(parts[name], whole[name], err_msg=name)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("hidden", [320, 97])
def test_one_to_eight_threads_give_equal_bits(hidden, dtype):
    if sys.platform == "linux":
        assert native._fork() is not None, "no OpenMP runtime found: the threads are not tested"
    spec = layer("ifo", hidden, zoneout=0.2)
    case = draw(spec, dtype, 5, 64, training=True)
    one = compiled(case, chunk=32, spacing=16, threads=1)
    for threads in range(2, 9):
        many = compiled(case, chunk=32, spacing=16, threads=threads)
        for name, value in one.items():
            np.testing.assert_array_equal(many[name], value, err_msg=f"{name} {threads}")


def special(values, pooling="ifo", dtype="float32"):
    """A case of one step whose gate sums are all combinations of `values`, without bias."""
    gates = len(layer(pooling, 1).gates)
    grid = np.stack(np.meshgrid(*[values] * gates), -1).reshape(-1, len(values), gates)
    # A unit per value, the rest over the batch: the oracle's weights grow with the units' square.
    case = draw(layer(pooling, len(values)), dtype, len(grid), 1)
    case.bias[:] = 0
    case.pre[0] = grid.transpose(0, 2, 1).reshape(len(grid), -1)
    return case


@pytest.mark.parametrize("pooling", POOLINGS)
def test_huge_and_infinite_gate_sums_saturate_as_in_the_oracle(pooling):
    case = special([0.0, 1e30, -1e30, np.inf, -np.inf, 89.0, -89.0, 1e-30], pooling)
    given, wanted = compiled(case), expected_of_special(case)
    for name in ("y", "c"):
        np.testing.assert_allclose(given[name], wanted[name], rtol=1e-6, atol=1e-37, err_msg=name)
    assert np.isfinite(given["dpre"]).all()


def expected_of_special(case):
    # The oracle multiplies gate sums by weights of 0 and 1: an infinity there would give NaN.
    case.pre = np.clip(case.pre, -1e35, 1e35)
    return expected(case)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_nan_stays_in_its_own_channel_and_reaches_every_later_step(dtype):
    case = draw(layer("fo", 40), dtype, 2, 12)
    for gate in range(3):
        poisoned = draw(layer("fo", 40), dtype, 2, 12)
        poisoned.pre[5, 1, gate * 40 + 17] = np.nan
        given, clean = compiled(poisoned), compiled(case)
        wrong = np.isnan(given["y"])
        assert wrong[5, 1, 17]
        assert wrong[6:, 1, 17].all() == (gate < 2)  # o acts on its own step only
        wrong[5:, 1, 17] = False
        assert not wrong.any()
        given["y"][5:, 1, 17] = clean["y"][5:, 1, 17]
        np.testing.assert_array_equal(given["y"], clean["y"])


def test_denormal_states_and_sums_are_kept():
    case = special([1e-40, -1e-40])
    case.c[:] = 3e-40
    given = compiled(case)
    np.testing.assert_allclose(given["c"], expected(case)["c"], rtol=1e-2)
    assert (given["c"] != 0).all()


def test_small_gate_sums_keep_their_digits():
    case = special([1e-5, -3e-4, 2e-3])
    case.c[:] = 0
    np.testing.assert_allclose(compiled(case)["c"], expected(case)["c"], rtol=1e-6)


def test_held_units_keep_their_state_to_the_bit():
    case = draw(layer("fo", 200, zoneout=0.5), "float32", 2, 1, training=True)
    from impls import reference
    from tests.pooling import SEED

    held = reference.hold_mask(case.spec, SEED, case.rows, case.t0, 1, 2, "fwd")[0]
    assert held.any()
    assert (~held).any()
    after = compiled(case)["c"]
    np.testing.assert_array_equal(after[held], case.c[held])
    assert (after != case.c)[~held].all()


def test_loading_and_running_change_no_floating_point_mode():
    code = (
        "import numpy as np; from impls.contract import ModelSpec\n"
        "from tests.pooling import compiled, draw\n"
        "small = np.float32(1e-38)\n"
        "assert small * np.float32(1e-3) != 0\n"
        "compiled(draw(ModelSpec(input_size=1, hidden_size=300), 'float32', 4, 30), threads=2)\n"
        "assert small * np.float32(1e-3) != 0, 'denormals are flushed'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
