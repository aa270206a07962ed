"""An implementation under test on one case: its data, its runs and the oracle's answers, cached.

Sessions, results and oracle answers are kept by the content of what was asked, so that checks
that ask for the same thing share one run. A check that must run again asks for `fresh`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import fields, replace
from hashlib import blake2b
from typing import Any, TypeVar
from zlib import crc32

import numpy as np

from harness.conformance.cases import Case
from impls import params as canonical
from impls.contract import Arrays, Implementation, Kind, ModelSpec, Placement, Session, Work

MASK_SEED = 0x1234_5678_9ABC_DEF0
"""Seed of every training case; both 32-bit words matter."""

TARGET_SCALE = 20.0
"""Makes one SGD step large enough to be seen beside the parameter's own rounding."""


T = TypeVar("T")


class _Recent:
    """Answers to the last `size` questions."""

    def __init__(self, size: int):
        self.size = size
        self.kept: OrderedDict[Hashable, Any] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        if key not in self.kept:
            self.kept[key] = make()
        self.kept.move_to_end(key)
        while len(self.kept) > self.size:
            self.kept.popitem(last=False)
        found: T = self.kept[key]
        return found


_sessions, _results, _oracle, _data = _Recent(32), _Recent(64), _Recent(512), _Recent(64)


def clear_caches() -> None:
    """Forget sessions, results and oracle answers."""
    for cache in (_sessions, _results, _oracle, _data):
        cache.kept.clear()


def _digest(arrays: Arrays) -> bytes:
    state = blake2b(digest_size=16)
    for name in sorted(arrays):
        value = np.ascontiguousarray(arrays[name], np.float64)
        state.update(f"{name}{value.shape}".encode())
        state.update(value.tobytes())
    return state.digest()


def _identity(work: Work) -> tuple[Hashable, ...]:
    def one(value: Any) -> Hashable:
        if isinstance(value, np.ndarray):
            return _digest({"": value})
        return value if isinstance(value, Hashable) else _digest(value)

    return tuple(one(getattr(work, field.name)) for field in fields(work))


def oracle(spec: ModelSpec, params: Arrays, work: Work) -> dict[str, np.ndarray]:
    """The float64 oracle's result; do not write into it."""
    from impls import reference

    key = (spec, _digest(params), _identity(work))
    return _oracle.get(key, lambda: reference.run(spec, params, work))


def ragged_lengths(batch: int, steps: int) -> np.ndarray:
    """[B] int64 in no sorted order: a full sequence, of three or more one of a single step.

    E.g. 9, 1, 6 for three sequences of up to 9 steps.
    """
    if batch == 1:
        return np.array([max(1, steps - 1)], np.int64)
    lengths = np.maximum(1, steps * np.arange(1, batch + 1) // batch)
    if batch > 2:
        lengths[0] = 1
    return np.roll(lengths, 1).astype(np.int64)


def blank_padding(array: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """A copy of [T, B, ...] with NaN at the padded steps, which nobody may read."""
    out = array.copy()
    for sequence, length in enumerate(lengths):
        out[length:, sequence] = np.nan
    return out


class Subject:
    """One implementation at one placement on one case."""

    def __init__(self, card: Implementation, placement: Placement, case: Case):
        self.card, self.placement, self.case = card, placement, case
        self.spec, self.dtype = case.spec, placement.dtype

    def random(self, *shape: int, stream: str, scale: float = 1.0) -> np.ndarray:
        """Normal float32 values, the same for every implementation and dtype of this case."""
        seeds = [crc32(self.case.name.encode()), crc32(stream.encode())]
        values = scale * np.random.default_rng(seeds).standard_normal(shape)
        return canonical.as_dtype(values, "float32")

    def cast(self, array: np.ndarray) -> np.ndarray:
        """The array as a contender of this dtype gets it."""
        return canonical.as_dtype(array, self.dtype)

    @property
    def params(self) -> dict[str, np.ndarray]:
        """Parameters of the case, with random values in place of initial zeros and ones."""
        return _data.get((self.case, self.dtype, self.card.init), self._params)

    def _params(self) -> dict[str, np.ndarray]:
        make = self.card.init or canonical.init
        out = {}
        for name, value in make(self.spec, 11).items():
            if np.ptp(value) == 0.0:
                value = value + self.random(*value.shape, stream=name, scale=0.5)
            out[name] = self.cast(np.asarray(value, np.float32))
        return out

    def state_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the carried state, of a foreign family as a run of its own reveals them."""
        if self.spec.family in canonical.FAMILIES:
            return canonical.state_shapes(self.spec, self.case.batch)
        steps, batch = self.case.steps, self.case.batch
        x = self.cast(self.random(steps, batch, self.spec.input_size, stream="x"))
        carried = carry(self.run(Work("forward", x)))
        return {n: v.shape for n, v in carried.items() if n != "t0" and v.dtype.kind == "f"}

    def states(self, stream: str) -> dict[str, np.ndarray]:
        """A random array per carried state; `c` stays float32 in bfloat16."""
        out = {}
        for name, shape in self.state_shapes().items():
            value = self.random(*shape, stream=f"{stream}.{name}")
            wide = self.dtype == "bfloat16" and name.endswith(".c")
            out[name] = value if wide else self.cast(value)
        return out

    def work(self, kind: Kind, ragged: bool | None = None, training: bool | None = None) -> Work:
        """The case as Work of one kind; padded entries are NaN."""
        ragged = self.case.ragged if ragged is None else ragged
        training = self.case.training if training is None else training
        steps, batch, spec = self.case.steps, self.case.batch, self.spec
        lengths = ragged_lengths(batch, steps) if ragged else None

        def array(name: str, features: int, scale: float = 1.0) -> np.ndarray:
            value = self.cast(self.random(steps, batch, features, stream=name, scale=scale))
            return value if lengths is None else blank_padding(value, lengths)

        state: dict[str, np.ndarray] = {}
        if self.case.carried:
            state = self.states("state")
            if spec.family == "qrnn":
                state["t0"] = np.arange(batch, dtype=np.int64) * 3 + 5
        more: dict[str, Any] = {}
        if kind == "backward":
            more = {"dy": array("dy", self.output_size()), "dstate": self.states("dstate")}
        if kind == "train_step":
            more = {"target": array("target", self.output_size(), TARGET_SCALE)}
        return Work(
            kind,
            array("x", spec.input_size),
            lengths,
            state,
            MASK_SEED if training else None,
            **more,
        )

    def output_size(self) -> int:
        """Features of one output step, of a foreign family as a run of its own reveals it."""
        if self.spec.family in canonical.FAMILIES:
            return self.spec.output_size
        x = self.cast(self.random(2, self.case.batch, self.spec.input_size, stream="x"))
        return int(self.run(Work("forward", x))["y"].shape[-1])

    def session(
        self,
        params: Arrays | None = None,
        spec: ModelSpec | None = None,
        fresh: bool = False,
    ) -> Session:
        """A session, kept for the next check unless `fresh`."""
        params, spec = self.params if params is None else params, spec or self.spec
        if fresh:
            return self.card.load(spec, params, self.placement)
        key = (self.card, self.placement, spec, _digest(params))
        return _sessions.get(key, lambda: self.card.load(spec, params, self.placement))

    def run(
        self,
        work: Work,
        params: Arrays | None = None,
        spec: ModelSpec | None = None,
        fresh: bool = False,
    ) -> dict[str, np.ndarray]:
        """The result of one call, from the cache unless `fresh`."""
        params, spec = self.params if params is None else params, spec or self.spec

        def once() -> dict[str, np.ndarray]:
            run = self.session(params, spec).prepare(work)
            run()
            run.wait()
            return dict(run.result())

        if fresh:
            return once()
        key = (self.card, self.placement, spec, _digest(params), _identity(work))
        return _results.get(key, once)

    def oracle(
        self, work: Work, params: Arrays | None = None, spec: ModelSpec | None = None
    ) -> dict[str, np.ndarray]:
        """The oracle's result on the same arrays."""
        return oracle(spec or self.spec, self.params if params is None else params, work)


def carry(result: Arrays) -> dict[str, np.ndarray]:
    """The state that a result hands to the next chunk."""
    return {n.removeprefix("state."): v for n, v in result.items() if n.startswith("state.")}


def steps_of(work: Work, start: int, stop: int, kind: Kind = "forward", **changes: Any) -> Work:
    """The steps start..stop of a Work without lengths, as Work of `kind`."""
    return replace(work, kind=kind, x=work.x[start:stop], **changes)
