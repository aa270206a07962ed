"""The card of `conv_jax`: a gated causal convolution, a QRNN without its recurrence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from impls.contract import Arrays, Implementation, ModelSpec, Placement, Session

if TYPE_CHECKING:
    from impls._jax.stack import Core


def _unsupported(spec: ModelSpec, placement: Placement) -> str | None:
    """Why this spec cannot run here, or None."""
    if spec.family != "conv":
        return f"computes family 'conv', not {spec.family!r}"
    return None


def _load(spec: ModelSpec, params: Arrays, placement: Placement) -> Session:
    """A session on `placement`, owning a copy of the canonical parameters."""
    from impls._jax.session import CoreSession

    return CoreSession(_core(), spec, params, placement)


def _core() -> Core:
    """The layer as one differentiable function."""
    from impls.conv_jax.core import core

    return core


card = Implementation(
    name="conv_jax",
    about="gated causal convolution in JAX: K taps side by side, one product per gate",
    requires=("jax",),
    unsupported=_unsupported,
    load=_load,
    family="conv",
    core=_core,
)
