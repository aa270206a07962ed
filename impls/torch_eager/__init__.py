"""The card of torch_eager: plain PyTorch, autograd through a loop over time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from impls.contract import Arrays, Implementation, ModelSpec, Placement, Session

if TYPE_CHECKING:
    from impls._torch.stack import Core


def _unsupported(spec: ModelSpec, placement: Placement) -> str | None:
    if spec.family != "qrnn":
        return f"computes family 'qrnn', not {spec.family!r}"
    return None


def _load(spec: ModelSpec, params: Arrays, placement: Placement) -> Session:
    from impls._torch.session import CoreSession
    from impls.torch_eager.core import core

    return CoreSession(core, spec, params, placement)


def _capture(session: Session) -> Session:
    from impls._torch.graph import capture

    return capture(session)


def _core() -> Core:
    from impls.torch_eager.core import core

    return core


card = Implementation(
    name="torch_eager",
    about="QRNN in plain PyTorch: one product for all gates, autograd through a time loop",
    requires=("torch",),
    unsupported=_unsupported,
    load=_load,
    family="qrnn",
    core=_core,
    capture=_capture,
)
