"""What torch.compile needs outside PyTorch: a C++ compiler that works, and Python's headers."""

from __future__ import annotations

import sysconfig
from pathlib import Path

from impls.kernels.build import CompilerMissing, find_compiler
from impls.kernels.native import lacking as kernels_lacking


def compiler() -> str:
    """The C++ compiler as torch.compile wants it: one program, called without further arguments.

    Raises:
        CompilerMissing: there is none, or CXX names more than a program.
    """
    command = find_compiler()
    if len(command) > 1:
        raise CompilerMissing(
            f"CXX = {' '.join(command)!r}: torch.compile takes one program without arguments; "
            "name only that in CXX"
        )
    return command[0]


def lacking() -> str | None:
    """One line on what to install where nothing can be compiled here, else None.

    That this project's own kernels compile (once, then cached) shows that the compiler works.
    """
    try:
        compiler()
    except CompilerMissing as error:
        return str(error)
    include = Path(sysconfig.get_paths()["include"])
    if not (include / "Python.h").exists():
        return (
            f"no Python.h in {include}, which torch.compile includes: install Python's headers, "
            "e.g. `apt-get install python3-dev`"
        )
    return kernels_lacking()
