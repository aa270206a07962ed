"""The compiled pooling kernels on NumPy arrays, and the same pooling by the float64 oracle."""

import ctypes
from dataclasses import dataclass

import numpy as np

from impls import reference
from impls.kernels.native import FORMATS, POOLINGS, ZONES, Call, kernels
from impls.params import round_bfloat16
from impls.reference import ops, qrnn

WIDE = {"float32": np.float32, "bfloat16": np.float32, "float64": np.float64}
SEED = (1 << 63) + 12345


def stored(values, dtype):
    """The array as the kernels read it; bfloat16 as its upper 16 bits."""
    if dtype != "bfloat16":
        return np.ascontiguousarray(values, WIDE[dtype])
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return (bits >> 16).astype(np.uint16)


def widened(array):
    if array.dtype != np.uint16:
        return array
    return (array.astype(np.uint32) << 16).view(np.float32)


def rounded(values, dtype):
    return round_bfloat16(values) if dtype == "bfloat16" else values.astype(WIDE[dtype])


@dataclass
class Case:
    """Gate sums and everything else that pooling of one layer needs, already rounded."""

    spec: object
    dtype: str
    training: bool
    reverse: bool
    lengths: np.ndarray
    pre: np.ndarray
    bias: np.ndarray
    c: np.ndarray
    dy: np.ndarray
    dc: np.ndarray
    rows: np.ndarray
    t0: np.ndarray

    @property
    def zone(self):
        if self.spec.zoneout == 0:
            return "none"
        if self.training:
            return "hold"
        return "expectation" if self.spec.zoneout_eval == "expectation" else "none"


def draw(spec, dtype, batch, steps, *, lengths=None, reverse=False, training=False):
    """Random gate sums; padded steps of gate sums and dy are NaN."""
    rng = np.random.default_rng(5)
    width = len(spec.gates) * spec.hidden_size

    def normal(*shape):
        return rng.standard_normal(shape)

    pre = rounded(2 * normal(steps, batch, width), dtype)
    dy = rounded(normal(steps, batch, spec.hidden_size), dtype)
    if lengths is not None:
        padded = np.arange(steps)[:, None] >= np.asarray(lengths)
        pre[padded], dy[padded] = np.nan, np.nan
    wide = WIDE[dtype]
    return Case(
        spec,
        dtype,
        training,
        reverse,
        np.full(batch, steps) if lengths is None else np.asarray(lengths, np.int64),
        pre,
        normal(width).astype(wide),
        normal(batch, spec.hidden_size).astype(wide),
        dy,
        normal(batch, spec.hidden_size).astype(wide),
        np.arange(batch, dtype=np.int64) * 7 + (1 << 33),
        np.arange(batch, dtype=np.int64) * 5 + (1 << 35) + 3,
    )


def compiled(case, chunk=None, spacing=4, threads=1, ragged=True):
    """Results of the compiled kernels, forward and backward, over chunks of `chunk` steps."""
    steps, batch, width = case.pre.shape
    hidden, wide = case.spec.hidden_size, WIDE[case.dtype]
    chunk = steps if chunk is None else chunk
    pre, dy = stored(case.pre, case.dtype), stored(case.dy, case.dtype)
    y = np.empty((steps, batch, hidden), pre.dtype)
    c, dc = case.c.copy(), case.dc.copy()
    checkpoints = np.empty((-(-steps // spacing), batch, hidden), wide)
    dpre, dbias = np.empty_like(pre), np.zeros((batch, width), wide)
    keep = [case.lengths.astype(np.int64), case.rows, case.t0, case.bias]
    call = Call(
        format=FORMATS[case.dtype],
        pooling=POOLINGS[case.spec.pooling],
        zone=ZONES[case.zone],
        keeps_state=case.spec.zoneout_mode == "keep",
        reverse=case.reverse,
        threads=threads,
        steps=steps,
        batch=batch,
        hidden=hidden,
        features=1,
        taps=1,
        spacing=spacing,
        lengths=keep[0].ctypes.data if ragged else None,
        rows=case.rows.ctypes.data,
        t0=case.t0.ctypes.data,
        seed=SEED,
        threshold=round(case.spec.zoneout * 65536),
        layer=2,
        stream=int(case.reverse),
        expectation=case.spec.zoneout,
        bias=case.bias.ctypes.data,
        c=c.ctypes.data,
        y=y.ctypes.data,
        y_time=batch * hidden,
        y_batch=hidden,
        checkpoints=checkpoints.ctypes.data,
        dy=dy.ctypes.data,
        dy_time=batch * hidden,
        dy_batch=hidden,
        dc=dc.ctypes.data,
        dbias=dbias.ctypes.data,
    )
    starts = list(range(0, steps, chunk))
    for function, order in (
        (kernels().pool_forward, starts[::-1] if case.reverse else starts),
        (kernels().pool_backward, starts if case.reverse else starts[::-1]),
    ):
        for begin in order:
            call.begin, call.end = begin, min(begin + chunk, steps)
            call.pre, call.dpre = pre[begin:].ctypes.data, dpre[begin:].ctypes.data
            function(ctypes.byref(call))
    kernels().sum_bias(ctypes.byref(call))
    return {"y": widened(y), "c": c, "dpre": widened(dpre), "dbias": dbias[0].copy(), "dc": dc}


def expected(case):
    """The same from the oracle's layer: one tap whose weights pick the gate sums out of x."""
    spec, hidden = case.spec, case.spec.hidden_size
    gates, direction = spec.gates, "rev" if case.reverse else "fwd"
    weights = {}
    for at, gate in enumerate(gates):
        own = slice(at * hidden, (at + 1) * hidden)
        weights[f"{gate}.weight"] = np.eye(len(gates) * hidden)[None, :, own]
        weights[f"{gate}.bias"] = case.bias[own].astype(np.float64)
    valid = ops.valid_steps(case.lengths, len(case.pre))

    def ordered(array):
        clean = np.where(valid, array.astype(np.float64), 0.0)
        return ops.reverse(clean, case.lengths) if case.reverse else clean

    held = None
    if case.zone == "hold":
        held = reference.hold_mask(spec, SEED, case.rows, case.t0, len(case.pre), 2, direction)
    state = {"c": case.c.astype(np.float64)}
    y, final, saved = qrnn.forward(
        spec, weights, ordered(case.pre), state, case.lengths, held, case.training
    )
    dstate = {"c": case.dc.astype(np.float64)}
    dx, first, grads = qrnn.backward(spec, weights, saved, ordered(case.dy), dstate)
    dbias = np.concatenate([grads[f"{gate}.bias"] for gate in gates])
    return {"y": ordered(y), "c": final["c"], "dpre": ordered(dx), "dbias": dbias, "dc": first["c"]}
