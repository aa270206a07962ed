"""The core of torch_native: one operator for a whole layer in one direction."""

from __future__ import annotations

from torch import Tensor

from impls._torch import ops
from impls._torch.stack import Mask, Tensors
from impls.contract import STREAMS, ModelSpec
from impls.kernels.native import POOLINGS, ZONES, kernels
from impls.torch_native.op import layer as native_layer
from impls.torch_native.plan import How, Inputs

kernels()  # compile now, while loading: never inside a clock


def how_of(spec: ModelSpec, mask: Mask | None, layer: int, direction: str) -> How:
    """The operator's integers for one layer and direction."""
    zone = "none"
    if spec.zoneout > 0:
        if mask is not None:
            zone = "hold"
        elif spec.zoneout_eval == "expectation":
            zone = "expectation"
    seed = 0 if mask is None else mask[0]
    return How(
        pooling=POOLINGS[spec.pooling],
        zone=ZONES[zone],
        keeps_state=int(spec.zoneout_mode == "keep"),
        reverse=int(direction == "rev"),
        threshold=round(spec.zoneout * 65536),
        # the schema's integers are signed
        seed=seed - (1 << 64) if seed >= 1 << 63 else seed,
        layer=layer,
        stream=STREAMS[direction],
    )


def core(
    spec: ModelSpec,
    params: Tensors,
    x: Tensor,
    state: Tensors,
    lengths: Tensor | None,
    mask: Mask | None,
    layer: int,
    direction: str,
) -> tuple[Tensor, dict[str, Tensor]]:
    """One QRNN layer in one direction; arguments and results as in `impls._torch.stack.Core`."""
    fused = ops.fuse(spec, params)
    how = how_of(spec, mask, layer, direction)
    rows, t0 = mask[1:] if mask is not None else (None, None)
    window = state.get("window")
    inputs = Inputs(x, fused.weight, fused.bias, window, lengths, rows, t0, how, spec.zoneout)
    y, c, last = native_layer(inputs, state["c"])
    return y, {"c": c} if last is None else {"c": c, "window": last}
