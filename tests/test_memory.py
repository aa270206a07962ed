"""Memory of a call: what it touches is seen, its output is not counted, each row is made once."""

import sys

import numpy as np
import pytest

from harness import peak, pipeline
from harness.config import load_profile
from harness.errors import UsageError
from harness.speed import memory
from harness.speed.grid import PROTOCOL_VERSION
from harness.stop import Stop
from harness.store import RunFolder
from impls.contract import ModelSpec, Placement
from tests.measuring import point, profile, use_fakes

MEBI = 2**20
MINE = """
[profile]
budget = "9m"
max_rounds = 9
threads = 1
baseline = "fake_good"
contenders = ["fake_good"]
[[grid]]
kind = "forward"
batch = 1
steps = 1
[[memory]]
kind = "forward"
batch = [1, 2]
steps = 2
"""
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


class Run:
    """Writes `scratch` bytes that it frees and returns `kept` bytes."""

    def __init__(self, kept, scratch):
        self.kept, self.scratch = kept, scratch

    def __call__(self):
        self.out = np.ones(self.kept, np.uint8)
        np.ones(self.scratch, np.uint8)

    def wait(self):
        pass


class Session:
    """Its scratch grows with the steps; its output is y."""

    def __init__(self, batch, hidden, factor):
        self.y, self.factor = batch * hidden * 4, factor

    def prepare(self, work):
        kept = self.y * len(work.x)
        return Run(kept, int(self.factor * kept))


def test_the_peak_of_a_call_is_what_it_touches_at_once():
    np.ones(90 * MEBI, np.uint8)  # an earlier peak does not count
    found = peak.peak(Run(16 * MEBI, 32 * MEBI))
    assert 47 * MEBI <= found < 54 * MEBI


@pytest.mark.parametrize("factor", [0.0, 1.0, 3.0])
def test_extra_memory_is_beyond_the_output(factor):
    spec = ModelSpec(input_size=8, hidden_size=4096)
    at = point(spec=spec, placement=Placement(), batch=4, steps=256)
    found = peak.measure(Session(4, 4096, factor), spec, at, 100, 1)
    y = 256 * 4 * 4096 * 4
    assert found["output_bytes"] == pytest.approx(y, rel=0.01)
    assert found["extra_bytes"] == pytest.approx(factor * y, abs=3 * MEBI)
    assert found["extra_bytes"] == max(0, found["peak_bytes"] - found["output_bytes"])
    assert "clear_refs" in found["mem_method"]


def test_every_contender_gets_a_row_once(tmp_path, monkeypatch):
    use_fakes(monkeypatch)
    grid = {"kind": ["forward"], "batch": [2], "steps": [9], "input_size": [4], "hidden_size": [4]}
    names = ("fake_good", "fake_abort", "fake_refuses")
    used = profile(contenders=names, memory=(grid,), parts=("gemm",))
    with RunFolder.open(tmp_path / "run", "test", PROTOCOL_VERSION) as folder, Stop() as stop:
        todo = memory.open_of(used, [])
        made = list(memory.measure(todo, 1, folder.logs, stop))
        folder.append_memory(made)
    assert memory.seconds(todo) == 2 * memory.PROCESS_S
    assert [one.row["impl"] for one in memory.open_of(used, made)] == ["fake_abort"]
    found = {row["impl"]: row for row in made}
    assert {name: found[name]["status"] for name in names} == {
        "fake_good": "ok", "fake_abort": "crash", "fake_refuses": "unsupported",
    }  # fmt: skip
    assert found["fake_good"]["record"] == "memory"
    assert found["fake_good"]["extra_bytes"] >= 0
    pytest.importorskip("pandas")
    from harness import results

    frame = results.load_memory(tmp_path / "run")
    assert sorted(frame["impl"]) == sorted(names)
    assert results.load(tmp_path / "run").empty, "memory rows are no speed rows"


def test_a_figure_that_was_missing_is_open_again_once_it_can_be_measured(monkeypatch):
    use_fakes(monkeypatch)
    grid = {"kind": ["forward"], "batch": [2], "steps": [9], "input_size": [4], "hidden_size": [4]}
    used = profile(contenders=("fake_good", "fake_absent"), memory=(grid,))
    whole, absent = memory.open_of(used, [])
    assert absent.hindrance[0] == "missing"
    rows = [one.row | {"status": "missing"} for one in (whole, absent)]
    assert memory.open_of(used, rows) == [whole], "what is still missing has its row"
    assert memory.open_of(used, [*rows, whole.row | {"status": "ok"}]) == []


def test_the_plan_counts_the_seconds_of_the_memory_figures(tmp_path, monkeypatch, capsys):
    use_fakes(monkeypatch)
    (tmp_path / "mine.toml").write_text(MINE)
    (tmp_path / "less.toml").write_text(MINE.partition("[[memory]]")[0])
    estimates = []
    monkeypatch.setattr(
        pipeline, "_print_summary", lambda _, plan: estimates.append(plan.estimate_s)
    )
    for name in ("mine", "less"):
        pipeline.show_plan(str(tmp_path / f"{name}.toml"), tmp_path / "none", None, [])
    assert estimates[0] - estimates[1] == pytest.approx(2 * memory.PROCESS_S)


def test_memory_figures_beside_a_hard_end_are_refused_in_one_line(tmp_path, monkeypatch):
    use_fakes(monkeypatch)
    (tmp_path / "mine.toml").write_text(MINE.replace("[profile]", '[profile]\ndrop = "last"'))
    with pytest.raises(UsageError, match="no time is kept for it where drop") as caught:
        load_profile(str(tmp_path / "mine.toml"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ('[memory]\nkind = "forward"\nbatch = 1\nsteps = 2', "two brackets"),
        ('[[memory]]\nkind = "backward"\nbatch = 1\nsteps = 2', "kind = "),
        ('[[memory]]\nkind = "forward"\nbatch = 1', "no `steps`"),
    ],
)
def test_a_mistake_in_a_memory_table_is_one_line(tmp_path, table, words):
    head = '[profile]\nbudget = "9s"\n[[grid]]\nkind = "forward"\nbatch = 1\nsteps = 1\n'
    (tmp_path / "mine.toml").write_text(head + table)
    with pytest.raises(UsageError, match=r"mine\.toml: .*memory") as caught:
        load_profile(str(tmp_path / "mine.toml"))
    assert words in str(caught.value)
