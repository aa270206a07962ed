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
FAULTS = {1: "threads met at different barriers", 2: "written beyond the shared memory"}
SCALARS = {np.int32: ctypes.c_int32, np.uint32: ctypes.c_uint32, np.float32: ctypes.c_float}


@cache
def _folder():
    return tempfile.TemporaryDirectory(prefix="quasibench-shim-")


@cache
def compiled(expression, source):
    """The exported `run` of one kernel; compiled once per process."""
    digest = hashlib.sha256(f"{expression}{source}".encode()).hexdigest()[:16]
    folder = Path(_folder().name)
    text, built = folder / f"{digest}.cuh", folder / f"{digest}.so"
    text.write_text(source)
    options = ["-std=c++17", "-O1", "-fno-strict-aliasing", "-ffp-contract=off", "-w", "-shared"]
    command = [COMPILER, *options, "-fPIC", f"-I{HERE}", f'-DSOURCE="{text}"',
               f"-DEXPRESSION={expression}", "-o", str(built), str(HERE / "host.cpp")]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
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
