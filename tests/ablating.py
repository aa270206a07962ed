"""Small ablations for the tests of the engine: a fake that learns at once, one real task."""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import impls
from harness.ablation import rows as ablation_rows
from harness.cli import main

FAKES = Path(__file__).parent / "net_fakes"
TOP = Path(__file__).parent.parent
FILE = """
[ablation]
about = "small and quick"
impl = "fake_net"
tasks = ["selective_copy"]
seeds = 2
controls = false
timeout = "{timeout}"
checkpoint = "{checkpoint}"
workers = {workers}
{more}

[baseline]
name = "k2"
layers = 2
hidden_size = 4
input_size = 4
steps = {steps}
learning_rate = 8e-3
"""
K1 = '[[changes]]\nname = "k1"\nkernel_width = 1\n'


def text(changes=K1, steps=40, timeout="20s", checkpoint="60s", workers=1, more=""):
    words = {"steps": steps, "timeout": timeout, "checkpoint": checkpoint, "workers": workers}
    return FILE.format(**words, more=more) + changes


def use_fakes(patch):
    """Put the fake's entry point on the path of this process and of its workers."""
    patch.syspath_prepend(str(FAKES))
    patch.setenv("PYTHONPATH", str(FAKES))
    patch.setattr(impls, "_foreign", functools.cache(impls._foreign.__wrapped__))
    ablation_rows.stale_key.cache_clear()


def ablate(file, out, *words):
    """The exit code of `quasibench ablate` in this process."""
    return main(["ablate", str(file), "--out", str(out), *words])


def start(file, out, *words, step_s=0.0):
    """`quasibench ablate` as a process of its own."""
    path = os.pathsep.join([str(TOP), str(FAKES)])
    env = {**os.environ, "PYTHONPATH": path, "FAKE_STEP_S": str(step_s)}
    command = [sys.executable, "-m", "harness", "ablate", str(file), "--out", str(out), *words]
    return subprocess.Popen(
        command, cwd=TOP, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def ended(process, seconds=60):
    """The exit code of a process, once it has ended, and what it said."""
    _, said = process.communicate(timeout=seconds)
    return process.returncode, said


def rows(out, name="ablation"):
    file = Path(out) / f"{name}.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def written(tmp_path, **given):
    """An ablation's file."""
    file = tmp_path / "small.toml"
    file.write_text(text(**given))
    return file
