"""The card of `lstm_jax`: an LSTM under jit, by `lax.scan`, on CUDA in float32 by cuDNN."""

from __future__ import annotations

from typing import TYPE_CHECKING

from impls.contract import Arrays, Implementation, ModelSpec, Placement, Session, Work

if TYPE_CHECKING:
    from impls._jax.stack import Core


def _unsupported(spec: ModelSpec, placement: Placement) -> str | None:
    """Why this spec cannot run here, or None."""
    if spec.family != "lstm":
        return f"computes family 'lstm', not {spec.family!r}"
    return None


def _by_cudnn(placement: Placement) -> bool:
    return placement.device == "cuda" and placement.dtype == "float32"


def _algorithm(spec: ModelSpec, placement: Placement, work: Work) -> str | None:
    """XLA asks cuDNN for its standard algorithm alone."""
    if placement.device != "cuda":
        return None
    return "cuDNN STANDARD" if _by_cudnn(placement) else "lax.scan"


def _load(spec: ModelSpec, params: Arrays, placement: Placement) -> Session:
    """A session on `placement`, owning a copy of the canonical parameters."""
    from impls._jax.session import CoreSession

    core = _core()
    if _by_cudnn(placement):
        from impls.lstm_jax import cudnn

        core = cudnn.core
    return CoreSession(core, spec, params, placement)


def _core() -> Core:
    """The layer as one differentiable function that runs on every device."""
    from impls.lstm_jax.core import core

    return core


card = Implementation(
    name="lstm_jax",
    about="LSTM in JAX: lax.scan with the input products outside; cuDNN on CUDA in float32",
    requires=("jax",),
    unsupported=_unsupported,
    load=_load,
    family="lstm",
    core=_core,
    algorithm=_algorithm,
)
