"""The card of jax_native: the whole layer as one custom call of XLA into compiled CPU kernels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from impls.contract import Arrays, Implementation, ModelSpec, Placement, Session

if TYPE_CHECKING:
    from impls._jax.stack import Core


def _unsupported(spec: ModelSpec, placement: Placement) -> str | None:
    if spec.family != "qrnn":
        return f"computes family 'qrnn', not {spec.family!r}"
    if placement.device != "cpu":
        return "compiled for the CPU: on CUDA use jax_scan or jax_associative"
    return None


def _load(spec: ModelSpec, params: Arrays, placement: Placement) -> Session:
    from impls._jax.session import CoreSession

    return CoreSession(_core(), spec, params, placement)


def _core() -> Core:
    from impls.jax_native.core import core

    return core


def _lacking() -> str | None:
    from impls.kernels.xla import lacking

    return lacking()


card = Implementation(
    name="jax_native",
    about="QRNN in JAX on the CPU: the layer is one custom call into compiled C++, inside jit",
    requires=("jax",),
    unsupported=_unsupported,
    load=_load,
    core=_core,
    lacking=_lacking,
    shares=("kernels",),
)
