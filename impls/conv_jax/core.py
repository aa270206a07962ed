"""The gated causal convolution: the K taps of each step side by side, one product per gate."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from impls._jax import ops
from impls._jax.arrays import state_dtype
from impls._jax.stack import Mask, Tensors
from impls.contract import ModelSpec


def _sums(params: Tensors, line: jax.Array, dilation: int) -> tuple[jax.Array, ...]:
    """What enters tanh and the logistic function, [T, B, H] each, float32 at least.

    bfloat16 numbers are multiplied as float32: rounding the sums' gradients to bfloat16 would put
    gradients of two small layers 6.5e-3 from float64 where 6e-3 is allowed.
    """
    wide = state_dtype(line.dtype)
    line, weights = line.astype(wide), tuple(params[f"{g}.weight"].astype(wide) for g in "zo")
    if dilation > 1:
        line = ops.unfold(line, weights[0].shape[0], dilation)
        weights = tuple(weight.reshape(1, -1, weight.shape[2]) for weight in weights)
    z, o = ops.convolve(line, weights)
    return z + params["z.bias"], o + params["o.bias"]


def core(
    spec: ModelSpec,
    params: Tensors,
    x: jax.Array,
    state: Tensors,
    lengths: jax.Array | None,
    mask: Mask | None,
    layer: int,
    direction: str,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """One layer in one direction; see `impls._jax.stack.Core`. It reads no mask."""
    valid = None if lengths is None else ops.valid_steps(lengths, x.shape[0])
    ordered = ops.reverse_valid(x, lengths) if direction == "rev" else x
    line = ops.window_of(ordered, state.get("window"))
    z, o = _sums(params, line, spec.dilation(layer))
    y = ops.gated_output(jnp.tanh(z), jax.nn.sigmoid(o), valid, x.dtype)
    final = {}
    if spec.kernel_width > 1:
        reach = spec.kernel_width, lengths, spec.dilation(layer)
        final["window"] = ops.final_window(line, *reach)
    return (ops.reverse_valid(y, lengths) if direction == "rev" else y), final
