"""The card of `conv_torch`: a gated causal convolution, a QRNN without its recurrence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from impls.contract import Arrays, Implementation, ModelSpec, Placement, Session

if TYPE_CHECKING:
    from impls._torch.stack import Core


def _unsupported(spec: ModelSpec, placement: Placement) -> str | None:
    """Why this spec cannot run here, or None."""
    if spec.family != "conv":
        return f"computes family 'conv', not {spec.family!r}"
    return None


def _load(spec: ModelSpec, params: Arrays, placement: Placement) -> Session:
    """A session on `placement`, owning a copy of the canonical parameters."""
    from impls._torch.session import CoreSession

    return CoreSession(_core(), spec, params, placement)


def _core() -> Core:
    """The layer as one differentiable function."""
    from impls.conv_torch.core import core

    return core


def _capture(session: Session) -> Session:
    """The same session with Runs that replay CUDA graphs."""
    from impls._torch.graph import capture

    return capture(session)


card = Implementation(
    name="conv_torch",
    about="gated causal convolution in PyTorch: K taps side by side, one matrix product",
    requires=("torch",),
    unsupported=_unsupported,
    load=_load,
    family="conv",
    core=_core,
    capture=_capture,
)
