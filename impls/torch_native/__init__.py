"""The card of torch_native: the whole layer through compiled CPU kernels, chunked over time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from impls.contract import Arrays, Implementation, ModelSpec, Placement, Run, Session, Work

if TYPE_CHECKING:
    from impls._torch.stack import Core


def _unsupported(spec: ModelSpec, placement: Placement) -> str | None:
    if spec.family != "qrnn":
        return f"computes family 'qrnn', not {spec.family!r}"
    if placement.device != "cpu":
        return "compiled for the CPU: on CUDA use torch_cupy or torch_eager"
    return None


def _load(spec: ModelSpec, params: Arrays, placement: Placement) -> Session:
    from impls._torch.session import CoreSession
    from impls.torch_native.core import core

    return CoreSession(core, spec, params, placement)


def _core() -> Core:
    from impls.torch_native.core import core

    return core


def _gemm(spec: ModelSpec, params: Arrays, placement: Placement, work: Work) -> Run:
    from impls._torch.parts import GemmRun

    return GemmRun(spec, params, placement, work)


def _pooling(spec: ModelSpec, params: Arrays, placement: Placement, work: Work) -> Run:
    from impls.torch_native.parts import PoolingRun

    return PoolingRun(spec, params, placement, work)


def _lacking() -> str | None:
    from impls.kernels.native import lacking

    return lacking()


card = Implementation(
    name="torch_native",
    about="QRNN in compiled C++ on the CPU: products and pooling chunked over time, in cache",
    requires=("torch",),
    unsupported=_unsupported,
    load=_load,
    family="qrnn",
    core=_core,
    lacking=_lacking,
    shares=("kernels",),
    parts={"gemm": _gemm, "pooling": _pooling},
)
