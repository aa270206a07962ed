"""The card of torch_compile_loop: torch_eager's loop over time, unrolled by torch.compile."""

from __future__ import annotations

import impls
from impls.contract import Arrays, Implementation, ModelSpec, Placement, Session

MOST_STEPS = 256
"""Steps over all layers and directions: each is code of its own, which the compiler must read."""


def _unsupported(spec: ModelSpec, placement: Placement) -> str | None:
    if spec.family != "qrnn":
        return f"computes family 'qrnn', not {spec.family!r}"
    if placement.device == "cuda" and impls.absent("triton"):
        return "torch.compile needs triton on CUDA, which is not installed"
    return None


def _load(spec: ModelSpec, params: Arrays, placement: Placement) -> Session:
    from impls._torch.compiled import CompiledSession
    from impls.torch_eager.core import core

    return CompiledSession(core, spec, params, placement, MOST_STEPS)


def _lacking() -> str | None:
    from impls._torch.toolchain import lacking

    return lacking()


card = Implementation(
    name="torch_compile_loop",
    about=f"torch.compile of torch_eager's time loop, unrolled: at most {MOST_STEPS} steps",
    requires=("torch",),
    unsupported=_unsupported,
    load=_load,
    family="qrnn",
    lacking=_lacking,
    shares=("kernels", "torch_eager"),
    compiles=True,
)
