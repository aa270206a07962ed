"""Compiles the CPU kernels with the system's C++ compiler on first use, into a cached object.

An object's name holds a key (sources, flags, compiler, CPU) and a digest of its own content, so
that a half-written or damaged file is never loaded, and it appears under its name in one rename:
processes that build at once each leave a whole object.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

SOURCES = (
    *("pool_cpu.cpp", "forward_cpu.h", "backward_cpu.h", "blocks_cpu.h", "window_cpu.h"),
    *("parallel.h", "pool_cpu.h", "pool.h", "layer_c.h", "layer_cpu.h", "layer_backward_cpu.h"),
    *("layer_pass_cpu.h", "gemm_cpu.h", "packing_cpu.h", "arena_cpu.h"),
)
"""The first is compiled and includes the others."""
COMPILERS = ("c++", "g++", "clang++")
# No -ffast-math: the activations are written so that they vectorise without it, NaN has to pass
# through comparisons, and a link with it would make the whole process flush denormals to zero.
FLAGS = (
    *("-std=c++17", "-O3", "-fopenmp-simd", "-fno-math-errno", "-fno-trapping-math"),
    *("-ffp-contract=fast", "-fPIC", "-shared", "-fvisibility=hidden"),
)
# gcc's jump threading splits the clamps into paths that the vectoriser joins again by masks:
# without it pooling is 8 % faster. clang may not know the flag.
TUNINGS = (
    ("-march=native", "-mprefer-vector-width=512", "-fno-thread-jumps"),
    ("-march=native", "-mprefer-vector-width=512"),
    ("-march=native",),
    ("-mcpu=native",),
    (),
)
"""Tried in this order: not every compiler and CPU knows each of them."""
COMPILE_SECONDS = 300


class CompilerMissing(RuntimeError):
    """No object can be made here; one line says why and what to install."""


def find_compiler() -> list[str]:
    """The command of the C++ compiler: $CXX, else the first known one on the path.

    Raises:
        CompilerMissing: there is none.
    """
    named = shlex.split(os.environ.get("CXX", ""))
    if named:
        if shutil.which(named[0]) is None:
            raise CompilerMissing(
                f"CXX names {named[0]!r}, which is no program here: correct it, or unset it and "
                "install a C++ compiler, e.g. `apt-get install g++`"
            )
        return named
    for name in COMPILERS:
        if shutil.which(name):
            return [name]
    raise CompilerMissing(
        f"no C++ compiler found ({', '.join(COMPILERS)}): install one, e.g. `apt-get install g++`"
    )


def _answer(command: list[str], seconds: float) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=seconds)
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(command, 1, "", str(error))


def cpu_model() -> str:
    """What -march=native may depend on: the CPU's name and its instruction sets."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    wanted = ("model name", "flags", "Features", "CPU part")
    found = [line for line in lines if line.startswith(wanted)]
    return "\n".join([platform.machine(), *sorted(set(found))])


def key_of(compiler: list[str], sources: tuple[Path, ...]) -> str:
    """20 hexadecimal digits that change when another object has to be made.

    Raises:
        CompilerMissing: the compiler does not even say its version.
    """
    version = _answer([*compiler, "--version"], 30)
    if version.returncode:
        raise CompilerMissing(_broken(compiler, version))
    total = hashlib.sha256(repr((compiler, FLAGS, TUNINGS, cpu_model())).encode())
    total.update(version.stdout.encode())
    for path in sources:
        total.update(path.name.encode() + path.read_bytes())
    return total.hexdigest()[:20]


def _broken(compiler: list[str], answer: subprocess.CompletedProcess[str]) -> str:
    lines = (answer.stderr or answer.stdout or f"exit status {answer.returncode}").splitlines()
    errors = [line for line in lines if "error" in line] or lines
    return (
        f"the C++ compiler {' '.join(compiler)!r} does not work ({errors[0].strip():.160}): "
        "install another, e.g. `apt-get install g++`, or name one in CXX"
    )


def cache_folders() -> Iterator[Path]:
    """Where objects are looked for and kept, best first: QUASIBENCH_CACHE or ~/.cache, a temp one.

    Folders that cannot be made or belong to somebody else are left out.
    """
    given = os.environ.get("QUASIBENCH_CACHE")
    user = getattr(os, "getuid", lambda: 0)()
    first = Path(given) if given else Path.home() / ".cache" / "quasibench"
    for folder in (first, Path(tempfile.gettempdir()) / f"quasibench-{user}"):
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if getattr(folder.stat(), "st_uid", user) in (user, 0):
                yield folder
        except OSError:
            continue


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:20]


def _whole(folder: Path, key: str) -> Path | None:
    """An object for this key whose content is what its name says."""
    for path in sorted(folder.glob(f"kernels-{key}-*.so")):
        try:
            if path.stem.rpartition("-")[2] == _digest(path):
                return path
        except OSError:
            continue
    return None


def _compile(compiler: list[str], source: Path, out: Path, options: tuple[str, ...]) -> None:
    first: subprocess.CompletedProcess[str] | None = None
    for tuning in TUNINGS:
        command = [*compiler, *FLAGS, *tuning, *options, str(source), "-o", str(out)]
        done = _answer(command, COMPILE_SECONDS)
        if done.returncode == 0:
            return
        first = first or done
    assert first is not None
    raise CompilerMissing(_broken(compiler, first))


def _build_in(
    folder: Path, compiler: list[str], key: str, source: Path, options: tuple[str, ...]
) -> Path:
    """Compile into `folder`; OSError where it cannot be written."""
    handle, name = tempfile.mkstemp(prefix="building-", suffix=".so", dir=folder)
    os.close(handle)
    temporary = Path(name)
    try:
        _compile(compiler, source, temporary, options)
        path = folder / f"kernels-{key}-{_digest(temporary)}.so"
        os.replace(temporary, path)
        return path
    finally:
        temporary.unlink(missing_ok=True)


def shared_object(
    sources: tuple[str, ...] = SOURCES, include: Path | None = None, headers: tuple[str, ...] = ()
) -> Path:
    """Path of the compiled kernels, made now where no cache holds them (some seconds).

    Args:
        sources: files of this folder; the first is compiled and includes the others.
        include: a folder of somebody else's headers.
        headers: those of them whose content decides whether an object still fits.

    Raises:
        CompilerMissing: there is no compiler, it does not work, or no folder can be written.
    """
    here = Path(__file__).parent
    paths = tuple(here / name for name in sources)
    compiler = find_compiler()
    foreign = tuple(include / name for name in headers) if include else ()
    key = key_of(compiler, (*paths, *foreign))
    options = (f"-I{include}",) if include else ()
    folders = list(cache_folders())
    for folder in folders:
        if found := _whole(folder, key):
            return found
    for folder in folders:
        try:
            return _build_in(folder, compiler, key, paths[0], options)
        except OSError:
            continue  # read-only or full: the next one
    raise CompilerMissing(
        "no folder to keep compiled kernels in: set QUASIBENCH_CACHE to one that can be written"
    )
