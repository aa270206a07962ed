"""The card of torch_compile: the stack around the compiled layer's operator, by torch.compile."""

from __future__ import annotations

import impls
from impls.contract import Arrays, Implementation, ModelSpec, Placement, Session


def _unsupported(spec: ModelSpec, placement: Placement) -> str | None:
    if spec.family != "qrnn":
        return f"computes family 'qrnn', not {spec.family!r}"
    if placement.device == "cpu":
        return None
    for module in ("cupy", "triton"):
        if impls.absent(module):
            return f"on CUDA it compiles around torch_cupy's operator and needs {module}"
    if placement.dtype not in ("float32", "bfloat16"):
        return f"computes in float32 and bfloat16 on CUDA, not {placement.dtype}"
    return None


def _load(spec: ModelSpec, params: Arrays, placement: Placement) -> Session:
    from impls._torch.compiled import CompiledSession

    if placement.device == "cuda":
        from impls.torch_cupy.core import core
    else:
        from impls.torch_native.core import core
    return CompiledSession(core, spec, params, placement)


def _lacking() -> str | None:
    from impls._torch.toolchain import lacking

    return lacking()


card = Implementation(
    name="torch_compile",
    about="torch.compile of the stack around torch_native's operator (on CUDA torch_cupy's)",
    requires=("torch",),
    unsupported=_unsupported,
    load=_load,
    family="qrnn",
    lacking=_lacking,
    shares=("kernels", "torch_native", "torch_cupy"),
    compiles=True,
)
