"""A run that is killed at random moments loses no finished sitting and measures none again."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from harness.config import parse
from harness.speed.grid import points

TOP = Path(__file__).resolve().parent.parent
FAKES = str(TOP / "tests" / "fakes")
PROFILE = """
[profile]
about = "small and quick"
budget = "60s"
overhead = "5s"
threads = 1
{contenders}

[[grid]]
kind = ["forward", "backward"]
batch = [1, 2]
steps = [2, 3]
input_size = 3
hidden_size = 4
"""
FAKE = 'baseline = "fake_good"\ncontenders = ["fake_good", "fake_slow"]'
KILLS = 5


def start(profile, out):
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TOP), FAKES])}
    command = [sys.executable, "-m", "harness", "speed", str(profile), "--out", str(out)]
    return subprocess.Popen(
        [*command, "--budget", "25s"], cwd=TOP, env=env,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def cells(out):
    file = out / "cells.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def test_killed_five_times_and_resumed_the_table_equals_the_plan(tmp_path):
    profile, out = tmp_path / "killed.toml", tmp_path / "run"
    profile.write_text(PROFILE.format(contenders=FAKE))
    chance, before = random.Random(7), b""
    for _ in range(KILLS):
        process, known = start(profile, out), len(cells(out))
        deadline = time.monotonic() + 40
        while len(cells(out)) == known and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.01)  # a moment within the next sitting, wherever that is
        time.sleep(chance.uniform(0.0, 0.6))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        after = (out / "cells.jsonl").read_bytes() if (out / "cells.jsonl").exists() else b""
        assert after.startswith(before), "a finished row was changed"
        before = after
    process = start(profile, out)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert (out / "cells.jsonl").read_bytes().startswith(before)
    rows = cells(out)
    assert len({row["cell_id"] for row in rows}) == len(rows), "a cell was measured twice"
    planned = {point.point_id for point in points(parse(PROFILE.format(contenders=""), "killed"))}
    assert {row["point_id"] for row in rows} == planned
    assert len(rows) == 3 * len(planned)  # two contenders and the control
    assert {row["status"] for row in rows} == {"ok"}
