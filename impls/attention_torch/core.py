"""A layer of a causal pre-norm Transformer encoder around torch's scaled_dot_product_attention.

What it computes, and from which papers: `impls.reference.attention`.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

from impls._torch import ops
from impls._torch.arrays import state_dtype
from impls._torch.stack import Mask, Tensors
from impls.contract import ModelSpec
from impls.params import NORM_EPSILON, ROTARY_BASE


@lru_cache(maxsize=16)
def _angles(
    steps: int, size: int, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """cos and sin [T, d/2]; from float64, since a float32 angle is off by 2e-4 at step 4096."""
    with torch.inference_mode(False):  # kept for training too, which may save no inference tensor
        pairs = torch.arange(0, size, 2, dtype=torch.float64, device=device)
        time = torch.arange(steps, dtype=torch.float64, device=device)
        angles = time[:, None] * ROTARY_BASE ** (-pairs / size)
        return angles.cos().to(dtype), angles.sin().to(dtype)


def _turned(array: Tensor) -> Tensor:
    """[B, N, T, d] with the pairs (i, i + d/2) of every step turned by its angles."""
    cos, sin = _angles(*array.shape[2:], array.dtype, array.device)
    left, right = array.chunk(2, dim=3)
    return torch.cat([left * cos - right * sin, right * cos + left * sin], dim=3)


def _norm(params: Tensors, name: str, u: Tensor) -> Tensor:
    scale, shift = params[f"{name}.scale"], params[f"{name}.shift"]
    return functional.layer_norm(u, u.shape[2:], scale, shift, NORM_EPSILON)


def _product(params: Tensors, name: str, u: Tensor) -> Tensor:
    """u [T, B, N] times a weight [N, ...], plus its bias where there is one."""
    weight = params[f"{name}.weight"].flatten(1).to(u.dtype)
    bias = params.get(f"{name}.bias")
    rows = u.flatten(0, 1)
    flat = rows @ weight if bias is None else torch.addmm(bias, rows, weight)
    return flat.unflatten(0, u.shape[:2])


def _attend(spec: ModelSpec, qkv: Tensor) -> Tensor:
    """What each step gathers [T, B, H] from itself and the steps before, from [T, B, 3H]."""
    steps, batch, _ = qkv.shape
    # [T, B, 3, N, d] as three times [B, N, T, d]
    q, k, v = qkv.view(steps, batch, 3, spec.heads, -1).permute(2, 1, 3, 0, 4).unbind(0)
    out = functional.scaled_dot_product_attention(_turned(q), _turned(k), v, is_causal=True)
    return out.permute(2, 0, 1, 3).reshape(steps, batch, -1)


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
    """One layer; see `impls._torch.stack.Core`. There is neither state nor mask.

    bfloat16 inputs and weights are computed with in float32: rounding what enters each of its six
    products would add up to more than the 6e-3 that are allowed against float64.
    """
    wide = x.to(state_dtype(x.dtype))
    u = _product(params, "input", wide) if "input.weight" in params else wide
    gathered = _attend(spec, _product(params, "qkv", _norm(params, "attention_norm", u)))
    u = u + _product(params, "out", gathered)
    inner = functional.gelu(
        _product(params, "up", _norm(params, "inner_norm", u)), approximate="tanh"
    )
    y = u + _product(params, "down", inner)
    if "final_norm.scale" in params:
        y = _norm(params, "final_norm", y)
    valid = None if lengths is None else ops.valid_steps(lengths, x.shape[0])
    return ops.gated_output(y, None, valid, x.dtype), {}
