"""A run that is stopped goes on where it was, and only from checkpoints of its own."""

import signal
import sys
import time

import pytest

from harness import report
from harness.ablation import checkpoint, plan
from harness.ablation.config import load_ablation
from harness.speed.grid import PROTOCOL_VERSION
from harness.store import RunFolder
from tests.ablating import K1, ablate, ended, rows, start, use_fakes, written

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="stops workers by Linux signals")


@pytest.fixture(autouse=True)
def _fakes(monkeypatch):
    use_fakes(monkeypatch)
    monkeypatch.setattr(report, "lacking", lambda: "a test that is in no hurry")


def wait_for(there, seconds=40):
    deadline = time.monotonic() + seconds
    while not there() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert there()


def test_ctrl_c_ends_with_130_and_the_next_call_ends_as_if_nothing_had_happened(tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    file = written(tmp_path, checkpoint="0.2s", steps=60)
    assert ablate(file, whole) == 0
    process = start(file, cut, step_s=0.05)
    wait_for(lambda: list((cut / "checkpoints").glob("*.safetensors")))
    process.send_signal(signal.SIGINT)
    assert ended(process)[0] == 130
    assert {row["status"] for row in rows(cut)} == {"interrupted"}
    assert ablate(file, cut) == 0
    assert results(cut) == results(whole)


def results(out):
    """What a training's end is, by training."""
    kept = ("metric", "validation", "auc", "train_loss", "params_sha256", "steps_done", "status")
    return {row["row_key"]: [row[name] for name in kept] for row in rows(out)}


def test_kill_9_loses_no_row_and_trains_nothing_twice(tmp_path):
    file, out = written(tmp_path, changes=K1, checkpoint="0.2s", steps=50), tmp_path / "run"
    process = start(file, out, step_s=0.02)
    wait_for(lambda: rows(out))
    time.sleep(0.3)
    process.kill()
    process.communicate()
    before = rows(out)
    assert ablate(file, out) == 0
    assert rows(out)[: len(before)] == before
    keys = [row["row_key"] for row in rows(out)]
    assert len(set(keys)) == len(keys) == 4


def test_a_checkpoint_of_another_training_is_one_line_and_exit_code_2(tmp_path, capsys):
    file, out = written(tmp_path), tmp_path / "run"
    first, second = plan.build(load_ablation(str(file))).cells[0].open_runs({})
    at = out / "checkpoints" / f"{first.row_key}.safetensors"
    assert ablate(file, out, "--dry-run") == 0
    RunFolder.open(out, "ablation-small", PROTOCOL_VERSION).close()
    checkpoint.save(at, second.identity(), {"stale_key": "s"}, {})
    assert ablate(file, out) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "a checkpoint of another training, its seed is 1, this one's 0" in said
    assert str(at) in said
    assert rows(out) == []


@pytest.mark.parametrize("damaged", [True, False])
def test_every_checkpoint_is_looked_at_before_the_first_training(tmp_path, capsys, damaged):
    file, out = written(tmp_path), tmp_path / "run"
    cells = plan.build(load_ablation(str(file))).cells
    last = cells[-1].open_runs({})[-1]
    RunFolder.open(out, "ablation-small", PROTOCOL_VERSION).close()
    at = out / "checkpoints" / f"{last.row_key}.safetensors"
    if damaged:  # one that the last training would go on with
        at.parent.mkdir()
        at.write_bytes(b"torn")
    else:  # one of a training that is not planned now, under a name that is not its own
        checkpoint.save(at.with_stem("0" * 16), last.identity(), {"stale_key": "s"}, {})
    assert ablate(file, out) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert ("not a checkpoint" if damaged else "than its name says") in said
    assert rows(out) == [], "something was trained before"
