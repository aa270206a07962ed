"""The QRNN layer as operators of torch's dispatcher: eager, autograd, compile, autocast.

Registered through the low-level `torch.library.Library`, which costs a few microseconds a call.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from impls.torch_native.backward import layer_backward
from impls.torch_native.layer import layer_forward
from impls.torch_native.plan import STATE_OF, How, check, sizes_of

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


def _forward(x: Tensor, weight: Tensor, bias: Tensor, c: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    """`layer_forward` with empty tensors for what is absent, as a schema wants it."""
    y, c_last, window, pre, checkpoints = layer_forward(x, weight, bias, c, *rest)
    width, hidden = bias.shape[0], c.shape[1]
    return (
        y,
        c_last,
        x.new_empty(0, *x.shape[1:]) if window is None else window,
        x.new_empty(0, x.shape[1], width) if pre is None else pre,
        c.new_empty(0, x.shape[1], hidden) if checkpoints is None else checkpoints,
    )


_library.impl("qrnn_layer", _forward, "CPU")
_library.impl("qrnn_layer_backward", layer_backward, "CPU")

qrnn_layer = torch.ops.quasibench.qrnn_layer.default
"""(x, weight, bias, c, window, lengths, rows, t0, how, expectation, save) -> (y, c_last,
window_last, pre, checkpoints); see `impls.torch_native.layer.layer_forward`."""
_backward = torch.ops.quasibench.qrnn_layer_backward.default


def _shapes(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    c: Tensor,
    window: Tensor | None,
    lengths: Tensor | None,
    rows: Tensor | None,
    t0: Tensor | None,
    how: Sequence[int],
    expectation: float,
    save: bool,
) -> tuple[Tensor, ...]:
    sizes = check(x, weight, bias, c, window, lengths, rows, t0, How(*how))
    saved = sizes.steps if save else 0
    return (
        x.new_empty(sizes.steps, sizes.batch, sizes.hidden),
        c.new_empty(sizes.batch, sizes.hidden),
        x.new_empty(sizes.taps - 1, sizes.batch, sizes.features),
        x.new_empty(saved, sizes.batch, sizes.width),
        c.new_empty(sizes.segments if save else 0, sizes.batch, sizes.hidden),
    )


def _gradient_shapes(
    dy: Tensor | None,
    dc: Tensor | None,
    dwindow: Tensor | None,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    window: Tensor | None,
    lengths: Tensor | None,
    rows: Tensor | None,
    t0: Tensor | None,
    pre: Tensor,
    checkpoints: Tensor,
    how: Sequence[int],
    expectation: float,
    for_inputs: bool,
    for_weight: bool,
) -> tuple[Tensor, ...]:
    sizes = sizes_of(x, weight, How(*how).pooling)
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
    ctx.how, ctx.expectation, ctx.backward = how, expectation, _backward
    ctx.mark_non_differentiable(pre, checkpoints)
    ctx.set_materialize_grads(False)


def _gradients(ctx: Any, *given: Tensor | None) -> tuple[Tensor | None, ...]:
    dy, dc, dwindow = given[:3]
    needs_x, needs_weight, needs_bias, needs_c, needs_window = ctx.needs_input_grad[:5]
    for_inputs = needs_x or needs_window
    dx, dweight, dbias, dc_first, dwindow_first = ctx.backward(
        *(dy, dc, dwindow, *ctx.saved_tensors, ctx.how, ctx.expectation),
        *(for_inputs, needs_weight),
    )
    return (
        dx if needs_x else None,
        dweight if needs_weight else None,
        dbias if needs_bias else None,
        dc_first if needs_c else None,
        dwindow_first if needs_window else None,
        *([None] * 6),
    )


class _Direct(torch.autograd.Function):  # type: ignore[misc]  # Any where torch is skipped
    """The operator without the dispatcher, which costs more than the rest of a small call."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        c: Tensor,
        window: Tensor | None,
        lengths: Tensor | None,
        rows: Tensor | None,
        t0: Tensor | None,
        how: Sequence[int],
        expectation: float,
    ) -> tuple[Tensor | None, ...]:
        y, c_last, window_last, pre, checkpoints = layer_forward(
            *(x, weight, bias, c, window, lengths, rows, t0, how, expectation), True
        )
        ctx.save_for_backward(x, weight, bias, window, lengths, rows, t0, pre, checkpoints)
        ctx.how, ctx.expectation = how, expectation
        ctx.set_materialize_grads(False)
        return y, c_last, window_last

    @staticmethod
    def backward(ctx: Any, *given: Tensor | None) -> tuple[Tensor | None, ...]:
        # With create_graph the operator is asked, whose own derivative raises.
        ctx.backward = _backward if torch.is_grad_enabled() else layer_backward
        return _gradients(ctx, *given)[:-1]


def layer(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    c: Tensor,
    window: Tensor | None,
    lengths: Tensor | None,
    rows: Tensor | None,
    t0: Tensor | None,
    how: Sequence[int],
    expectation: float,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """y, final c and final window of one layer, differentiable; arguments of `layer_forward`.

    In a trace (torch.compile, fake tensors) and under autocast it is the operator `qrnn_layer`;
    else the same functions are called directly.
    """
    given = (x, weight, bias, c, window)
    save = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in given)
    rest = (lengths, rows, t0, how, expectation)
    if torch.compiler.is_compiling() or type(x) is not Tensor or torch.is_autocast_enabled("cpu"):
        y, c_last, window_last = qrnn_layer(*given, *rest, save)[:3]
    elif save:
        y, c_last, window_last = _Direct.apply(*given, *rest)
    else:
        y, c_last, window_last, _, _ = layer_forward(*given, *rest, False)
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
