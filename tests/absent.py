"""Run Python code in a process where chosen packages cannot be imported."""

import os
import subprocess
import sys
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
BLOCKER = """
import sys
class Blocker:
    def __init__(self, names): self.names = names
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {name!r} (blocked by the test)", name=name)
sys.meta_path.insert(0, Blocker(%r))
"""


def run_without(packages, code, timeout=280, **env):
    """Run `code` from the top of the checkout with `packages` blocked; returns the process."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", BLOCKER % (set(packages),) + code],
        cwd=TOP, env={**os.environ, **env}, capture_output=True, text=True, timeout=timeout,
        check=False,
    )  # fmt: skip


def command_without(packages, *words, **kwargs):
    """Run the command `quasibench` with `packages` blocked."""
    return run_without(
        packages, f"from harness.cli import main\nsys.exit(main({list(words)!r}))", **kwargs
    )
