"""A small correct QRNN in plain NumPy whose parts are methods, so that a mutant changes one.

Everything inside a layer happens in processing order: a reverse layer gets its valid steps
reversed. `Layer` computes one direction of one layer, `Net` stacks them and is the session.
"""

import numpy as np

from impls.contract import LEARNING_RATE, Implementation
from impls.reference import hold_mask


def sigmoid(a):
    return 0.5 * (1 + np.tanh(0.5 * a))


class Layer:
    def __init__(self, spec, params, layer, direction):
        self.spec, self.layer, self.direction = spec, layer, direction
        self.at = f"layers.{layer}.{direction}."
        self.p = {n.removeprefix(self.at): v for n, v in params.items() if n.startswith(self.at)}

    def taps(self, before, x):
        """K views of [T, B, C], the oldest first; the last is the current step."""
        both = np.concatenate([before, x])
        return [both[j : j + len(x)] for j in range(self.spec.kernel_width)]

    def preactivation(self, gate, taps):
        weight, bias = self.p[f"{gate}.weight"], self.p[f"{gate}.bias"]
        return sum(tap @ weight[j] for j, tap in enumerate(taps)) + bias

    def zoneout(self, f, i, held):
        """Gates after zoneout; `held` is a mask [T, B, H] in training, None at evaluation."""
        p, keep = self.spec.zoneout, self.spec.zoneout_mode == "keep"
        if held is not None:
            one, zero = f.dtype.type(1), f.dtype.type(0)
            return np.where(held, one, f), np.where(held, zero, i) if keep else i
        if p and self.spec.zoneout_eval == "expectation":
            return p + (1 - p) * f, (1 - p) * i if keep else i
        return f, i

    def scale(self, held):
        """Derivative of zoneout's gates by the plain f and i."""
        p, keep = self.spec.zoneout, self.spec.zoneout_mode == "keep"
        if held is not None:
            return ~held, ~held if keep else 1
        if p and self.spec.zoneout_eval == "expectation":
            return 1 - p, 1 - p if keep else 1
        return 1, 1

    def inputs(self, f, i, z):
        return i * z if self.spec.pooling == "ifo" else (1 - f) * z

    def pad(self, f, added, valid):
        """Padded steps hold the state."""
        return np.where(valid, f, f.dtype.type(1)), np.where(valid, added, added.dtype.type(0))

    def pool(self, f, added, o, c):
        """States after each step [T, B, H]."""
        states = np.empty_like(f)
        for t in range(len(f)):
            c = f[t] * c + added[t]
            states[t] = c
        return states

    def output(self, o, c):
        return o * c

    def final(self, states, valid, c0):
        return states[-1]

    def window(self, before, x, lengths):
        """The last K-1 inputs before each sequence's own end."""
        both = np.concatenate([before, x])
        rows = lengths + np.arange(len(before))[:, None]
        return both[rows, np.arange(x.shape[1])]

    def held(self, seed, rows, t0, steps):
        if seed is None or not self.spec.zoneout:
            return None
        return hold_mask(self.spec, seed, rows, t0, steps, self.layer, self.direction)

    def forward(self, x, c0, before, valid, lengths, held):
        taps = self.taps(before, x)
        a = {gate: self.preactivation(gate, taps) for gate in self.spec.gates}
        z, plain = np.tanh(a["z"]), sigmoid(a["f"])
        o = sigmoid(a["o"]) if "o" in a else np.ones_like(z)
        i = sigmoid(a["i"]) if "i" in a else np.zeros_like(z)
        f, open_ = self.zoneout(plain, i, held)
        keep, added = self.pad(f, self.inputs(f, open_, z), valid)
        states = self.pool(keep, added, o, c0)
        y = np.where(valid, self.output(o, states), states.dtype.type(0))
        self.saved = taps, z, plain, o, i, f, open_, keep, states, c0, valid, lengths, held, before
        return y, self.final(states, valid, c0), self.window(before, x, lengths)

    def backward(self, dy, dc, dwindow):
        """Gradients of x, parameters, c0 and the window before."""
        taps, z, plain, o, i, f, open_, keep, states, c0, valid, lengths, held, _ = self.saved
        dy = np.where(valid, dy, dy.dtype.type(0))
        past = np.concatenate([c0[None], states[:-1]])
        added = np.empty_like(states)
        for t in reversed(range(len(states))):
            added[t] = dc + dy[t] * o[t]
            dc = added[t] * keep[t]
        added, do = np.where(valid, added, 0), dy * states
        df = added * past
        if self.spec.pooling == "ifo":
            dz, di = added * open_, added * z
        else:
            dz, di, df = added * (1 - f), 0 * z, df - added * z
        by_f, by_i = self.scale(held)
        da = {"z": dz * (1 - z * z), "f": df * by_f * plain * (1 - plain)}
        da |= {"o": do * o * (1 - o), "i": di * by_i * i * (1 - i)}
        both = np.zeros((len(dwindow) + len(dy), *taps[0].shape[1:]), dy.dtype)
        rows = lengths + np.arange(len(dwindow))[:, None]
        np.add.at(both, (rows, np.arange(dy.shape[1])), dwindow)
        grads = self.parameters(da, taps, both)
        return both[len(dwindow) :], grads, dc, both[: len(dwindow)]

    def parameters(self, da, taps, both):
        """Gradients by parameter name; adds those of the inputs to `both`."""
        grads = {}
        for gate in self.spec.gates:
            weight = self.p[f"{gate}.weight"]
            grads[f"{self.at}{gate}.bias"] = da[gate].sum((0, 1))
            by_tap = [np.einsum("tbc,tbh->ch", tap, da[gate]) for tap in taps]
            grads[f"{self.at}{gate}.weight"] = np.stack(by_tap)
            for j in range(len(taps)):
                both[j : j + len(taps[j])] += da[gate] @ weight[j].T
        return grads


class Net:
    """The session: layers and directions, work kinds, the order of time."""

    layer_type = Layer

    def __init__(self, spec, params, placement):
        self.spec, self.dtype = spec, np.dtype(placement.dtype)
        self.params = {name: np.array(v, self.dtype) for name, v in params.items()}
        self.first = None

    def prepare(self, work):
        return Once(self, work)

    def export(self):
        return self.first or self.params

    def turn(self, x, lengths, direction):
        """Valid steps into processing order, and back."""
        if direction == "fwd":
            return x
        t = np.arange(len(x))[:, None]
        return x[np.where(t < lengths, lengths - 1 - t, t), np.arange(x.shape[1])]

    def parameters_of(self, layer, direction):
        return self.layer_type(self.spec, self.params, layer, direction)

    def forward(self, work):
        """Results of a forward pass, and the layers that hold what the backward pass needs."""
        spec, (steps, batch, _) = self.spec, work.x.shape
        lengths = np.full(batch, steps) if work.lengths is None else work.lengths
        t0 = np.broadcast_to(work.state.get("t0", 0), (batch,)).astype(np.int64)
        rows = np.arange(batch) if work.rows is None else work.rows
        valid = np.arange(steps)[:, None, None] < lengths[:, None]
        x, out, used = np.where(valid, work.x, 0).astype(self.dtype), {}, []
        for layer in range(spec.layers):
            ys = []
            for direction in spec.directions:
                one, at = self.parameters_of(layer, direction), f"layers.{layer}.{direction}"
                c0 = work.state.get(f"{at}.c", np.zeros((batch, spec.hidden_size)))
                shape = (spec.kernel_width - 1, batch, x.shape[2])
                before = work.state.get(f"{at}.window", np.zeros(shape)).astype(self.dtype)
                turned = self.turn(x, lengths, direction)
                held = one.held(work.seed, rows, t0, steps)
                c0 = c0.astype(self.dtype)
                y, c, window = one.forward(turned, c0, before, valid, lengths, held)
                ys.append(self.turn(y, lengths, direction))
                out[f"state.{at}.c"] = c
                if spec.kernel_width > 1:
                    out[f"state.{at}.window"] = window
                used.append((one, layer, direction, at))
            x = np.concatenate(ys, axis=2)
        return {"y": x, "state.t0": t0 + lengths, **out}, used, lengths, valid

    def backward(self, work, dy):
        out, used, lengths, valid = self.forward(work)
        dy, hidden = np.where(valid, dy, 0).astype(self.dtype), self.spec.hidden_size
        for layer in reversed(range(self.spec.layers)):
            dx = 0
            for one, _, direction, at in [u for u in used if u[1] == layer]:
                half = dy[..., hidden:] if direction == "rev" else dy[..., :hidden]
                dc = work.dstate.get(f"{at}.c", np.zeros_like(out[f"state.{at}.c"]))
                before = np.zeros_like(one.saved[-1])
                dwindow = work.dstate.get(f"{at}.window", before)
                part, grads, dc, dwindow = one.backward(
                    self.turn(half, lengths, direction), dc.astype(self.dtype), dwindow
                )
                dx = dx + self.turn(part, lengths, direction)
                out |= {f"grad.{name}": value for name, value in grads.items()}
                out[f"grad.state.{at}.c"] = dc
                if self.spec.kernel_width > 1:
                    out[f"grad.state.{at}.window"] = dwindow
            dy = dx
        return {**out, "grad.x": np.where(valid, dy, 0)}

    def train(self, work):
        y, _, lengths, valid = self.forward(work)
        apart = np.where(valid, y["y"] - work.target, 0)
        count = lengths.sum() * self.spec.output_size
        grads = self.backward(work, apart / count)
        for name in self.params:
            self.params[name] = self.params[name] - self.dtype.type(LEARNING_RATE) * (
                grads[f"grad.{name}"].astype(self.dtype)
            )
        self.first = self.first or dict(self.params)
        return {"loss": np.asarray(0.5 * np.sum(apart.astype(np.float64) ** 2) / count)}


class Once:
    """A Run."""

    def __init__(self, net, work):
        self.net, self.work, self.answer = net, work, None

    def __call__(self):
        net, work = self.net, self.work
        if work.kind == "train_step":
            self.answer = self.answer or net.train(work)
        elif work.kind == "backward":
            self.answer = net.backward(work, work.dy)
        else:
            self.answer = net.forward(work)[0]

    def wait(self):
        pass

    def result(self):
        return self.answer


def refuse(spec, placement):
    if spec.dense:
        return "the mutants' base has no dense connections"
    return "float32 and float64 only" if placement.dtype == "bfloat16" else None


def card(net=Net, name="base"):
    """The card of the base, or of a mutant of its session class."""
    return Implementation(name, "a QRNN in NumPy, for tests", ("numpy",), refuse, net)
