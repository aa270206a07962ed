"""A QRNN layer on a device: one product over taps and gates, then a pooling kernel of its own.

What `jax_pallas` and `jax_cupy` share. The reverse direction moves no data: the convolution looks
ahead instead of back, and the kernel walks from each sequence's last valid step to its first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from impls._jax import ops
from impls._jax.pooling import Pool, Sequences
from impls._jax.stack import Mask
from impls.contract import ModelSpec
from impls.kernels.launch import Call


@jax.custom_vjp  # type: ignore[untyped-decorator]
def product(line: jax.Array, weight: jax.Array) -> jax.Array:
    """Gate sums [T, B, G*H] in the line's format, summed in float32 at least, without a bias.

    `ops.convolve` with the gates side by side; its result would be float32 and cost bfloat16 a
    pass over memory.

    Args:
        line: [T+K-1, B, C], what the taps see.
        weight: [K, C, G*H], tap by tap in natural time.
    """
    taps = ops.unfold(line, weight.shape[0])
    exact = None if line.dtype == jnp.bfloat16 else lax.Precision.HIGHEST
    flat = weight.reshape(-1, weight.shape[2])
    return lax.dot_general(
        taps, flat, (((2,), (0,)), ((), ())), precision=exact, preferred_element_type=line.dtype
    )


def _product_forward(line: jax.Array, weight: jax.Array) -> tuple[Any, Any]:
    return product(line, weight), (line, weight)


def _product_backward(saved: tuple[Any, Any], dpre: jax.Array) -> tuple[Any, Any]:
    line, weight = saved
    sums, pull = jax.vjp(ops.convolve, line, (weight,))  # the sums themselves are never computed
    dline, (dweight,) = pull((dpre.astype(sums[0].dtype),))
    return dline, dweight


product.defvjp(_product_forward, _product_backward)


def fused_layer(
    pool: Pool,
    spec: ModelSpec,
    params: Mapping[str, jax.Array],
    x: jax.Array,
    state: Mapping[str, jax.Array],
    lengths: jax.Array | None,
    mask: Mask | None,
    layer: int,
    direction: str,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """A core (see `impls._jax.stack.Core`) but for its pooling."""
    reverse = direction == "rev"
    weight = jnp.concatenate([params[f"{gate}.weight"] for gate in spec.gates], axis=2)
    bias = jnp.concatenate([params[f"{gate}.bias"] for gate in spec.gates])
    if reverse:
        weight = jnp.flip(weight, axis=0)
    line = _line(x, state.get("window"), lengths, reverse)
    zone = _zone(spec, mask)
    call = Call(
        *(spec.pooling, zone, spec.zoneout_mode == "keep", spec.zoneout, layer),
        *(reverse, direction == "dec"),
    )
    given = Sequences(lengths, *(mask if mask is not None and zone == "hold" else (None,) * 3))
    y, c = pool(call, product(line, weight), bias, state["c"], given)
    final = {"c": c}
    if spec.kernel_width > 1:
        final["window"] = _final_window(line, spec.kernel_width, lengths, reverse)
    return y, final


def _line(
    x: jax.Array, window: jax.Array | None, lengths: jax.Array | None, reverse: bool
) -> jax.Array:
    """What the taps see, [T+K-1, B, C] in natural time.

    Forward: the window, then x. Reverse: x, and the window from each sequence's own end on, its
    newest input first.
    """
    if not reverse or window is None:
        return ops.window_of(x, window)
    ahead = jnp.flip(window, axis=0)
    if lengths is None:
        return jnp.concatenate([x, ahead])
    room = jnp.concatenate([x, jnp.zeros_like(window)])
    place = lengths + jnp.arange(window.shape[0], dtype=lengths.dtype)[:, None]
    # Scattered, because the transpose of a scatter to places of their own is a gather.
    return room.at[place, jnp.arange(x.shape[1])].set(ahead, unique_indices=True)


def _final_window(
    line: jax.Array, kernel_width: int, lengths: jax.Array | None, reverse: bool
) -> jax.Array:
    """[K-1, B, C]: the last K-1 inputs in processing order, oldest first."""
    if reverse:
        return jnp.flip(line[: kernel_width - 1], axis=0)
    return ops.final_window(line, kernel_width, lengths)


def _zone(spec: ModelSpec, mask: Mask | None) -> str:
    if spec.zoneout == 0:
        return "none"
    if mask is not None:
        return "hold"
    return "expect" if spec.zoneout_eval == "expectation" else "none"
