"""The QRNN layer as operators of torch's dispatcher: eager, autograd, compile, autocast.

Registered through the low-level `torch.library.Library`, which costs a few microseconds a call.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from impls.torch_native.backward import Flow, layer_backward
from impls.torch_native.layer import layer_forward
from impls.torch_native.plan import STATE_OF, How, Inputs, check, sizes_of

_library = torch.library.Library("quasibench", "FRAGMENT")
_TAGS = (torch.Tag.pt2_compliant_tag,)

_library.define(
    "qrnn_layer(Tensor x, Tensor weight, Tensor bias, Tensor c, Tensor? window, Tensor? lengths,"
    " Tensor? rows, Tensor? t0, int[] how, float expectation, bool save)"
    " -> (Tensor y, Tensor c_last, Tensor window_last, Tensor pre, Tensor checkpoints)",
    tags=_TAGS,
)
_library.define(
    "qrnn_layer_backward(Tensor? dy, Tensor? dc, Tensor? dwindow, Tensor x, Tensor weight,"
    " Tensor bias, Tensor? window, Tensor? lengths, Tensor? rows, Tensor? t0, Tensor pre,"
    " Tensor checkpoints, int[] how, float expectation, bool for_inputs, bool for_weight)"
    " -> (Tensor dx, Tensor dweight, Tensor dbias, Tensor dc_first, Tensor dwindow_first)",
    tags=_TAGS,
)


def _inputs(given: tuple[Any, ...]) -> Inputs:
    """From an operator's flat arguments in the order of `Inputs`."""
    return Inputs._make((*given[:7], How(*given[7]), given[8]))


def _inputs_and_c(given: tuple[Any, ...]) -> tuple[Inputs, Tensor]:
    """From the arguments of `qrnn_layer`, which has c behind the bias."""
    return _inputs((*given[:3], *given[4:10])), given[3]


def _forward(*given: Any) -> tuple[Tensor, ...]:
    """`layer_forward` with empty tensors for what is absent, as a schema wants it."""
    inputs, c = _inputs_and_c(given)
    x, width, hidden = inputs.x, inputs.bias.shape[0], c.shape[1]
    y, c_last, window, pre, checkpoints = layer_forward(inputs, c, given[10])
    return (
        y,
        c_last,
        x.new_empty(0, *x.shape[1:]) if window is None else window,
        x.new_empty(0, x.shape[1], width) if pre is None else pre.view(*x.shape[:2], width),
        c.new_empty(0, x.shape[1], hidden) if checkpoints is None else checkpoints,
    )


def _backward(*given: Any) -> tuple[Tensor, ...]:
    """`layer_backward` likewise."""
    inputs, (pre, checkpoints) = _inputs((*given[3:10], *given[12:14])), given[10:12]
    found = layer_backward(Flow(*given[:3]), inputs, pre, checkpoints, *given[14:])
    x, weight = inputs.x, inputs.weight
    return (
        x.new_empty(0) if found.x is None else found.x,
        weight.new_empty(0) if found.weight is None else found.weight,
        found.bias,
        found.c,
        x.new_empty(0, *x.shape[1:]) if found.window is None else found.window,
    )


_library.impl("qrnn_layer", _forward, "CPU")
_library.impl("qrnn_layer_backward", _backward, "CPU")

qrnn_layer = torch.ops.quasibench.qrnn_layer.default
"""(x, weight, bias, c, window, lengths, rows, t0, how, expectation, save) -> (y, c_last,
window_last, pre, checkpoints); see `impls.torch_native.layer.layer_forward`."""
qrnn_layer_backward = torch.ops.quasibench.qrnn_layer_backward.default


def _shapes(*given: Any) -> tuple[Tensor, ...]:
    inputs, c = _inputs_and_c(given)
    sizes, x, save = check(inputs, c), inputs.x, given[10]
    return (
        x.new_empty(sizes.steps, sizes.batch, sizes.hidden),
        c.new_empty(sizes.batch, sizes.hidden),
        x.new_empty(sizes.taps - 1, sizes.batch, sizes.features),
        x.new_empty(sizes.steps if save else 0, sizes.batch, sizes.width),
        c.new_empty(sizes.segments if save else 0, sizes.batch, sizes.hidden),
    )


def _gradient_shapes(*given: Any) -> tuple[Tensor, ...]:
    (x, weight, bias), (for_inputs, for_weight) = given[3:6], given[14:]
    sizes = sizes_of(x, weight, How(*given[12]).pooling)
    taps = sizes.taps - 1 if for_inputs else 0
    return (
        x.new_empty(x.shape if for_inputs else (0,)),
        weight.new_empty(weight.shape if for_weight else (0,)),
        bias.new_empty(sizes.width),
        bias.new_empty(sizes.batch, sizes.hidden),
        x.new_empty(taps, sizes.batch, sizes.features),
    )


def _remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, weight, bias, _, window, lengths, rows, t0, how, expectation, _ = inputs
    *_, pre, checkpoints = output
    ctx.save_for_backward(x, weight, bias, window, lengths, rows, t0, pre, checkpoints)
    ctx.how, ctx.expectation = how, expectation
    ctx.mark_non_differentiable(pre, checkpoints)
    ctx.set_materialize_grads(False)


def _gradients(ctx: Any, *given: Tensor | None) -> tuple[Tensor | None, ...]:
    """Those of `qrnn_layer`, for each of its eleven arguments."""
    wanted = ctx.needs_input_grad[:5]
    found = qrnn_layer_backward(
        *(*given[:3], *ctx.saved_tensors, ctx.how, ctx.expectation),
        *(wanted[0] or wanted[4], wanted[1]),
    )
    kept = (one if want else None for one, want in zip(found, wanted, strict=True))
    return (*kept, *([None] * 6))


class _Direct(torch.autograd.Function):  # type: ignore[misc]  # Any where torch is skipped
    """The operator without the dispatcher, which costs more than the rest of a small call."""

    @staticmethod
    def forward(ctx: Any, c: Tensor, *given: Any) -> tuple[Tensor | None, ...]:
        inputs = Inputs(*given)
        y, c_last, window_last, pre, checkpoints = layer_forward(inputs, c, True)
        ctx.save_for_backward(*given[:7], pre, checkpoints)
        ctx.how, ctx.expectation = inputs.how, inputs.expectation
        ctx.set_materialize_grads(False)
        return y, c_last, window_last

    @staticmethod
    def backward(ctx: Any, *flow: Tensor | None) -> tuple[Tensor | None, ...]:
        how, saved = (ctx.how, ctx.expectation), ctx.saved_tensors
        _, x, weight, _, window, *_ = ctx.needs_input_grad
        wanted = (x or window, weight)
        if torch.is_grad_enabled():  # create_graph: the operator's own derivative raises
            dx, dweight, dbias, dc, dwindow = qrnn_layer_backward(*flow, *saved, *how, *wanted)
        else:
            *tensors, pre, checkpoints = saved
            inputs = Inputs._make((*tensors, *how))
            found = layer_backward(Flow(*flow), inputs, pre, checkpoints, *wanted)
            dx, dweight, dbias, dc, dwindow = found
        return dc, dx, dweight, dbias, dwindow, *([None] * 5)


def layer(inputs: Inputs, c: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """y, final c and final window of one layer from the initial c [B, H], differentiable.

    In a trace (torch.compile, fake tensors) and under autocast it is the operator `qrnn_layer`;
    else the same functions are called directly.
    """
    x, weight, bias, window, *rest = inputs
    save = torch.is_grad_enabled() and (
        x.requires_grad
        or weight.requires_grad
        or bias.requires_grad
        or c.requires_grad
        or (window is not None and window.requires_grad)
    )
    if type(x) is not Tensor or torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu"):
        y, c_last, window_last = qrnn_layer(x, weight, bias, c, window, *rest, save)[:3]
    elif save:
        y, c_last, window_last = _Direct.apply(c, *inputs)
    else:
        y, c_last, window_last, _, _ = layer_forward(inputs, c, False)
    return y, c_last, window_last if window is not None else None


def _refuse(ctx: Any, *given: Tensor | None) -> tuple[Tensor | None, ...]:
    raise RuntimeError(
        "the compiled QRNN layer has no second derivative: use torch_eager, or ask for first "
        "gradients only (create_graph=False)"
    )


torch.library.register_fake("quasibench::qrnn_layer", _shapes, lib=_library)
torch.library.register_fake("quasibench::qrnn_layer_backward", _gradient_shapes, lib=_library)
torch.library.register_autograd(
    "quasibench::qrnn_layer", _gradients, setup_context=_remember, lib=_library
)
torch.library.register_autograd("quasibench::qrnn_layer_backward", _refuse, lib=_library)


def _autocast(
    x: Tensor, weight: Tensor, bias: Tensor, c: Tensor, window: Tensor | None, *rest: Any
) -> tuple[Tensor, ...]:
    """x, weight and window in autocast's dtype (float32 for one unknown here), states wide."""
    io = torch.get_autocast_dtype("cpu")
    if torch.float64 in (x.dtype, weight.dtype):
        io = torch.float64
    elif io not in STATE_OF:
        io = torch.float32
    wide = STATE_OF[io]
    window = None if window is None else window.to(io)
    keys = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastCPU)
    with torch._C._ExcludeDispatchKeyGuard(keys):
        out: tuple[Tensor, ...] = qrnn_layer(
            x.to(io), weight.to(io), bias.to(wide), c.to(wide), window, *rest
        )
    return out


_library.impl("qrnn_layer", _autocast, "AutocastCPU")
