"""The compiled CPU kernels as functions: argument block, loading, threads."""

from __future__ import annotations

import contextlib
import ctypes
from functools import cache
from pathlib import Path

from impls.kernels.build import CompilerMissing, shared_object

ABI = 2
SEGMENT = 16
"""Most steps between two checkpoints of the state (QB_SEGMENT)."""
POOLINGS = {"f": 0, "fo": 1, "ifo": 2}
ZONES = {"none": 0, "hold": 1, "expectation": 2}
FORMATS = {"float32": 0, "bfloat16": 1, "float64": 2}

_NUMBERS = (
    *("format", "pooling", "zone", "keeps_state", "reverse", "threads"),
    *("steps", "batch", "features", "hidden", "taps", "begin", "end", "spacing"),
)
_POINTERS = (
    *("pre", "bias", "c", "y", "y_time", "y_batch", "checkpoints"),
    *("dy", "dy_time", "dy_batch", "dc", "dpre", "dbias"),
    *("dunfolded", "dwindow_last", "carry", "dx", "dwindow"),
)


class Call(ctypes.Structure):
    """The argument block `qb_call` of pool_cpu.h, field by field; null where not given."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in _NUMBERS),
        *((name, ctypes.c_void_p) for name in ("lengths", "rows", "t0")),
        ("seed", ctypes.c_uint64),
        *((name, ctypes.c_int64) for name in ("threshold", "layer", "stream")),
        ("expectation", ctypes.c_double),
        ("x", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("x_time", "x_batch")),
        *((name, ctypes.c_void_p) for name in ("window", "unfolded", "window_last")),
        *(
            (name, ctypes.c_int64 if name.endswith(("_time", "_batch")) else ctypes.c_void_p)
            for name in _POINTERS
        ),
    )


PerGate = ctypes.c_void_p * 4
"""One address per gate, null behind the last."""


class LayerCall(ctypes.Structure):
    """The argument block `qb_layer` of layer_c.h; it begins with a `Call`."""

    _fields_ = (
        ("call", Call),
        ("chunk", ctypes.c_int64),
        *(("weight", PerGate), ("weight_row", ctypes.c_int64)),
        *(("dweight", PerGate), ("dweight_row", ctypes.c_int64)),
        ("dbias", PerGate),
    )


class Kernels:
    """The functions of the object.

    Each takes `ctypes.byref(call)` and returns nothing; those of a whole layer take a `LayerCall`
    and return 0, or 1 where there is no memory left.
    """

    def __init__(self, path: Path) -> None:
        """Raises OSError or AttributeError where the file is no such object."""
        library = ctypes.CDLL(str(path))
        library.qb_abi.restype = ctypes.c_int64
        if library.qb_abi() != ABI * 4096 + ctypes.sizeof(LayerCall):
            raise OSError(f"{path} has another interface")
        self._library = library
        self.unfold = library.qb_unfold
        self.final_window = library.qb_final_window
        self.pool_forward = library.qb_pool_forward
        self.pool_backward = library.qb_pool_backward
        self.fold = library.qb_fold
        self.sum_bias = library.qb_sum_bias
        for function in (
            *(self.unfold, self.final_window, self.fold, self.sum_bias),
            *(self.pool_forward, self.pool_backward),
        ):
            function.restype = None
        self.layer_forward = library.qb_layer_forward
        self.layer_backward = library.qb_layer_backward
        for function in (self.layer_forward, self.layer_backward):
            function.restype = ctypes.c_int64
        if fork := _fork():
            library.qb_use_threads_of(fork)


def _openmp_paths() -> list[str]:
    """OpenMP runtimes that this process has loaded, torch's own first."""
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return []
    paths = {line.split(maxsplit=5)[5] for line in lines if line.count("/")}
    names = ("libgomp", "libiomp5", "libomp.")
    found = [path for path in paths if Path(path).name.startswith(names)]
    return sorted(found, key=lambda path: ("/torch/" not in path, path))


def _fork() -> ctypes.c_void_p | None:
    """Address of GOMP_parallel of a runtime in use, else of the system's; None: one thread."""
    for path in (*_openmp_paths(), "libgomp.so.1"):
        with contextlib.suppress(OSError, AttributeError):
            return ctypes.cast(ctypes.CDLL(path).GOMP_parallel, ctypes.c_void_p)
    return None


@cache
def kernels() -> Kernels:
    """The kernels, compiled on the first call on a machine (some seconds).

    Raises:
        CompilerMissing: they cannot be compiled here.
    """
    try:
        return Kernels(shared_object())
    except (OSError, AttributeError) as error:
        raise CompilerMissing(
            f"the compiled kernels cannot be loaded ({error}): empty the folder in "
            "QUASIBENCH_CACHE or ~/.cache/quasibench, or name another compiler in CXX"
        ) from error


@cache
def lacking() -> str | None:
    """One line on what to install where the kernels cannot be compiled, else None."""
    # Not loaded here: a framework that is imported later brings the threads to run on.
    try:
        shared_object()
    except CompilerMissing as error:
        return str(error)
    return None
