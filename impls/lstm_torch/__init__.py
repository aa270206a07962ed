"""The card of lstm_torch: torch.nn.LSTM, which is oneDNN on a CPU and cuDNN on CUDA."""

from __future__ import annotations

from typing import TYPE_CHECKING

from impls.contract import Arrays, Implementation, ModelSpec, Placement, Session, Work

if TYPE_CHECKING:
    from impls._torch.stack import Core


def _unsupported(spec: ModelSpec, placement: Placement) -> str | None:
    if spec.family != "lstm":
        return f"computes family 'lstm', not {spec.family!r}"
    return None


def _load(spec: ModelSpec, params: Arrays, placement: Placement) -> Session:
    """A session around nn.LSTM; dense connections, which it lacks, around one kernel per layer."""
    from impls._torch.session import CoreSession, NetworkSession
    from impls.lstm_torch.network import LstmNetwork

    if spec.dense and spec.layers > 1:
        return CoreSession(_core(), spec, params, placement)

    def make(ragged: bool) -> LstmNetwork:
        return LstmNetwork(spec, params, placement, ragged)

    return NetworkSession(make, spec, placement)


def _core() -> Core:
    """The layer as one differentiable function, for networks of any shape."""
    from impls.lstm_torch.core import core

    return core


def _capture(session: Session) -> Session:
    from impls._torch.graph import capture

    return capture(session)


def _algorithm(spec: ModelSpec, placement: Placement, work: Work) -> str | None:
    from impls.lstm_torch.algorithm import of

    return of(spec, placement, work.kind, work.x.shape[1], work.lengths is not None)


card = Implementation(
    name="lstm_torch",
    about="LSTM by torch.nn.LSTM: oneDNN on a CPU (packed sequences: ATen), cuDNN on CUDA",
    requires=("torch",),
    unsupported=_unsupported,
    load=_load,
    family="lstm",
    core=_core,
    capture=_capture,
    algorithm=_algorithm,
)
