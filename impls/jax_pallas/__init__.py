"""The card of `jax_pallas`: JAX on CUDA with the pooling as two Pallas kernels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from impls.contract import Arrays, Implementation, ModelSpec, Placement, Session

if TYPE_CHECKING:
    from impls._jax.stack import Core


def _unsupported(spec: ModelSpec, placement: Placement) -> str | None:
    """Why this spec cannot run here, or None."""
    if spec.family != "qrnn":
        return f"computes family 'qrnn', not {spec.family!r}"
    if placement.device != "cuda":
        return f"runs on device 'cuda', not {placement.device!r}: use jax_scan there"
    if placement.dtype not in ("float32", "bfloat16"):
        return f"computes in float32 and bfloat16, not {placement.dtype}"
    return None


def _load(spec: ModelSpec, params: Arrays, placement: Placement) -> Session:
    """A session on `placement`, owning a copy of the canonical parameters."""
    from impls._jax.session import CoreSession

    return CoreSession(_core(), spec, params, placement)


def _core() -> Core:
    """The layer as one differentiable function; see `impls._jax.stack.Core`."""
    from impls.jax_pallas.core import core

    return core


card = Implementation(
    name="jax_pallas",
    about="QRNN in JAX on CUDA: XLA's product for all gates, then Pallas kernels for the pooling",
    requires=("jax",),
    unsupported=_unsupported,
    load=_load,
    core=_core,
    shares=("kernels",),
)
