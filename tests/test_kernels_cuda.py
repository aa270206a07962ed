"""The CUDA pooling kernels, unchanged over a CPU shim, against the float64 oracle."""

from itertools import product

import numpy as np
import pytest

from impls.contract import POOLINGS
from impls.kernels import cuda
from impls.reference import hold_mask
from tests import cuda_shim
from tests.cuda_shim.problem import ROUNDING, SEED, Problem, spec

pytestmark = pytest.mark.skipif(cuda_shim.COMPILER is None, reason="no C++ compiler")

GEOMETRIES = [(32, 8, 8), (32, 4, 8), (16, 16, 8), (8, 32, 8), (32, 16, 4), (32, 8, 4)]

ZONEOUTS = [
    ({}, True),
    ({"zoneout": 0.4}, True),
    ({"zoneout": 0.4, "zoneout_mode": "literal"}, True),
    ({"zoneout": 0.4, "zoneout_eval": "expectation"}, False),
    ({"zoneout": 0.4, "zoneout_eval": "expectation", "zoneout_mode": "literal"}, False),
]


@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize(("zoneout", "training"), ZONEOUTS)
@pytest.mark.parametrize("pooling", POOLINGS)
def test_values_states_and_gradients_equal_the_oracle(pooling, zoneout, training, dtype):
    for lengths, backwards in product([None, (70, 1, 33)], [False, True]):
        problem = Problem(spec(pooling, **zoneout), dtype, 3, 70, lengths, training, backwards, 2)
        problem.check(problem.run())


@pytest.mark.parametrize(("zoneout", "training"), ZONEOUTS[:3])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_pairs_of_bfloat16_channels_equal_the_oracle(pooling, zoneout, training):
    for hidden, backwards in product([2, 66], [False, True]):
        problem = Problem(spec(pooling, hidden, **zoneout), "bfloat16", 2, 75, (75, 30), training,
                          backwards)  # fmt: skip
        problem.check(problem.run(packed=2, geometry=(32, 8, 4)))
        problem.check(problem.run(packed=2, geometry=(32, 4, 8)))


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_every_geometry_equals_the_oracle(geometry):
    problem = Problem(spec("ifo", 37, zoneout=0.3), batch=2, steps=270, lengths=(270, 131))
    problem.check(problem.run(geometry=geometry))


@pytest.mark.parametrize("hidden", [1, 31, 32, 33, 70])
@pytest.mark.parametrize("steps", [1, 2, 31, 32, 33, 64])
def test_odd_sizes_equal_the_oracle(steps, hidden):
    for zoneout in (0.0, 0.3):
        problem = Problem(spec(hidden=hidden, zoneout=zoneout), batch=1, steps=steps)
        problem.check(problem.run())


def test_the_mask_is_the_oracles_bit_for_bit():
    for mode, backwards, layer in product(["keep", "literal"], [False, True], [0, 3]):
        problem = Problem(spec("f", 9, zoneout=0.5, zoneout_mode=mode), batch=3, steps=50,
                          backwards=backwards, layer=layer)  # fmt: skip
        problem.pre[:] = problem.bias[:] = 0  # z = 0 and f = 1/2: c is held or halved, exactly
        y = problem.run()["y"]
        cells = np.concatenate([problem.c0[None], problem.order(y)])
        direction = "rev" if backwards else "fwd"
        held = hold_mask(problem.spec, SEED, problem.rows, problem.t0, 50, layer, direction)
        np.testing.assert_array_equal(cells[1:] == cells[:-1], held)


@pytest.mark.parametrize("dtype", ROUNDING)
def test_extreme_gates_saturate_and_nan_stays_in_its_channel(dtype):
    problem = Problem(spec(hidden=6), dtype, batch=1, steps=40)
    problem.pre[3] = problem.round(np.tile(np.array([1e30, -1e30, 100.0, -100.0, 1e-39, 0.0]), 3))
    large = problem.run()
    problem.check(large)
    with np.errstate(over="ignore"):
        problem.pre[np.abs(problem.pre) > 1e29] *= 1e30
    assert np.isinf(problem.pre).sum() == 6
    for name, value in problem.run().items():
        np.testing.assert_array_equal(value, large[name])
    problem.pre[7, 0, 1] = np.nan
    given = problem.run()
    assert np.isnan(given["y"][7:, 0, 1]).all()
    assert np.isnan(given["y"]).sum() == 33


def without(source, number):
    """The source without its barrier number `number`."""
    parts = source.split("__syncthreads();")
    return "__syncthreads();".join(parts[: number + 1]) + "".join(
        f"{';' if k == 0 else '__syncthreads();'}{part}"
        for k, part in enumerate(parts[number + 1 :])
    )


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_missing_barrier_is_caught(number):
    source = cuda.source()
    assert source.count("__syncthreads();") == 3
    broken = without(source, number)
    assert broken.count("__syncthreads();") == 2
    problem = Problem(spec(hidden=9), steps=100)
    problem.check(problem.run(source=source))
    with pytest.raises(AssertionError, match="is off by nan"):
        problem.check(problem.run(source=broken))


def test_one_buffer_instead_of_two_is_caught():
    source = cuda.source().replace("tile & 1", "0")
    problem = Problem(spec(hidden=9), steps=300)
    with pytest.raises(AssertionError, match="is off by"):
        problem.check(problem.run(source=source))


def test_too_little_shared_memory_is_caught(monkeypatch):
    full = cuda.Kernel.shared_bytes.fget
    monkeypatch.setattr(cuda.Kernel, "shared_bytes", property(lambda self: full(self) - 4))
    with pytest.raises(RuntimeError, match="beyond the shared memory"):
        Problem(spec(hidden=32), steps=70).run()
