"""A foreign family of its own: a minGRU, h_t = (1 - z_t) h_{t-1} + z_t n_t, in PyTorch."""

import numpy as np

from impls.contract import Implementation


def init(spec, seed):
    rng = np.random.default_rng(seed)
    shape = (spec.input_size, spec.hidden_size)
    weights = rng.standard_normal((2, *shape)) / np.sqrt(shape[0])
    return {"z.weight": weights[0], "n.weight": weights[1], "z.bias": np.zeros(shape[1])}


class Session:
    def __init__(self, spec, params, placement):
        import torch

        self.torch, self.dtype = torch, getattr(torch, placement.dtype)
        self.params = {n: self.tensor(v).requires_grad_() for n, v in params.items()}

    def tensor(self, array):
        return self.torch.tensor(np.ascontiguousarray(array), dtype=self.dtype)

    def export(self):
        return {name: value.detach().numpy() for name, value in self.params.items()}

    def prepare(self, work):
        if work.kind == "train_step" or work.lengths is not None:
            raise NotImplementedError("minigru has no train_step and no variable lengths")
        return Run(self, work)


class Run:
    def __init__(self, session, work):
        self.session, self.work, self.training = session, work, work.kind == "backward"
        p, batch = session.params, work.x.shape[1]
        h = work.state.get("h", np.zeros((batch, p["z.bias"].shape[0])))
        self.x, self.h = session.tensor(work.x), session.tensor(h)
        self.out = [session.tensor(work.dy)] if self.training else []
        if self.training:
            last = work.dstate.get("h", np.zeros_like(h))
            self.out.append(session.tensor(last))
            self.leaves = {"x": self.x, **p, "state.h": self.h}
            self.x.requires_grad_()
            self.h.requires_grad_()

    def __call__(self):
        p, h, y, torch = self.session.params, self.h, [], self.session.torch
        with torch.set_grad_enabled(self.training):
            z = torch.sigmoid(self.x @ p["z.weight"] + p["z.bias"])
            n = self.x @ p["n.weight"]
            for keep, add in zip(1 - z, z * n, strict=True):
                h = keep * h + add
                y.append(h)
            self.answer = {"y": torch.stack(y), "state.h": h}
        if self.training:
            both = (self.answer["y"], h)
            grads = torch.autograd.grad(both, list(self.leaves.values()), self.out)
            self.answer |= {f"grad.{n}": g for n, g in zip(self.leaves, grads, strict=True)}

    def wait(self):
        pass

    def result(self):
        return {name: value.detach().numpy() for name, value in self.answer.items()}


def unsupported(spec, placement):
    plain = spec.layers == 1 and not spec.bidirectional
    if placement.device != "cpu" or placement.dtype == "bfloat16" or not plain:
        return "minigru is one layer in one direction on the CPU in float32 or float64"
    return None


card = Implementation(
    "minigru", "a minGRU with PyTorch's autograd", ("torch",), unsupported, Session, "minigru", init
)
