"""One QRNN layer in one direction as a differentiable function around two custom calls of XLA."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from impls.jax_native.check import check
from impls.kernels.native import POOLINGS, SEGMENT, ZONES
from impls.kernels.xla import TARGETS

ROWS = 512
"""Most steps times sequences between two checkpoints."""


class How(NamedTuple):
    """What of a spec the calls need and a trace cannot know from shapes."""

    pooling: str
    zone: str
    keeps_state: bool
    reverse: bool
    probability: float
    layer: int
    decoder: bool = False

    def attributes(self, ragged: bool, batch: int, **wanted: bool) -> dict[str, Any]:
        """As the structure `How` of layer_xla.cpp."""
        flags = (ragged, *(wanted.get(w, False) for w in ("inputs", "weights", "saves")))
        threshold = round(self.probability * 65536)
        stream = int(self.reverse) + 2 * int(self.decoder)  # impls.contract.STREAMS
        head = POOLINGS[self.pooling], ZONES[self.zone], self.keeps_state, self.reverse
        numbers = (*head, threshold, self.layer, stream, _spacing(batch), *flags)
        return {
            "how": np.array(numbers, dtype=np.int64),
            "expectation": np.float64(self.probability),
        }


class Given(NamedTuple):
    """Differentiable arguments of a layer; G gates in the order z f o i.

    x [T, B, C] and weights [K, C, H] in the I/O dtype, biases [H] and c [B, H] float32 (float64
    for float64), window [K-1, B, C] in the I/O dtype, None for K = 1.
    """

    x: jax.Array
    c: jax.Array
    weights: tuple[jax.Array, ...]
    biases: tuple[jax.Array, ...]
    window: jax.Array | None


class Sequences(NamedTuple):
    """lengths [B] int32 or None; mask (seed [2], rows [B], t0 [2, B]) uint32 or None."""

    lengths: jax.Array | None
    mask: tuple[jax.Array, jax.Array, jax.Array] | None


class Final(NamedTuple):
    """y [T, B, H] in the I/O dtype, and the state behind each sequence's end."""

    y: jax.Array
    c: jax.Array
    window: jax.Array | None


class Saved(NamedTuple):
    """Gate sums [T, B, G*H] without bias, and c before every `spacing`-th step."""

    pre: jax.Array
    checkpoints: jax.Array


def _like(array: jax.Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(array.shape, array.dtype)


def _call(what: str, shapes: Any, *operands: Any, **attributes: Any) -> Any:
    """One custom call; `shapes` and `operands` are trees whose None count for nothing."""
    leaves, tree = jax.tree.flatten(shapes)
    call = jax.ffi.ffi_call(TARGETS[what], leaves, vmap_method="sequential")
    return jax.tree.unflatten(tree, call(*jax.tree.leaves(operands), **attributes))


def _spacing(batch: int) -> int:
    """Steps between two checkpoints."""
    return min(max(1, ROWS // batch), SEGMENT)


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))  # a derivative reaches it only as a second one
def _forward(how: How, saves: bool, given: Given, rest: Sequences) -> tuple[Final, Saved | None]:
    check(how, given, rest)
    (steps, batch, _), hidden = given.x.shape, given.c.shape[1]
    y = jax.ShapeDtypeStruct((steps, batch, hidden), given.x.dtype)
    window = None if given.window is None else _like(given.window)
    saved = None
    if saves:
        segments = -(-steps // _spacing(batch))
        saved = Saved(
            jax.ShapeDtypeStruct((steps, batch, len(given.weights) * hidden), given.x.dtype),
            jax.ShapeDtypeStruct((segments, batch, hidden), given.c.dtype),
        )
    attributes = how.attributes(rest.lengths is not None, batch, saves=saves)
    shapes = Final(y, _like(given.c), window), saved
    result: tuple[Final, Saved | None] = _call("forward", shapes, given, rest, **attributes)
    return result


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def layer(how: How, given: Given, rest: Sequences) -> Final:
    """The layer's outputs, differentiable once by everything in `given`.

    One custom call forward and one backward; it may stand inside jit, grad and vmap (which calls
    it once per entry).

    Raises:
        TypeError, ValueError: arguments that do not fit; see `check`.
        NotImplementedError: while tracing a second derivative.
    """
    final: Final = _forward(how, False, given, rest)[0]
    return final


def _remember(how: How, given: Given, rest: Sequences) -> tuple[Final, Any]:
    # With symbolic zeros every argument says whether a gradient by it is wanted.
    wanted = Wanted(
        inputs=given.x.perturbed or (given.window is not None and given.window.perturbed),
        weights=any(w.perturbed for w in given.weights),
    )
    given, rest = jax.tree.map(lambda leaf: leaf.value, (given, rest), is_leaf=_is_primal)
    final, saved = _forward(how, True, given, rest)
    return final, (wanted, given, rest, saved)


def _is_primal(leaf: Any) -> bool:
    return hasattr(leaf, "perturbed")


@jax.tree_util.register_static
class Wanted(NamedTuple):
    """Which products the backward pass needs."""

    inputs: bool
    weights: bool


def _gradients(how: How, kept: Any, dfinal: Final) -> tuple[Given, None]:
    wanted, given, rest, saved = kept
    like = Final(given.x, given.c, given.window)
    dy_like = jax.ShapeDtypeStruct((*given.x.shape[:2], given.c.shape[1]), given.x.dtype)
    dfinal = Final(*map(_instantiated, dfinal, like._replace(y=dy_like)))
    return _backward(how, wanted, given, rest, saved, dfinal), None


def _instantiated(gradient: Any, like: Any) -> jax.Array | None:
    """A gradient as an array; zeros of `like` where JAX knows only that it is zero."""
    if like is None:
        return None
    if isinstance(gradient, jax.Array):
        return gradient
    return jnp.zeros(like.shape, like.dtype)


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _backward(
    how: How, wanted: Wanted, given: Given, rest: Sequences, saved: Saved, dfinal: Final
) -> Given:
    attributes = how.attributes(rest.lengths is not None, given.x.shape[1], **wanted._asdict())
    shapes = (
        *(_like(given.c), jax.tree.map(_like, given.biases)),
        (_like(given.x), jax.tree.map(_like, given.window)) if wanted.inputs else (None, None),
        jax.tree.map(_like, given.weights) if wanted.weights else None,
    )
    dc, dbiases, (dx, dwindow), dweights = _call(
        *("backward", shapes, given, rest, saved, dfinal), **attributes
    )
    if not wanted.inputs:
        dx, dwindow = jax.tree.map(jnp.zeros_like, (given.x, given.window))
    if not wanted.weights:
        dweights = jax.tree.map(jnp.zeros_like, given.weights)
    return Given(dx, dc, dweights, dbiases, dwindow)


def _refuse(how: How, wanted: Any, primals: Any, tangents: Any) -> Any:
    raise NotImplementedError(
        "the compiled QRNN layer has no second derivative: use jax_scan, or ask for first "
        "gradients only"
    )


_forward.defjvp(_refuse)
_backward.defjvp(_refuse)
layer.defvjp(_remember, _gradients, symbolic_zeros=True)
