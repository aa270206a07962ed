"""Implementations on NumPy that behave well or badly on purpose, found through entry points.

Results come from the oracle in float64, computed once; a call is a fixed amount of real work.
"""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from functools import partial

import numpy as np

from impls import reference
from impls.contract import Implementation

STEPS = 400


class FakeRun:
    def __init__(self, session, work):
        self.session, self.work, self.calls = session, work, 0
        self.load = np.linspace(0.0, 1.0, 256)
        self.answer = None

    def __call__(self):
        self.calls += 1
        for _ in range(STEPS * self.session.factor):
            np.cos(self.load, out=self.load)
        self.session.on_call(self)

    def wait(self):
        pass

    def result(self):
        if self.answer is None:
            self.answer = reference.run(self.session.spec, self.session.params, self.work)
            if self.work.kind == "train_step":
                new = self.answer.items()
                self.session.new = {k[6:]: v for k, v in new if k.startswith("param.")}
        out = {k: v for k, v in self.answer.items() if not k.startswith("param.")}
        return self.session.on_result(self, dict(out))


class FakeSession:
    factor = 1

    def __init__(self, spec, params, placement):
        self.spec, self.params, self.placement, self.new = spec, params, placement, None

    def prepare(self, work):
        return FakeRun(self, work)

    def export(self):
        return dict(self.new or self.params)

    def on_call(self, run):
        pass

    def on_result(self, run, out):
        return out


class Slow(FakeSession):
    factor = 2


class Replay(FakeSession):
    """Four times as fast where its launches are captured."""

    factor = 4


def capture(session):
    session.factor = 1
    return session


class Abort(FakeSession):
    def on_call(self, run):
        print("last words of the fake", flush=True)
        os.abort()


class AbortLater(FakeSession):
    def on_call(self, run):
        if run.calls > 4:
            os.abort()


class Hang(FakeSession):
    def on_call(self, run):
        threading.Event().wait()


class Memory(FakeSession):
    def on_call(self, run):
        raise MemoryError("no room for 1 TB")


class Nan(FakeSession):
    def on_result(self, run, out):
        return out | {"y": np.full_like(out["y"], np.nan)}


class Wrong(FakeSession):
    def on_result(self, run, out):
        return out | {"y": out["y"] * 1.001}


class Drift(FakeSession):
    """Right at the gate, wrong after it has been timed."""

    def on_result(self, run, out):
        return out | {"y": out["y"] * (1.0 if run.calls < 3 else 1.1)}


class Raises(FakeSession):
    def prepare(self, work):
        raise ValueError("a shape I did not expect: " + "x" * 900)


class Family(FakeSession):
    """A family without an oracle: a running mean of x, each sequence by itself."""

    def prepare(self, work):
        return FamilyRun(self, work)

    def mix(self, x):
        return x


class Mixer(Family):
    """The same, but sequences see their neighbours."""

    def mix(self, x):
        return x + 1e-3 * x.mean(axis=1, keepdims=True)


class FamilyRun(FakeRun):
    def result(self):
        x = self.session.mix(self.work.x.astype(np.float64))
        return {"y": np.cumsum(x, axis=0) / np.arange(1, len(x) + 1)[:, None, None]}


def _card(name, session=FakeSession, reason=None, requires=("numpy",), family="qrnn", init=None):
    return Implementation(
        name=name,
        about="a fake for the tests",
        requires=requires,
        unsupported=lambda spec, placement: reason,
        load=partial(session),
        family=family,
        init=init,
    )


def _no_parameters(spec, seed):
    return {"scale": np.ones(1, dtype=np.float32)}


fake_good = _card("fake_good")
fake_replay = replace(_card("fake_replay", Replay), capture=capture)
fake_slow = _card("fake_slow", Slow)
fake_abort = _card("fake_abort", Abort)
fake_abort_later = _card("fake_abort_later", AbortLater)
fake_hang = _card("fake_hang", Hang)
fake_memory = _card("fake_memory", Memory)
fake_nan = _card("fake_nan", Nan)
fake_wrong = _card("fake_wrong", Wrong)
fake_drift = _card("fake_drift", Drift)
fake_refuses = _card("fake_refuses", reason="only on Sundays")
fake_raises = _card("fake_raises", Raises)
fake_absent = _card("fake_absent", requires=("framework_of_nowhere",))
fake_family = _card("fake_family", Family, family="mean", init=_no_parameters)
fake_mixer = _card("fake_mixer", Mixer, family="mean", init=_no_parameters)
