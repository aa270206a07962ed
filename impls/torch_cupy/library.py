"""The pooling as torch operators: `quasibench_cuda::pool` and `::pool_backward`.

Registered with the low-level `torch.library.Library`, which costs an eager call little and shows
torch.compile an operator instead of a graph break. The second derivative raises.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from impls.kernels.launch import Call
from impls.torch_cupy import launch
from impls.torch_cupy.launch import Sequences

NAMESPACE = "quasibench_cuda"
_WHAT = (
    "Tensor? lengths, Tensor? seed, Tensor? rows, Tensor? t0, "
    "str pooling, str zone, bool keeps_state, float zoneout, int layer, bool reverse, bool decoder"
)

library = torch.library.Library(NAMESPACE, "DEF")
# A product that torch.compile fuses into the operator's input may change the input's strides; the
# kernels take any, but the checkpoints' number follows from the sizes alone.
library.define(
    f"pool(Tensor pre, Tensor bias, Tensor c0, {_WHAT}, bool record=False) "
    "-> (Tensor y, Tensor c, Tensor checkpoints)"
)
library.define(
    "pool_backward(Tensor pre, Tensor bias, Tensor checkpoints, Tensor dy, Tensor dc, "
    f"{_WHAT}) -> (Tensor dpre, Tensor dbias, Tensor dc0)"
)


def _recording(what: tuple[Any, ...], record: bool) -> tuple[tuple[Any, ...], bool]:
    """The arguments of `_WHAT` and `record`, which the dispatcher hands over by position."""
    return (what[:11], what[11]) if len(what) > 11 else (what, record)


def _split(what: tuple[Any, ...]) -> tuple[Sequences, Call]:
    """The arguments of `_WHAT` as the launcher wants them."""
    given = Sequences(*what[:4])
    return given, Call(*what[4:])


def pool(
    pre: Tensor, bias: Tensor, c0: Tensor, *what: Any, record: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Kernel of `pool`; see `launch.forward`."""
    what, record = _recording(what, record)
    given, call = _split(what)
    return launch.forward(call, pre, bias, c0, given, record)


def pool_backward(
    pre: Tensor, bias: Tensor, checkpoints: Tensor, dy: Tensor, dc: Tensor, *what: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Kernel of `pool_backward`; see `launch.backward`."""
    given, call = _split(what)
    return launch.backward(call, pre, bias, checkpoints, dy, dc, given)


def _pool_shapes(
    pre: Tensor, bias: Tensor, c0: Tensor, *what: Any, record: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    what, record = _recording(what, record)
    given, call = _split(what)
    launch.check_call(call, pre, bias, c0, given)
    steps, batch, _ = pre.shape
    hidden = c0.shape[1]
    tiles = launch.checkpoint_count(call, pre, hidden) if record else 0
    y = pre.new_empty(steps, batch, hidden)
    return y, torch.empty_like(c0), c0.new_empty(batch, tiles, hidden)


def _pool_backward_shapes(
    pre: Tensor, bias: Tensor, checkpoints: Tensor, dy: Tensor, dc: Tensor, *what: Any
) -> tuple[Tensor, Tensor, Tensor]:
    dpre = torch.empty(pre.shape, dtype=pre.dtype, device=pre.device)
    return dpre, torch.empty_like(bias), torch.empty_like(dc)


class _Pool(torch.autograd.Function):  # type: ignore[misc]
    """First derivative of `pool`."""

    @staticmethod
    def forward(ctx: FunctionCtx, pre: Tensor, bias: Tensor, c0: Tensor, *what: Any) -> Any:
        with torch._C._AutoDispatchBelowAutograd():
            y, c, checkpoints = torch.ops.quasibench_cuda.pool(pre, bias, c0, *what, True)
        ctx.save_for_backward(pre, bias, checkpoints, *what[:4])
        ctx.words = what[4:]  # type: ignore[attr-defined]
        ctx.mark_non_differentiable(checkpoints)
        ctx.set_materialize_grads(False)
        return y, c, checkpoints

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None, dc: Tensor | None, _: None) -> Any:
        pre, bias, checkpoints, *given = ctx.saved_tensors
        steps, batch, hidden = pre.shape[0], pre.shape[1], checkpoints.shape[2]
        if dy is None:  # one zero with strides 0 for all of it
            dy = pre.new_zeros(()).expand(steps, batch, hidden)
        dc = checkpoints.new_zeros(batch, hidden) if dc is None else dc.contiguous()
        grads = torch.ops.quasibench_cuda.pool_backward(
            pre, bias, checkpoints, dy, dc, *given, *ctx.words
        )
        return *grads, *(None,) * 11


class _Once(torch.autograd.Function):  # type: ignore[misc]
    """The gradients of `pool`, which have no derivative of their own."""

    @staticmethod
    def forward(ctx: FunctionCtx, *args: Any) -> Any:
        with torch._C._AutoDispatchBelowAutograd():
            return torch.ops.quasibench_cuda.pool_backward(*args)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        raise RuntimeError(
            "the CUDA pooling kernels have no second derivative: take it through torch_eager, or "
            "leave out create_graph"
        )


def _recorded(args: tuple[Any, ...]) -> bool:
    return torch.is_grad_enabled() and any(
        isinstance(value, Tensor) and value.requires_grad for value in args
    )


def _pool_autograd(pre: Tensor, bias: Tensor, c0: Tensor, *what: Any, record: bool = False) -> Any:
    what, record = _recording(what, record)
    if _recorded((pre, bias, c0)):
        return _Pool.apply(pre, bias, c0, *what)
    with torch._C._AutoDispatchBelowAutograd():
        return torch.ops.quasibench_cuda.pool(pre, bias, c0, *what, record)


def _pool_backward_autograd(*args: Any) -> Any:
    if _recorded(args[:5]):
        return _Once.apply(*args)
    with torch._C._AutoDispatchBelowAutograd():
        return torch.ops.quasibench_cuda.pool_backward(*args)


library.impl("pool", pool, "CUDA")
library.impl("pool_backward", pool_backward, "CUDA")
library.impl("pool", _pool_shapes, "Meta")
library.impl("pool_backward", _pool_backward_shapes, "Meta")
library.impl("pool", _pool_autograd, "Autograd")
library.impl("pool_backward", _pool_backward_autograd, "Autograd")
