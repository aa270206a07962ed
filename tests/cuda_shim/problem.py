"""One pooling: random arguments, the oracle's answer, and what the kernels make of them."""

from dataclasses import replace

import numpy as np

from impls.contract import ModelSpec
from impls.kernels import cuda
from impls.reference import hold_mask, qrnn
from impls.reference.ops import reverse
from tests import cuda_shim

SEED = (0xFEDCBA98 << 32) + 0x12345678
ROUNDING = {"float32": 2e-6, "bfloat16": 6e-3}
STATE = 1e-6
"""The carried state, given the same gates, in either dtype."""


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

    def order(self, array):
        """From natural time to processing order, or back."""
        return reverse(array, self.lengths) if self.backwards else array

    def oracle(self):
        """The layer with K = 1 whose weights pick each gate's own pre-activation."""
        spec = replace(self.spec, input_size=self.pre.shape[2], kernel_width=1)
        names = spec.gates
        pick = np.split(np.eye(spec.input_size), len(names), axis=1)
        biases = np.split(self.bias.astype(np.float64), len(names))
        weights = {f"{g}.weight": w[None] for g, w in zip(names, pick, strict=True)}
        weights |= {f"{g}.bias": b for g, b in zip(names, biases, strict=True)}
        x, dy = (self.order(np.nan_to_num(a.astype(np.float64))) for a in (self.pre, self.dy))
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
        return {"y": self.order(y), "c": final["c"], "dpre": self.order(dx), "dc0": dstate["c"],
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
