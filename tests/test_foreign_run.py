"""Implementations from outside are gated, timed and reported like this project's own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness import results

TOP = Path(__file__).resolve().parent.parent
PROFILE = """
[profile]
budget = "120s"
threads = 1
baseline = "numpy_qrnn"
contenders = ["minigru", "numpy_qrnn"]
target_halfwidth = 0.2

[[grid]]
kind = ["forward", "backward"]
batch = 2
steps = 8
input_size = 16
hidden_size = 16
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    pytest.importorskip("torch")
    pytest.importorskip("papermill")
    place = tmp_path_factory.mktemp("foreign")
    (place / "foreign.toml").write_text(PROFILE)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TOP), str(TOP / "tests/foreign")])}
    words = ["run", place / "foreign.toml", "--out", place / "run", "--html", place / "html"]
    done = subprocess.run(
        [sys.executable, "-m", "harness", *map(str, words)],
        cwd=TOP, env=env, capture_output=True, text=True, timeout=250, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return place


def test_both_pass_their_gates_and_are_timed(run):
    rows = results.load(run / "run")
    forward = rows[(rows["kind"] == "forward") & ~rows["twin"]].set_index("impl")
    assert (forward["status"] == "ok").all()
    assert (forward["median_ns"] > 0).all()
    assert set(forward["family"]) == {"qrnn", "minigru"}
    assert forward.loc["minigru", "gate_worst"].startswith("no oracle")
    assert forward.loc["numpy_qrnn", "gate_error"] < 2e-6


def test_a_kind_that_one_lacks_is_a_row_with_its_reason(run):
    rows = results.load(run / "run")
    backward = rows[(rows["kind"] == "backward") & ~rows["twin"]].set_index("impl")
    assert backward.loc["minigru", "status"] == "ok"
    assert backward.loc["numpy_qrnn", "status"] == "unsupported"
    assert "no gradients" in backward.loc["numpy_qrnn", "reason"]


def test_both_are_checked_and_stand_in_the_pages(run):
    checks = results.load_equivalence(run / "run")
    assert set(checks["impl"]) == {"minigru", "numpy_qrnn"}
    assert not (checks["status"] == "failed").any()
    for page in ("speed", "equivalence"):
        html = (run / "html" / f"{page}.html").read_text()
        assert "minigru" in html
        assert "numpy_qrnn" in html
