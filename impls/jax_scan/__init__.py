"""The card of `jax_scan`: a QRNN whose recurrence is one `lax.scan` under jit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from impls.contract import Arrays, Implementation, ModelSpec, Placement, Session

if TYPE_CHECKING:
    from impls._jax.stack import Core


def _unsupported(spec: ModelSpec, placement: Placement) -> str | None:
    """Why this spec cannot run here, or None."""
    if spec.family != "qrnn":
        return f"computes family 'qrnn', not {spec.family!r}"
    return None


def _load(spec: ModelSpec, params: Arrays, placement: Placement) -> Session:
    """A session on `placement`, owning a copy of the canonical parameters."""
    from impls._jax.session import CoreSession

    return CoreSession(_core(), spec, params, placement)


def _core() -> Core:
    """The layer as one differentiable function; see `impls._jax.stack.Core`."""
    from impls.jax_scan.core import core

    return core


card = Implementation(
    name="jax_scan",
    about="QRNN in JAX: matrix products for all steps at once, then lax.scan over time",
    requires=("jax",),
    unsupported=_unsupported,
    load=_load,
    core=_core,
)
