"""What the stack sees of a batch: embedded tokens, dense features, or a hashed bottleneck."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from impls._torch.stack import Tensors
from impls.nets import NetSpec

LAYER_NORM_EPSILON = 1e-5


def embed(net: NetSpec, params: Tensors, inputs: Tensor) -> Tensor:
    """The first layer's input [T, B, C].

    Args:
        params: by canonical name, see `impls.net_params`.
        inputs: int64 [T, B] for "tokens", [T, B, F] in the weights' dtype otherwise; finite.
    """
    if net.inputs == "tokens":
        return functional.embedding(inputs, params["embedding.weight"])
    if net.inputs == "hashed":
        return bottleneck(params, inputs)
    return inputs


def bottleneck(params: Tensors, features: Tensor) -> Tensor:
    """[T, B, C]: features [T, B, F] multiplied and layer-normalised over C, in their own dtype.

    pQRNN's bottleneck (seq_flow_lite in tensorflow/models) without its quantisation.
    """
    flat = features.flatten(0, 1) @ params["bottleneck.weight"]
    scale = params["bottleneck.scale"]
    pre = flat.to(scale.dtype) + params["bottleneck.bias"]
    normal = functional.layer_norm(
        pre, scale.shape, scale, params["bottleneck.shift"], LAYER_NORM_EPSILON
    )
    return normal.to(features.dtype).unflatten(0, features.shape[:2])
