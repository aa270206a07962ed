"""Runs that replay a CUDA graph: what a Run launches, recorded once and started by one call."""

from __future__ import annotations

import warnings
from typing import TypeAlias

import numpy as np
import torch

from impls._torch.runs import BackwardRun, ForwardRun, TrainRun
from impls._torch.session import NetworkSession
from impls.contract import Session, Work

EagerRun: TypeAlias = ForwardRun | BackwardRun | TrainRun
WARM_CALLS = 3
"""Calls before the capture, on a stream of their own: libraries choose their kernels in them."""


class GraphRun:
    """A captured Run: `__call__` replays, everything else is the captured Run's.

    Inputs, outputs and parameters stay where the capture found them, so a replay reads and writes
    the same memory every time. A train_step begins from the first parameters again after the
    warm-up, and its first replay is the first call that `result` speaks of.
    """

    def __init__(self, run: EagerRun) -> None:
        """Warm up, capture, and replay once to see that everything is written.

        Raises:
            RuntimeError: the capture failed, recorded nothing, or a replay leaves an output
                unwritten.
        """
        self._run = run
        self._counted = run.counted if isinstance(run, TrainRun) else None
        self._graph = _capture(run)
        self._poison()
        self._graph.replay()
        run.wait()
        if any(bool(tensor.isnan().any()) for tensor in run.written()):
            raise RuntimeError(
                "a replay of the captured CUDA graph leaves outputs unwritten or NaN: the work was "
                "launched on another stream than the current one, or it is not finite"
            )
        if isinstance(run, TrainRun):
            run.restore()
        self._poison()  # so that the gate sees what a replay writes
        run.wait()

    def __call__(self) -> None:
        self._graph.replay()
        if self._counted is not None:
            self._counted()

    def wait(self) -> None:
        """Return when everything enqueued is done."""
        self._run.wait()

    def reset(self) -> None:
        """A train_step's first parameters, now and then; outside the clock."""
        if isinstance(self._run, TrainRun):
            self._run.reset()

    def result(self) -> dict[str, np.ndarray]:
        """The captured Run's results."""
        return self._run.result()

    def _poison(self) -> None:
        """Fill the outputs' memory with ones, which is NaN in every format."""
        for tensor in self._run.written():
            tensor.untyped_storage().fill_(255)


class GraphSession:
    """A session whose Runs replay CUDA graphs."""

    def __init__(self, session: NetworkSession) -> None:
        self._session = session
        self.precision = session.precision

    def prepare(self, work: Work) -> GraphRun:
        """Move a work to the device and capture it.

        Raises:
            SpecError: as the plain session.
            NotImplementedError: lengths, which some layers take from the host in every call.
            RuntimeError: as `GraphRun`.
        """
        if work.lengths is not None:
            raise NotImplementedError("a graph is captured only of sequences of equal length")
        return GraphRun(self._session.prepare(work))

    def export(self) -> dict[str, np.ndarray]:
        """The parameters by canonical name."""
        return self._session.export()


def capture(session: Session) -> GraphSession:
    """A card's `capture`, for every session of this package.

    Raises:
        TypeError: another kind of session.
    """
    if not isinstance(session, NetworkSession):
        raise TypeError(f"{type(session).__name__} is no session of impls._torch: it has no graphs")
    return GraphSession(session)


def _capture(run: EagerRun) -> torch.cuda.CUDAGraph:
    work = run.step if isinstance(run, TrainRun) else run
    main, side = torch.cuda.current_stream(), torch.cuda.Stream()
    side.wait_stream(main)
    with torch.cuda.stream(side):
        for _ in range(WARM_CALLS):
            work()
    main.wait_stream(side)
    run.wait()
    if isinstance(run, TrainRun):
        run.restore()
    graph = torch.cuda.CUDAGraph()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*CUDA Graph is empty")
        with torch.cuda.graph(graph):
            work()
    return graph
