"""The whole QRNN layer as custom calls of XLA on the CPU: compiled on first use, then registered.

The object speaks XLA's plain C interface (XLA FFI), whose header comes with jaxlib.
"""

from __future__ import annotations

import ctypes
import importlib.util
from functools import cache
from pathlib import Path

from impls.kernels import build
from impls.kernels.build import CompilerMissing, shared_object

HEADER = "xla/ffi/api/c_api.h"
SOURCES = ("layer_xla.cpp", "xla_buffers.h", "xla_threads.h", *build.SOURCES[1:])
"""The first is compiled and includes the others."""
TARGETS = {"forward": "quasibench_layer_forward", "backward": "quasibench_layer_backward"}


def _include() -> Path:
    """jaxlib's folder of headers, found without importing it.

    Raises:
        CompilerMissing: jaxlib is not there or comes without the header.
    """
    spec = importlib.util.find_spec("jaxlib")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        include = Path(place) / "include"
        if (include / HEADER).exists():
            return include
    raise CompilerMissing(
        f"jaxlib brings no {HEADER}: install jax 0.10 or newer, e.g. "
        "`pip install 'quasibench[jax]'`"
    )


def _object() -> Path:
    return shared_object(SOURCES, _include(), (HEADER,))


@cache
def register() -> None:
    """Make the two calls known to XLA under the names in `TARGETS`; compiles them if need be.

    Raises:
        CompilerMissing: they cannot be compiled or loaded here.
    """
    import jax

    path = _object()
    try:
        library = ctypes.CDLL(str(path))
        for what, name in TARGETS.items():
            function = getattr(library, f"qb_layer_{what}")
            jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(function), platform="cpu")
    except (OSError, AttributeError) as error:
        raise CompilerMissing(
            f"the compiled kernels cannot be loaded ({error}): empty the folder in "
            "QUASIBENCH_CACHE or ~/.cache/quasibench, or name another compiler in CXX"
        ) from error


@cache
def lacking() -> str | None:
    """One line on what to install where the layer cannot be compiled, else None."""
    try:
        _object()
    except CompilerMissing as error:
        return str(error)
    return None
