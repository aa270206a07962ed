"""Sessions: parameters on a device, prepared works, and the runs that the clock calls."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np

from impls._jax.arrays import device_of, dtype_of, numbers_of, state_dtype, to_device, to_numpy
from impls._jax.programs import Executable, Program, Tree, copied
from impls._jax.stack import Core
from impls._jax.zoneout import words
from impls.contract import Arrays, ModelSpec, Placement, SpecError, Work
from impls.params import shapes, state_shapes, stream_hindrance
from impls.reference.philox import key_of

RESTORE_AFTER = 100
"""Calls of a train_step after which `reset` puts the first parameters back."""


class ForwardRun:
    """Kinds forward, step and backward: results by name, nothing carried between calls."""

    def __init__(self, executable: Executable, end: np.ndarray | None) -> None:
        """`end`: [B], the counter t0 after this work; None for a family that has none."""
        self._call, self._leaves = executable.call, executable.leaves
        self._names, self._end = executable.names, end
        self._out: Sequence[jax.Array] | None = None

    def __call__(self) -> None:
        self._out = None  # so that its memory can be used again
        self._out = self._call(*self._leaves)

    def wait(self) -> None:
        jax.block_until_ready(self._out)

    def result(self) -> dict[str, np.ndarray]:
        if self._out is None:
            raise RuntimeError("this run has not run yet: call it before result()")
        values = {n: to_numpy(v) for n, v in zip(self._names, self._out, strict=True)}
        return values if self._end is None else values | {"state.t0": self._end.copy()}


class TrainRun:
    """Kind train_step: loss, gradients and plain SGD in the parameters' own memory."""

    def __init__(self, step: Executable, copy: Executable) -> None:
        """`step` donates its first argument, which `copy` copies, and returns it and "loss"."""
        self._names, self._initial, self._copy = copy.names, copy.leaves, copy.call
        self._call, self._inputs = step.call, step.leaves[len(self._initial) :]
        self._params: Sequence[jax.Array] = self._copy(*self._initial)
        self._calls = 0
        self._first: tuple[jax.Array, Sequence[jax.Array]] | None = None

    def __call__(self) -> None:
        *self._params, self._loss = self._call(*self._params, *self._inputs)
        self._calls += 1
        if self._first is None:
            # The next call takes over this memory, so the first call's results move out of it.
            self._first = self._loss, self._copy(*self._params)

    def wait(self) -> None:
        jax.block_until_ready((self._loss, self._params))

    def reset(self) -> None:
        """Put the first parameters back once 100 calls have passed; outside the clock."""
        if self._calls >= RESTORE_AFTER:
            self._params = jax.block_until_ready(self._copy(*self._initial))
            self._calls = 0

    def result(self) -> dict[str, np.ndarray]:
        if self._first is None:
            raise RuntimeError("this train_step has not run yet: call it before result()")
        return {"loss": to_numpy(self._first[0])}

    def parameters(self) -> dict[str, np.ndarray] | None:
        """Canonical parameters after the first call; None before it."""
        if self._first is None:
            return None
        return {n: to_numpy(v) for n, v in zip(self._names, self._first[1], strict=True)}


class CoreSession:
    """A session whose network is a stack of one recurrent core."""

    def __init__(self, core: Core, spec: ModelSpec, params: Arrays, placement: Placement) -> None:
        """Copy the parameters to the placement's device.

        Raises:
            SpecError: parameters of another spec.
            RuntimeError: no such device here.
        """
        found = {name: np.shape(value) for name, value in params.items()}
        if found != shapes(spec):
            differ = sorted({*found.items()} ^ {*shapes(spec).items()})[:3]
            raise SpecError(f"parameters of another spec; first differences: {differ}")
        self._core, self._spec, self._placement = core, spec, placement
        self._device, self._dtype = device_of(placement), dtype_of(placement)
        self._wide = state_dtype(self._dtype)
        # `ops.matmul` and the cuDNN layer ask for Precision.HIGHEST in float32.
        exact = placement.device == "cuda" and placement.dtype == "float32"
        self.precision = "ieee" if exact else None
        with numbers_of(placement):
            self._masters = {n: self._put(v, self._wide) for n, v in params.items()}
            formats = self._program("forward").format
            self._params = {n: v.astype(formats(n)) for n, v in self._masters.items()}
        self._trained: TrainRun | None = None

    def prepare(self, work: Work) -> ForwardRun | TrainRun:
        """Move a work to the device and compile it.

        Raises:
            SpecError: a kind, a feature number or a state name that this spec does not have.
            NotImplementedError: a step of a family that carries no state.
        """
        self._check(work)
        program = self._program(work.kind)
        with numbers_of(self._placement):
            inputs = self._inputs(work)
            if work.kind != "train_step":
                run = Executable(program, self._placement, self._params, inputs)
                return ForwardRun(run, self._end(work))
            step = Executable(program, self._placement, self._masters, inputs, donate=True)
            copy = Executable(copied, self._placement, self._masters)
            self._trained = TrainRun(step, copy)
        return self._trained

    def export(self) -> dict[str, np.ndarray]:
        """Canonical parameters; after a train_step, those after its first call."""
        trained = None if self._trained is None else self._trained.parameters()
        return trained or {name: to_numpy(value) for name, value in self._masters.items()}

    def _put(self, array: np.ndarray, dtype: np.dtype) -> jax.Array:
        return to_device(array, dtype, self._device)

    def _program(self, kind: str) -> Program:
        return Program(kind, self._core, self._spec, self._placement)

    def _check(self, work: Work) -> None:
        spec, states = self._spec, state_shapes(self._spec, work.x.shape[1])
        if work.kind == "step" and spec.bidirectional:
            raise SpecError("kind 'step' is not defined on a bidirectional spec: use 'forward'")
        if work.kind == "step" and (reason := stream_hindrance(spec)):
            raise NotImplementedError(f"kind 'step': {reason}")
        if work.x.shape[2] != spec.input_size:
            raise SpecError(
                f"x has {work.x.shape[2]} features, the spec has input_size {spec.input_size}"
            )
        for what, given in (("state", work.state), ("dstate", work.dstate)):
            for name, value in given.items():
                if name not in states and name != "t0":
                    known = f"only {', '.join(states)}" if states else "none"
                    raise SpecError(f"{what} {name!r}: this spec has {known}")
                if name != "t0" and np.shape(value) != states[name]:
                    raise SpecError(
                        f"{what} {name!r} has shape {np.shape(value)}: give {states[name]}"
                    )

    def _states(self, given: Arrays, batch: int) -> dict[str, jax.Array]:
        """All states by name, zeros where absent."""
        formats = self._program("forward").format
        zeros = {n: np.zeros(shape) for n, shape in state_shapes(self._spec, batch).items()}
        return {n: self._put(given.get(n, zero), formats(n)) for n, zero in zeros.items()}

    def _inputs(self, work: Work) -> dict[str, Tree]:
        """The work's arrays on the device, complete: no state is absent."""
        batch = work.x.shape[1]
        inputs: dict[str, Tree] = {
            "x": self._put(work.x, self._dtype),
            "state": self._states(work.state, batch),
            "lengths": None,
            "mask": None,
        }
        if work.lengths is not None:
            inputs["lengths"] = self._put(work.lengths, np.dtype(np.int32))
        if work.seed is not None and self._spec.family == "qrnn":
            rows = np.arange(batch) if work.rows is None else work.rows
            mask = key_of(work.seed), words(rows)[0], words(self._begin(work))
            inputs["mask"] = tuple(self._put(part, np.dtype(np.uint32)) for part in mask)
        if work.dy is not None and work.kind == "backward":
            inputs["dy"] = self._put(work.dy, self._dtype)
            # Zeros as arguments would be added where torch has nothing to do.
            inputs["dstate"] = self._states(work.dstate, batch) if work.dstate else None
        if work.target is not None and work.kind == "train_step":
            inputs["target"] = self._put(work.target, self._wide)
        return inputs

    def _begin(self, work: Work) -> np.ndarray:
        t0 = np.asarray(work.state.get("t0", 0), dtype=np.int64)
        return np.broadcast_to(t0, (work.x.shape[1],))

    def _end(self, work: Work) -> np.ndarray | None:
        """[B], the counter t0 after this work; None for a family that has none."""
        if self._spec.family != "qrnn":
            return None
        return self._begin(work) + (len(work.x) if work.lengths is None else work.lengths)
