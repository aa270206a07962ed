"""A foreign implementation of the QRNN in plain NumPy: one layer, outputs and states only."""

import numpy as np

from impls.contract import Implementation


class Session:
    def __init__(self, spec, params, placement):
        self.spec, self.params, self.dtype = spec, params, placement.dtype

    def export(self):
        return dict(self.params)

    def prepare(self, work):
        if work.kind not in ("forward", "step") or work.lengths is not None:
            raise NotImplementedError("numpy_qrnn has no gradients and no variable lengths")
        return Run(self, work)


class Run:
    def __init__(self, session, work):
        self.spec, self.work, batch = session.spec, work, work.x.shape[1]
        self.w = {n.removeprefix("layers.0.fwd."): v for n, v in session.params.items()}
        old = {n.removeprefix("layers.0.fwd."): v for n, v in work.state.items()}
        self.c = old.get("c", np.zeros((batch, self.spec.hidden_size), session.dtype))
        past = (self.spec.kernel_width - 1, batch, self.spec.input_size)
        self.x = np.concatenate([old.get("window", np.zeros(past, session.dtype)), work.x])
        self.t0 = np.broadcast_to(old.get("t0", 0), (batch,))

    def __call__(self):
        steps, width, c, y = len(self.work.x), self.spec.kernel_width, self.c, []
        a = {g: self.w[f"{g}.bias"] for g in self.spec.gates}
        for j in range(width):
            a = {g: a[g] + self.x[j : j + steps] @ self.w[f"{g}.weight"][j] for g in a}
        a = {g: np.tanh(v) if g == "z" else 0.5 + 0.5 * np.tanh(0.5 * v) for g, v in a.items()}
        i = a.get("i", 1 - a["f"])
        for t in range(steps):
            c = a["f"][t] * c + i[t] * a["z"][t]
            y.append(a["o"][t] * c if "o" in a else c)
        self.answer = {"y": np.stack(y), "state.layers.0.fwd.c": c, "state.t0": self.t0 + steps}
        if width > 1:
            self.answer["state.layers.0.fwd.window"] = self.x[steps:]

    def wait(self):
        pass

    def result(self):
        return self.answer


def unsupported(spec, placement):
    plain = spec.layers == 1 and not (spec.bidirectional or spec.zoneout)
    if placement.device != "cpu" or placement.dtype == "bfloat16" or not plain:
        return "numpy_qrnn is one plain layer on the CPU in float32 or float64"
    return None


card = Implementation("numpy_qrnn", "plain NumPy, values only", ("numpy",), unsupported, Session)
