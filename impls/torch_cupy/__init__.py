"""The card of torch_cupy: PyTorch around the project's own CUDA pooling kernels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from impls.contract import Arrays, Implementation, ModelSpec, Placement, Run, Session, Work

if TYPE_CHECKING:
    from impls._torch.stack import Core


def _unsupported(spec: ModelSpec, placement: Placement) -> str | None:
    if spec.family != "qrnn":
        return f"computes family 'qrnn', not {spec.family!r}"
    if placement.device != "cuda":
        return f"runs on device 'cuda', not {placement.device!r}: torch_native is its CPU side"
    if placement.dtype not in ("float32", "bfloat16"):
        return f"computes in float32 and bfloat16, not {placement.dtype}"
    return None


def _load(spec: ModelSpec, params: Arrays, placement: Placement) -> Session:
    from impls._torch.session import CoreSession
    from impls.torch_cupy.core import core

    return CoreSession(core, spec, params, placement)


def _capture(session: Session) -> Session:
    from impls._torch.graph import capture

    return capture(session)


def _core() -> Core:
    from impls.torch_cupy.core import core

    return core


def _gemm(spec: ModelSpec, params: Arrays, placement: Placement, work: Work) -> Run:
    from impls._torch.parts import GemmRun

    return GemmRun(spec, params, placement, work)


def _pooling(spec: ModelSpec, params: Arrays, placement: Placement, work: Work) -> Run:
    from impls.torch_cupy.parts import PoolingRun

    return PoolingRun(spec, params, placement, work)


card = Implementation(
    name="torch_cupy",
    about="QRNN on CUDA: torch's product for all gates, then one fused kernel compiled by NVRTC",
    requires=("torch", "cupy"),
    unsupported=_unsupported,
    load=_load,
    family="qrnn",
    core=_core,
    capture=_capture,
    shares=("kernels",),
    parts={"gemm": _gemm, "pooling": _pooling},
)
