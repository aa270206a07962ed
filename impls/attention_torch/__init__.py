"""The card of `attention_torch`: a causal pre-norm Transformer encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from impls.contract import Arrays, Implementation, ModelSpec, Placement, Session
from impls.params import attention_hindrance

if TYPE_CHECKING:
    from impls._torch.stack import Core


def _unsupported(spec: ModelSpec, placement: Placement) -> str | None:
    """Why this spec cannot run here, or None."""
    if spec.family != "attention":
        return f"computes family 'attention', not {spec.family!r}"
    return attention_hindrance(spec)


def _load(spec: ModelSpec, params: Arrays, placement: Placement) -> Session:
    """A session on `placement`, owning a copy of the canonical parameters."""
    from impls._torch.session import CoreSession

    return CoreSession(_core(), spec, params, placement)


def _core() -> Core:
    """The layer as one differentiable function."""
    from impls.attention_torch.core import core

    return core


def _capture(session: Session) -> Session:
    """The same session with Runs that replay CUDA graphs."""
    from impls._torch.graph import capture

    return capture(session)


card = Implementation(
    name="attention_torch",
    about="causal pre-norm Transformer encoder in PyTorch: scaled_dot_product_attention, rotary",
    requires=("torch",),
    unsupported=_unsupported,
    load=_load,
    family="attention",
    core=_core,
    capture=_capture,
)
