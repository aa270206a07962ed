"""An implementation whose networks learn, or fail, on purpose: NumPy alone, one answer per seed.

`layers` says how it ends (2: well; see FATES), `kernel_width` how fast it learns, and the learning
rate at which it learns best is BEST, but for kernel_width 4, which always wants a larger one.
"""

from __future__ import annotations

import os
import threading
import time
from math import exp, log

import numpy as np

from impls.contract import Implementation, SpecError

BEST = 8e-3
FATES = {3: "nan", 4: "abort", 5: "hang", 6: "memory", 7: "diverge"}
LATE = 5
"""The step at which a fate is met."""


class FakeTrainer:
    def __init__(self, net, params, optimiser, placement):
        self.net, self.fate = net, FATES.get(net.core.layers)
        self.params = {name: value.copy() for name, value in params.items()}
        best = 1.0 if net.core.kernel_width == 4 else BEST
        aptness = exp(-((log(optimiser.learning_rate / best) / 3) ** 2))
        self.speed = aptness * {1: 0.004, 2: 0.008}.get(net.core.kernel_width, 0.03)
        self.steps = 0

    def step(self, batch, seeds):
        time.sleep(float(os.environ.get("FAKE_STEP_S", "0")))
        self.steps += 1
        for name in self.params:
            noise = seeds.zoneout % 1009 + int(batch.inputs.sum())
            self.params[name] = np.cos(self.params[name] + np.float32(noise))
        if self.steps >= LATE:
            self.meet()

    def meet(self):
        if self.fate == "abort":
            print("last words of the fake", flush=True)
            os.abort()
        if self.fate == "hang":
            threading.Event().wait()
        if self.fate == "memory":
            raise MemoryError("no room for 1 TB")

    def loss(self):
        late = self.steps >= LATE
        return float("nan") if late and self.fate == "nan" else 1.0 / self.steps

    def outputs(self, batch):
        known = min(1.0, 0.1 + self.speed * self.steps)
        places = np.arange(batch.targets.size).reshape(batch.targets.shape)
        right = (places * 7919 % 1000) / 1000 < known
        said = np.where(right, batch.targets, (batch.targets + 1) % self.net.outputs)
        logits = np.eye(self.net.outputs, dtype=np.float32)[said]
        return logits * (1e3 if self.fate == "diverge" and self.steps >= LATE else 2.0)

    def export(self):
        return dict(self.params)

    def snapshot(self):
        return {**self.params, "steps": np.array(self.steps)}

    def restore(self, snapshot):
        self.params = {n: v for n, v in snapshot.items() if n != "steps"}
        self.steps = int(snapshot["steps"])


def _load(spec, params, placement):
    raise SpecError("this fake only trains")


fake_net = Implementation(
    name="fake_net",
    about="a fake whose networks learn on purpose",
    requires=("numpy",),
    unsupported=lambda spec, placement: "no dense stacks" if spec.dense else None,
    load=_load,
    trainer=FakeTrainer,
)
