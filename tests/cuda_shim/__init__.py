"""Runs the CUDA kernels on the CPU: compiled by g++ over `shim.h`, called like a launch."""

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import numpy as np

from impls.kernels import cuda

HERE = Path(__file__).parent
COMPILER = shutil.which(os.environ.get("CXX", "c++"))
KEPT = HERE.parents[1] / ".pytest_cache" / "cuda_shim"
OPTIONS = (
    "-std=c++17",
    "-O1",
    "-fno-strict-aliasing",
    "-ffp-contract=off",
    "-w",
    "-shared",
    "-fPIC",
)
FAULTS = {1: "threads met at different barriers", 2: "written beyond the shared memory"}
SCALARS = {np.int32: ctypes.c_int32, np.uint32: ctypes.c_uint32, np.float32: ctypes.c_float}


@cache
def compiled(expression, source):
    """The exported `run` of one kernel; the shared object is kept for later test runs."""
    parts = [expression, source, *((HERE / name).read_text() for name in ("host.cpp", "shim.h"))]
    digest = hashlib.sha256("\0".join((*parts, *OPTIONS, COMPILER)).encode()).hexdigest()[:20]
    built = KEPT / f"{digest}.so"
    if not built.exists():
        KEPT.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=KEPT) as folder:
            text, new = Path(folder) / "source.cuh", Path(folder) / "new.so"
            text.write_text(source)
            command = [COMPILER, *OPTIONS, f"-I{HERE}", f'-DSOURCE="{text}"',
                       f"-DEXPRESSION={expression}", "-o", new, HERE / "host.cpp"]  # fmt: skip
            done = subprocess.run(command, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr[-3000:]
            os.replace(new, built)  # at once: another process may be looking for it
    library = ctypes.CDLL(str(built))
    function = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.c_void_p.in_dll(library, "run").value)
    return function, library


def launch(kernel, blocks, args, device=None, source=None):
    """Stands in for `impls.torch_cupy.launch.launch`; a fault of the shim raises."""
    function, _ = compiled(kernel.expression, source or cuda.source())
    given = [SCALARS.get(type(value), ctypes.c_int64)(value) for value in args]
    sizes = (blocks, kernel.threads, kernel.shared_bytes)
    fault = function(*map(ctypes.c_int, sizes), *given)
    if fault:
        raise RuntimeError(FAULTS[fault])
