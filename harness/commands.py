"""What a worker can be asked: to prepare and gate a contender, to give samples, to probe.

The answers are plain JSON. A worker holds at most one prepared contender.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

import impls
from harness import files, peak
from harness.ablation import train
from harness.machine import present
from harness.speed import clock, gate, parts
from harness.speed.grid import Point, params_of, work_of
from impls import reference
from impls.contract import (
    PARTS,
    Arrays,
    Dtype,
    Implementation,
    ModelSpec,
    Placement,
    Run,
    Session,
    Work,
)
from impls.params import FAMILIES, init

PROBE_SAMPLES = 5
"""A probe gives at least this many samples, however little time it has."""


@dataclass
class Prepared:
    """The contender that this worker holds, its Run warm and gated."""

    session: Session | None
    run: Run
    kept: Arrays
    rows: np.ndarray
    dtype: str


def point_from(fields: dict[str, Any]) -> Point:
    """The Point that was sent as `dataclasses.asdict(point)`."""
    spec, placement = ModelSpec(**fields["spec"]), Placement(**fields["placement"])
    return Point(**{**fields, "spec": spec, "placement": placement})


class Commands:
    """The commands of one worker process; each public method is one, its arguments are JSON."""

    def __init__(self) -> None:
        self.device = "cpu"
        self._held: Prepared | None = None

    def hello(
        self, modules: list[str], impl: str | None = None, device: str = "cpu"
    ) -> dict[str, Any]:
        """Import the frameworks, and say who is there: versions, CPUs, threads.

        With `impl`, a tiny network of it is loaded on `device` too, so that all that it imports is
        imported, and the device opened, while the other workers do the same; an error in that is
        left to `prepare`.
        """
        start = time.perf_counter()
        for module in modules:
            importlib.import_module(module)
        if impl is not None:
            with contextlib.suppress(Exception):
                card = impls.get(impl)
                spec = ModelSpec(family=card.family, input_size=8, hidden_size=8)
                card.load(spec, (card.init or init)(spec, 0), Placement(device))
        gc.collect()
        gc.freeze()  # a later collection need not walk through all of a framework's modules
        return {
            "python": ".".join(map(str, sys.version_info[:3])),
            "versions": {module: present.version(module) for module in modules},
            "import_s": time.perf_counter() - start,
            **present.threads(),
        }

    def bind(self, cpus: list[int]) -> dict[str, Any]:
        """Move every thread of this process to the CPUs where all contenders are measured."""
        tasks = Path("/proc/self/task")
        if cpus and tasks.exists():
            for task in tasks.iterdir():
                with contextlib.suppress(ProcessLookupError):
                    os.sched_setaffinity(int(task.name), cpus)
        return present.threads()

    def prepare(
        self, point: dict[str, Any], impl: str, seed: int, cache: str, mode: str = "default"
    ) -> dict[str, Any]:
        """Load, compile, call once and gate one contender; the columns of its row so far.

        With mode "graph", what is prepared, gated and timed is the card's captured session; a
        `mode` of impls.contract.PARTS is that part of the layer alone.

        Raises:
            GateError: it may not be timed; NotImplementedError: it cannot do this point.
        """
        self.drop()
        at, card = point_from(point), impls.get(impl)
        self.device = at.placement.device
        spec = replace(at.spec, family=card.family)
        if reason := card.unsupported(spec, at.placement):
            raise NotImplementedError(reason)
        params, work = parameters(card, spec, at, seed), work_of(at, spec, seed)
        start = time.perf_counter()
        session, run = _loaded(card, mode, spec, params, at.placement, work)
        prepare_s = time.perf_counter() - start
        first_s = clock.sample(run, 1)[0] * 1e-9
        dtype = at.placement.dtype
        if session is None:
            found, rows = parts.check(mode, run, spec, params, work, dtype)
        elif reference.has_oracle(card.family):
            found, rows = gate.check(session, run, spec, params, work, dtype, Path(cache))
        else:
            found, rows = gate.check_foreign(session, run, work, dtype)
        self._held = Prepared(session, run, gate.keep(run, rows), rows, dtype)
        return {
            **found.columns(),
            "prepare_s": prepare_s,
            "first_call_s": first_s,
            "framework_version": present.version(card.requires[0]) if card.requires else None,
            "algorithm": card.algorithm(spec, at.placement, work) if card.algorithm else None,
            "precision": getattr(session, "precision", None),
            "tokens": _tokens(work),
            "parameters": int(sum(value.size for value in params.values())),
            **present.threads(),
        }

    def block(self, samples: int, inner: int, burn: int) -> dict[str, Any]:
        """One turn: `samples` samples of `inner` calls, after `burn` calls recorded apart."""
        return clock.block(self._prepared().run, samples, inner, burn)

    def finish(self) -> dict[str, Any]:
        """Prove that the timed Run still gives what passed the gate, then let it go.

        Raises:
            GateError: the result changed.
        """
        held = self._prepared()
        gate.unchanged(held.run, held.kept, held.rows, held.dtype)
        self.drop()
        return {}

    def memory(self, point: dict[str, Any], impl: str, seed: int) -> dict[str, Any]:
        """Peak memory of one call of a contender (see `harness.peak`); once per process."""
        at, card = point_from(point), impls.get(impl)
        spec = replace(at.spec, family=card.family)
        params = parameters(card, spec, at, seed)
        session = card.load(spec, params, at.placement)
        return peak.measure(session, spec, at, sum(v.size for v in params.values()), seed)

    def train(
        self,
        identity: dict[str, Any],
        options: dict[str, Any],
        file: str,
        every_s: float,
        stale_key: str,
    ) -> dict[str, Any]:
        """Train one network to its end, or go on from its checkpoint (see `ablation.train`)."""
        job = train.Job(identity, options, Path(file), every_s, stale_key)
        found: dict[str, Any] = files.plain(train.run(job))
        return found

    def calibrate(self, identity: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
        """Seconds of a training step, from a few dozen."""
        return train.calibrate(train.Job(identity, options))

    def drop(self) -> dict[str, Any]:
        """Let the prepared contender go, with its memory."""
        if self._held is not None:
            self._held = None
            gc.collect()
        return {}

    def probe(
        self, framework: str, name: str, device: str, dtype: str, size: int, seconds: float
    ) -> dict[str, Any]:
        """Time one of the machine's ceilings for about `seconds`; nanoseconds per call.

        Args:
            framework: "torch", "jax" or "numpy".
            name: "gemm", "copy", "dispatch" or "exp", with its `size` (see
                `harness.machine.probes_numpy.probe`).
        """
        self.drop()
        self.device = device
        where = (
            "harness.machine.probes_numpy" if framework == "numpy" else f"impls._{framework}.probes"
        )
        place = Placement(device, cast(Dtype, dtype))
        run = importlib.import_module(where).probe(name, place, size)
        clock.sample(run, 1)
        inner = clock.inner_calls(clock.sample(run, 1)[0], device)
        walls: list[float] = []
        end = time.perf_counter() + seconds
        while len(walls) < PROBE_SAMPLES or time.perf_counter() < end:
            walls += clock.block(run, 1, inner, 0)["wall_ns"]
        return {"best_ns": min(walls), "median_ns": float(np.median(walls)), "n": len(walls)}

    def _prepared(self) -> Prepared:
        if self._held is None:
            raise RuntimeError("nothing is prepared: ask for `prepare` first")
        return self._held


def _loaded(
    card: Implementation,
    mode: str,
    spec: ModelSpec,
    params: Arrays,
    placement: Placement,
    work: Work,
) -> tuple[Session | None, Run]:
    """The Run of one mode, prepared, and its session, which a part of a layer has none of.

    Raises:
        NotImplementedError: a mode that the card does not have.
    """
    if mode in PARTS:
        return None, card.parts[mode](spec, params, placement, work)
    session = card.load(spec, params, placement)
    if mode == "graph":
        if card.capture is None:
            raise NotImplementedError(f"{card.name} has no CUDA graphs: its card has no `capture`")
        session = card.capture(session)
    return session, session.prepare(work)


def parameters(card: Implementation, spec: ModelSpec, point: Point, seed: int) -> Arrays:
    """The contender's parameters: its card's own, or the family's canonical ones."""
    if card.init is None or spec.family in FAMILIES:  # what the oracle knows, it also gives
        return params_of(spec, point, seed)
    return card.init(spec, seed)


def _tokens(work: Work) -> int:
    """Valid steps of all sequences."""
    steps, batch, _ = work.x.shape
    return steps * batch if work.lengths is None else int(work.lengths.sum())
