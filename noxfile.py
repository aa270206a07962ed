# /// script
# requires-python = ">=3.11"
# dependencies = ["nox[uv]>=2025.2"]
# ///
"""Every task of the project: `python3 noxfile.py -s bench` and `-s tests` work on a bare Python.

Where nox is installed, `nox -s ...` is the same. All sessions share one environment, `.nox/env`.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
NOX = "nox[uv]>=2025.2"


def _bootstrap() -> None:
    """Install nox into `.nox/_boot` and run this file again with that interpreter."""
    boot = HERE / ".nox" / "_boot"
    python = boot / ("Scripts" if os.name == "nt" else "bin") / "python"
    if sys.version_info < (3, 11):  # noqa: UP036 - this file is run before anything is checked
        sys.exit(f"quasibench needs Python 3.11 or newer, this is {sys.version.split()[0]}")
    ready = python.exists() and not subprocess.run([python, "-c", "import nox"]).returncode
    if not ready:
        print("setting up nox in .nox/_boot (once)", flush=True)
        if subprocess.run([sys.executable, "-m", "venv", "--clear", boot]).returncode:
            sys.exit("Python has no venv module: install it (Debian: apt install python3-venv)")
        install = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", NOX]
        if subprocess.run(install).returncode:
            shutil.rmtree(boot)
            sys.exit(f"could not install {NOX}: see pip's message above")
    sys.exit(subprocess.run([python, __file__, *sys.argv[1:]], cwd=HERE).returncode)


try:
    import nox
except ModuleNotFoundError:
    if __name__ != "__main__":
        raise
    _bootstrap()

nox.needs_version = ">=2025.2"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_existing_virtualenvs = True
nox.options.sessions = ["tests"]

ENV = HERE / ".nox" / "env"
PYTHON = str(ENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))
TORCH_CPU = "torch==2.13.0+cpu"
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
JUPYTER = {"JUPYTER_PATH": "", "JUPYTER_PREFER_ENV_PATH": "1", "MPLBACKEND": "agg"}


def _accelerator() -> str:
    """`cuda13` or `cpu`: from QUASIBENCH_ACCELERATOR, else whether nvidia-smi answers."""
    if chosen := os.environ.get("QUASIBENCH_ACCELERATOR"):
        if chosen not in ("cpu", "cuda13"):
            sys.exit(f"QUASIBENCH_ACCELERATOR={chosen!r}: allowed are cpu, cuda13")
        return chosen
    smi = shutil.which("nvidia-smi")
    found = smi and not subprocess.run([smi, "-L"], capture_output=True).returncode
    return "cuda13" if found else "cpu"


@nox.session(default=False)
def env(session: nox.Session) -> None:
    """Make the environment that all other sessions share (skipped while nothing changed)."""
    accelerator = _accelerator()
    sources = [HERE / name for name in ("pyproject.toml", "constraints.txt", "noxfile.py")]
    digest = hashlib.sha256(b"".join(p.read_bytes() for p in sources) + accelerator.encode())
    stamp = ENV / "quasibench.stamp"
    if stamp.exists() and stamp.read_text() == digest.hexdigest():
        return
    if "PIP_FIND_LINKS" in os.environ:  # uv does not read pip's own variable
        os.environ.setdefault("UV_FIND_LINKS", os.environ["PIP_FIND_LINKS"])
    pins = ("-c", str(HERE / "constraints.txt"))
    extras = ["jax", "report", "tasks"]
    if accelerator == "cuda13":
        extras += ["torch", "cuda13"]
    elif sys.platform == "darwin":  # macOS wheels are CPU builds without the local label
        extras += ["torch"]
    else:
        _torch_cpu(session, pins)
        extras += ["torch"]
    session.install(*pins, "-e", f".[{','.join(extras)}]", *_group(session, "test", "lint"))
    if shutil.which(os.environ.get("CXX", "c++")) is None:
        session.warn("no C++ compiler found: going on without the native kernels")
    stamp.write_text(digest.hexdigest())


def _group(session: nox.Session, *names: str) -> list[str]:
    """Requirements of dependency groups (pip older than 25.1 has no --group)."""
    return nox.project.dependency_groups(nox.project.load_toml("pyproject.toml"), *names)


def _torch_cpu(session: nox.Session, pins: tuple[str, str]) -> None:
    """Install the CPU build of torch: from the user's own sources, else from PyTorch's index.

    Plain `torch` would pull gigabytes of CUDA. The index is never a default one: where it cannot
    be reached, every package would wait for its retries.
    """
    try:
        session.install(*pins, TORCH_CPU, silent=True)
        return
    except nox.command.CommandFailed:
        session.log(f"{TORCH_CPU} is not in the configured package sources; asking PyTorch's index")
    session.install(TORCH_CPU, "--no-deps", "--index-url", TORCH_CPU_INDEX)


def _run(session: nox.Session, *args: str, **env_more: str) -> None:
    session.run(PYTHON, *args, external=True, env={**JUPYTER, **env_more})


shared = nox.session(venv_backend="none", requires=["env"])


@shared
def tests(session: nox.Session) -> None:
    """Prove it: the test suite without the slow products (-- pytest options)."""
    _run(session, "-m", "pytest", "-n", "2", "--dist", "worksteal", "-m", "not slow",
         *session.posargs)  # fmt: skip


@shared
def bench(session: nox.Session) -> None:
    """Measure it: gates, speed grid, quick ablation, reports (-- --profile NAME --budget 2h)."""
    _run(session, "-m", "harness", "run", *session.posargs)


@shared
def ablate(session: nox.Session) -> None:
    """Train it: an ablation with its page, resumable (-- --profile claim)."""
    _run(session, "-m", "harness", "ablate", *session.posargs)


@shared
def report(session: nox.Session) -> None:
    """Render the recorded run again (-- NAME)."""
    _run(session, "-m", "harness", "report", *session.posargs)


@shared
def conformance(session: nox.Session) -> None:
    """The full product of conformance checks, and everything else that is slow."""
    _run(session, "-m", "pytest", "-n", "2", "-m", "slow", "--timeout=3600",
         *session.posargs, XLA_FLAGS=os.environ.get("XLA_FLAGS", ""))  # fmt: skip


@shared
def microbench(session: nox.Session) -> None:
    """pytest-benchmark on single calls (-- --benchmark-compare ...)."""
    _run(session, "-m", "pytest", "-p", "no:xdist", "--benchmark-enable", "--benchmark-only",
         "--benchmark-storage=.benchmarks", "tests/microbench", *session.posargs)  # fmt: skip


@shared
def lint(session: nox.Session) -> None:
    """Ruff: format and rules (-- --fix)."""
    _run(session, "-m", "ruff", "check", *session.posargs)
    _run(session, "-m", "ruff", "format", *([] if "--fix" in session.posargs else ["--check"]))


@shared
def types(session: nox.Session) -> None:
    """Mypy, strict, on everything that is imported."""
    _run(session, "-m", "mypy", *session.posargs)


if __name__ == "__main__":
    os.chdir(HERE)
    nox.main()
