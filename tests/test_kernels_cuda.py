"""The CUDA pooling kernels: unchanged over a CPU shim, through NVRTC, and on a device."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from impls.contract import POOLINGS, ModelSpec
from impls.kernels import cuda
from impls.reference import hold_mask, qrnn
from impls.reference.ops import reverse
from tests import cuda_shim

shim = pytest.mark.skipif(cuda_shim.COMPILER is None, reason="no C++ compiler")
nvrtc = pytest.mark.skipif(cuda.nvrtc_library() is None, reason="nvidia-cuda-nvrtc not installed")

SEED = (0xFEDCBA98 << 32) + 0x12345678
ROUNDING = {"float32": 2e-6, "bfloat16": 6e-3}
STATE = 1e-6
"""The carried state, given the same gates, in either dtype."""
GEOMETRIES = [(32, 8, 8), (32, 4, 8), (16, 16, 8), (8, 32, 8), (32, 16, 4), (32, 8, 4)]


def to_bits(array):
    """bfloat16 bits of float32 numbers, nearest even."""
    bits = np.ascontiguousarray(array, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def from_bits(bits):
    return (bits.astype(np.uint32) << 16).view(np.float32)


class Problem:
    """Random arguments of one pooling, the oracle's answer, and the kernels' answer."""

    def __init__(self, spec, dtype="float32", batch=2, steps=21, lengths=None, training=True,
                 backwards=False, layer=0):  # fmt: skip
        rng = np.random.default_rng(5)
        self.spec, self.dtype, self.training = spec, dtype, training
        self.batch, self.steps, self.backwards, self.layer = batch, steps, backwards, layer
        hidden, gates = spec.hidden_size, len(spec.gates)
        self.pre = self.round(2 * rng.standard_normal((steps, batch, gates * hidden)))
        self.dy = self.round(rng.standard_normal((steps, batch, hidden)))
        self.bias = rng.standard_normal(gates * hidden).astype(np.float32)
        self.c0, self.dc = rng.standard_normal((2, batch, hidden)).astype(np.float32)
        self.lengths = np.array([steps] * batch if lengths is None else lengths)
        self.rows = 3 + 2 * np.arange(batch) + (1 << 33)
        self.t0 = 5 + 6 * np.arange(batch)
        padded = np.arange(steps)[:, None] >= self.lengths
        self.pre[padded] = self.dy[padded] = np.nan

    def round(self, array):
        array = array.astype(np.float32)
        return from_bits(to_bits(array)) if self.dtype == "bfloat16" else array

    @property
    def zone(self):
        if self.spec.zoneout == 0 or (not self.training and self.spec.zoneout_eval == "off"):
            return "none"
        return "hold" if self.training else "expect"

    def oracle(self):
        """The layer with K = 1 whose weights pick each gate's own pre-activation."""
        spec = replace(self.spec, input_size=self.pre.shape[2], kernel_width=1)
        names, hidden = spec.gates, spec.hidden_size
        pick = np.split(np.eye(spec.input_size), len(names), axis=1)
        biases = np.split(self.bias.astype(np.float64), len(names))
        weights = {f"{g}.weight": w[None] for g, w in zip(names, pick, strict=True)}
        weights |= {f"{g}.bias": b for g, b in zip(names, biases, strict=True)}
        order = (lambda a: reverse(a, self.lengths)) if self.backwards else (lambda a: a)
        x, dy = (order(np.nan_to_num(a.astype(np.float64))) for a in (self.pre, self.dy))
        held = None
        if self.zone == "hold":
            held = hold_mask(spec, SEED, self.rows, self.t0, self.steps, self.layer,
                             "rev" if self.backwards else "fwd")  # fmt: skip
        state = {"c": self.c0.astype(np.float64)}
        y, final, saved = qrnn.forward(
            spec, weights, x, state, self.lengths, held, self.zone == "hold"
        )
        dx, dstate, grads = qrnn.backward(spec, weights, saved, dy, {"c": self.dc.astype(float)})
        dbias = np.concatenate([grads[f"{g}.bias"] for g in names])
        return {"y": order(y), "c": final["c"], "dpre": order(dx), "dc0": dstate["c"],
                "dbias": dbias}  # fmt: skip

    def kernel(self, which, geometry=(32, 4, 8), packed=1):
        return cuda.Kernel(which, self.dtype, self.spec.pooling, self.zone,
                           self.spec.zoneout_mode == "keep", packed, *geometry)  # fmt: skip

    def run(self, geometry=(32, 4, 8), packed=1, source=None, launch=cuda_shim.launch):
        """Forward then backward; every output lies between guards that must stay untouched."""
        gates = self.store(self.pre)
        forward, backward = (
            self.kernel(which, geometry, packed) for which in (cuda.FORWARD, cuda.BACKWARD)
        )
        hidden, tiles = self.spec.hidden_size, forward.tiles(self.steps)
        io = gates.dtype
        y, dpre = (Guarded((self.steps, self.batch, n), io) for n in (hidden, gates.shape[2]))
        c, dc0 = (Guarded((self.batch, hidden), np.float32) for _ in range(2))
        checkpoints = Guarded((self.batch, tiles, hidden), np.float32)
        dbias = Guarded((self.batch, gates.shape[2]), np.float32)
        lengths, rows, t0 = (a.astype(np.int64) for a in (self.lengths, self.rows, self.t0))
        seed, dy = np.array([SEED], np.uint64), self.store(self.dy)
        width = gates.shape[2]
        common = [
            *(a.ctypes.data for a in (self.bias, lengths, seed, rows, t0)),
            *map(np.int32, (self.steps, hidden, tiles)),
            self.batch * width,
            width,
            np.uint32(round(self.spec.zoneout * 65536)),
            np.float32(1 - self.spec.zoneout),
            *map(np.int32, (self.layer, self.backwards, self.backwards)),
        ]
        pointers = [a.ctypes.data for a in (gates, self.c0)]
        outputs = [a.address for a in (y, c, checkpoints)]
        strides = [self.batch * hidden, hidden]
        blocks = forward.blocks(self.batch, hidden)
        launch(forward, blocks, [*pointers, *outputs, *strides, *common], source=source)
        inputs = [gates.ctypes.data, checkpoints.address, dy.ctypes.data, self.dc.ctypes.data]
        outputs = [a.address for a in (dpre, dc0, dbias)]
        launch(backward, blocks, [*inputs, *outputs, *strides, 1, *common], source=source)
        wide = from_bits if self.dtype == "bfloat16" else np.asarray
        return {"y": wide(y.inside()), "c": c.inside(), "dpre": wide(dpre.inside()),
                "dc0": dc0.inside(), "dbias": dbias.inside().sum(0)}  # fmt: skip

    def store(self, array):
        return to_bits(array) if self.dtype == "bfloat16" else np.ascontiguousarray(array)

    def check(self, given):
        for name, expected in self.oracle().items():
            tolerance = STATE if name == "c" else ROUNDING[self.dtype]
            assert given[name].shape == expected.shape
            error = np.linalg.norm(given[name] - expected) / np.linalg.norm(expected)
            assert error <= tolerance, f"{name} is off by {error:.1e}"
        padded = np.arange(self.steps)[:, None] >= self.lengths
        assert not given["y"][padded].any()
        assert not given["dpre"][padded].any()


class Guarded:
    """An output array filled with NaN between two guards."""

    def __init__(self, shape, dtype, margin=64):
        fill = 0x7FC1 if dtype == np.uint16 else np.nan
        self._all = np.full(int(np.prod(shape)) + 2 * margin, fill, dtype)
        self._shape, self._margin, self._before = shape, margin, self._all.copy()

    @property
    def address(self):
        return self._all[self._margin :].ctypes.data

    def inside(self):
        for edge in (slice(None, self._margin), slice(-self._margin, None)):
            np.testing.assert_array_equal(self._all[edge], self._before[edge])
        return self._all[self._margin : -self._margin].reshape(self._shape)


def spec(pooling="fo", hidden=5, **changes):
    return ModelSpec(hidden_size=hidden, pooling=pooling, **changes)


ZONEOUTS = [
    ({}, True),
    ({"zoneout": 0.4}, True),
    ({"zoneout": 0.4, "zoneout_mode": "literal"}, True),
    ({"zoneout": 0.4, "zoneout_eval": "expectation"}, False),
    ({"zoneout": 0.4, "zoneout_eval": "expectation", "zoneout_mode": "literal"}, False),
]


@shim
@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize(("zoneout", "training"), ZONEOUTS)
@pytest.mark.parametrize("pooling", POOLINGS)
def test_values_states_and_gradients_equal_the_oracle(pooling, zoneout, training, dtype):
    for lengths, backwards in product([None, (70, 1, 33)], [False, True]):
        problem = Problem(spec(pooling, **zoneout), dtype, 3, 70, lengths, training, backwards, 2)
        problem.check(problem.run())


@shim
@pytest.mark.parametrize(("zoneout", "training"), ZONEOUTS[:3])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_pairs_of_bfloat16_channels_equal_the_oracle(pooling, zoneout, training):
    for hidden, backwards in product([2, 66], [False, True]):
        problem = Problem(spec(pooling, hidden, **zoneout), "bfloat16", 2, 75, (75, 30), training,
                          backwards)  # fmt: skip
        problem.check(problem.run(packed=2, geometry=(32, 8, 4)))
        problem.check(problem.run(packed=2, geometry=(32, 4, 8)))


@shim
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_every_geometry_equals_the_oracle(geometry):
    problem = Problem(spec("ifo", 37, zoneout=0.3), batch=2, steps=270, lengths=(270, 131))
    problem.check(problem.run(geometry=geometry))


@shim
@pytest.mark.parametrize("hidden", [1, 31, 32, 33, 70])
@pytest.mark.parametrize("steps", [1, 2, 31, 32, 33, 64])
def test_odd_sizes_equal_the_oracle(steps, hidden):
    for zoneout in (0.0, 0.3):
        problem = Problem(spec(hidden=hidden, zoneout=zoneout), batch=1, steps=steps)
        problem.check(problem.run())


@shim
def test_the_mask_is_the_oracles_bit_for_bit():
    for mode, backwards, layer in product(["keep", "literal"], [False, True], [0, 3]):
        problem = Problem(spec("f", 9, zoneout=0.5, zoneout_mode=mode), batch=3, steps=50,
                          backwards=backwards, layer=layer)  # fmt: skip
        problem.pre[:] = problem.bias[:] = 0  # z = 0 and f = 1/2: c is held or halved, exactly
        y = problem.run()["y"]
        order = (lambda a: reverse(a, problem.lengths)) if backwards else (lambda a: a)
        cells = np.concatenate([problem.c0[None], order(y)])
        direction = "rev" if backwards else "fwd"
        held = hold_mask(problem.spec, SEED, problem.rows, problem.t0, 50, layer, direction)
        np.testing.assert_array_equal(cells[1:] == cells[:-1], held)


@shim
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
        f"{';' if k == 0 else '__syncthreads();'}{part}" for k, part in enumerate(parts[number + 1 :])
    )


@shim
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


@shim
def test_one_buffer_instead_of_two_is_caught():
    source = cuda.source().replace("tile & 1", "0")
    problem = Problem(spec(hidden=9), steps=300)
    with pytest.raises(AssertionError, match="is off by"):
        problem.check(problem.run(source=source))


@shim
def test_too_little_shared_memory_is_caught(monkeypatch):
    full = cuda.Kernel.shared_bytes.fget
    monkeypatch.setattr(cuda.Kernel, "shared_bytes", property(lambda self: full(self) - 4))
    with pytest.raises(RuntimeError, match="beyond the shared memory"):
        Problem(spec(hidden=32), steps=70).run()


def chosen(which=cuda.FORWARD, dtype="float32", batch=32, steps=512, hidden=320, pairs=True, **more):
    words = {"pooling": "fo", "zone": "none", "keeps_state": True, "multiprocessors": 132} | more
    return cuda.choose(which, dtype, batch=batch, steps=steps, hidden=hidden, pairs=pairs, **words)


def test_few_channels_get_narrower_blocks_and_every_block_fits_a_multiprocessor():
    for batch, steps, hidden, dtype, pairs, pooling in product(
        [1, 8, 32, 256], [1, 32, 105, 512, 8192], [1, 320, 1024], ROUNDING, [False, True], POOLINGS
    ):
        sizes = {"dtype": dtype, "batch": batch, "steps": steps, "hidden": hidden}
        forward, backward, other = (
            chosen(which, **sizes, pairs=may, pooling=pooling)
            for which, may in ((cuda.FORWARD, pairs), (cuda.BACKWARD, pairs), (cuda.BACKWARD, False))
        )
        assert forward.tile == backward.tile == other.tile
        assert max(forward.threads, backward.threads) <= 512
        assert max(forward.shared_bytes, backward.shared_bytes) <= 48 * 1024
        assert forward.blocks(batch, hidden) * forward.lanes * forward.packed >= batch * hidden
    assert chosen(batch=256).lanes == 32
    assert chosen(batch=8).lanes < 32
    assert chosen(dtype="bfloat16", batch=256).packed == 2


def every_kernel():
    """Both passes, all poolings, dtypes and zones, in the widest geometry of each packing."""
    for dtype, packed in (("float32", 1), ("bfloat16", 1), ("bfloat16", 2)):
        for pooling, zone in product(POOLINGS, cuda.ZONES):
            for keeps in (True, False) if pooling == "ifo" and zone != "none" else (True,):
                kind = (dtype, pooling, zone, keeps, packed, 32)
                yield cuda.Kernel(cuda.FORWARD, *kind, *((8, 8) if packed == 1 else (4, 8)))
                yield cuda.Kernel(cuda.BACKWARD, *kind, *((8, 8) if packed == 1 else (8, 4)))


REGISTERS = {cuda.FORWARD: 96, cuda.BACKWARD: 128}


@nvrtc
@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
def test_nvrtc_compiles_every_kernel_without_spills_within_its_registers(architecture):
    kernels = {kernel.expression: kernel for kernel in every_kernel()}
    built = cuda.compile_kernels(list(kernels), architecture)
    assert built.cubin[:4] == b"\x7fELF"
    assert set(built.registers) == set(kernels)
    assert {name: n for name, n in built.spilled.items() if n} == {}
    limits = {name: REGISTERS[kernel.which] for name, kernel in kernels.items()}
    assert {n: used for n, used in built.registers.items() if used > limits[n]} == {}


@nvrtc
def test_nvrtc_names_the_error_and_the_architecture():
    with pytest.raises(cuda.NvrtcError, match=r"(?s)for sm_90:.*undefined_thing"):
        cuda.compile_kernels([], "sm_90", "__global__ void k() { undefined_thing(); }")
