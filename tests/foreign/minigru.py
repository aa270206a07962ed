"""A family of its own, from outside: a minGRU, h_t = (1 - z_t) h_{t-1} + z_t n_t, in PyTorch."""

import numpy as np

from impls.contract import Implementation


def init(spec, seed):
    weights = np.random.default_rng(seed).standard_normal((2, spec.input_size, spec.hidden_size))
    return {"z": weights[0] / spec.input_size**0.5, "n": weights[1] / spec.input_size**0.5}


class Run:
    def __init__(self, torch, dtype, params, work):
        def tensor(array):
            return torch.tensor(np.array(array), dtype=dtype, requires_grad=work.kind == "backward")

        self.torch, h = torch, np.zeros((work.x.shape[1], params["z"].shape[1]))
        given = {"x": work.x, **params, "state.h": work.state.get("h", h)}
        self.leaves = {name: tensor(value) for name, value in given.items()}
        self.out = [tensor(work.dy), tensor(work.dstate.get("h", h))] if work.dy is not None else []

    def __call__(self):
        x, wz, wn, h = self.leaves.values()
        y = []
        for z, n in zip(self.torch.sigmoid(x @ wz), x @ wn, strict=True):
            h = (1 - z) * h + z * n
            y.append(h)
        self.found = {"y": self.torch.stack(y), "state.h": h}
        if self.out:
            made = self.torch.autograd.grad(self.found.values(), self.leaves.values(), self.out)
            self.found |= {f"grad.{name}": g for name, g in zip(self.leaves, made, strict=True)}

    def wait(self):
        pass

    def result(self):
        return {name: value.detach().numpy() for name, value in self.found.items()}


class Session:
    def __init__(self, spec, params, placement):
        import torch

        self.make, self.params = (torch, getattr(torch, placement.dtype), params), params

    def prepare(self, work):
        if work.kind == "train_step" or work.lengths is not None:
            raise NotImplementedError("minigru has no train_step and no variable lengths")
        return Run(*self.make, work)

    def export(self):
        return dict(self.params)


def unsupported(spec, placement):
    if placement.dtype == "bfloat16" or spec.layers > 1 or spec.bidirectional:
        return "minigru is one layer in one direction, float32 or float64"
    return None


card = Implementation("minigru", "a minGRU", ("torch",), unsupported, Session, "minigru", init)
