"""Sessions whose network is one graph of torch.compile, made for one work and for no other."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from types import FunctionType
from typing import Any

import torch
from torch import Tensor
from torch._inductor.compile_fx import compile_fx

from impls._torch.network import Network
from impls._torch.runs import BackwardRun, ForwardRun, TrainRun
from impls._torch.session import CoreSession
from impls._torch.stack import Core, Mask, Tensors
from impls._torch.toolchain import compiler
from impls.contract import Arrays, ModelSpec, Placement, Work

_number = count()


def _with_own_code(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function under a name and code object of its own.

    torch.compile keeps what it compiled, and counts it, by code object: two works must neither
    see each other's graphs nor use up a common limit.
    """
    assert isinstance(function, FunctionType)
    name = f"{function.__name__}_{next(_number)}"
    code = function.__code__.replace(co_name=name)
    return FunctionType(code, function.__globals__, name, None, function.__closure__)


class CompiledNetwork:
    """A network whose pass is compiled in whole: no graph break, no second set of shapes.

    Until `seal`, a call compiles where it must; after it, a call that would compile raises.
    """

    def __init__(self, network: Network) -> None:
        self.leaves = network.leaves
        self.lengths_device = network.lengths_device
        self.canonical = network.canonical
        self.graphs = 0
        self._sealed = False

        def whole(
            x: Tensor, state: Tensors, lengths: Tensor | None, mask: Mask | None
        ) -> tuple[Tensor, dict[str, Tensor]]:
            return network(x, state, lengths, mask)

        self._pass = torch.compile(
            _with_own_code(whole), backend=self._compile, fullgraph=True, dynamic=False
        )
        # One compiling thread is this one: no helper process is left behind to share the CPUs.
        self._options = {"compile_threads": 1, "cpp.cxx": (None, compiler())}

    def __call__(
        self, x: Tensor, state: Tensors, lengths: Tensor | None, mask: Mask | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        out: tuple[Tensor, dict[str, Tensor]] = self._pass(x, state, lengths, mask)
        return out

    def seal(self) -> None:
        """Let nothing be compiled from now on.

        Raises:
            RuntimeError: nothing has been compiled, so that the calls would run eagerly.
        """
        if not self.graphs:
            raise RuntimeError(
                "torch.compile compiled nothing: unset TORCH_COMPILE_DISABLE and "
                "TORCHDYNAMO_DISABLE"
            )
        self._sealed = True

    def _compile(self, graph: torch.fx.GraphModule, examples: list[Any]) -> Any:
        if self._sealed:
            raise RuntimeError(
                "torch.compile would compile again while this work runs: something that it "
                "guards on has changed since `prepare` (TORCH_LOGS=recompiles says what)"
            )
        compiled = compile_fx(graph, examples, config_patches=self._options)
        self.graphs += 1
        return compiled


class CompiledSession(CoreSession):
    """A session that compiles forward and backward of each work in `prepare`."""

    def __init__(
        self,
        core: Core,
        spec: ModelSpec,
        params: Arrays,
        placement: Placement,
        most_steps: int | None = None,
    ) -> None:
        """`most_steps` over all layers and directions, where compiling takes longer with each."""
        super().__init__(core, spec, params, placement)
        self._most_steps = most_steps
        self._serving: CompiledNetwork | None = None

    def prepare(self, work: Work) -> ForwardRun | BackwardRun | TrainRun:
        """Move a work to the device and compile for it, which takes seconds to minutes.

        Raises:
            NotImplementedError: more steps than can be compiled in a sensible time.
            SpecError: see `NetworkSession.prepare`.
        """
        steps = len(work.x) * self._spec.layers * len(self._spec.directions)
        if self._most_steps is not None and steps > self._most_steps:
            raise NotImplementedError(
                f"the compiled loop is unrolled and {steps} steps (over all layers and directions) "
                f"would compile for many minutes: at most {self._most_steps}; use torch_compile"
            )
        run = super().prepare(work)
        run.rehearse()
        assert self._serving is not None
        self._serving.seal()
        return run

    def _served(self, network: Network) -> Network:
        self._serving = CompiledNetwork(network)
        return self._serving
