"""What a CUDA run must reach: judged by its rows, never where there are none."""

from dataclasses import replace

import pandas as pd
import pytest

from harness import results
from harness.config import load_profile
from harness.errors import UsageError
from harness.floors import Ceilings
from harness.speed.device_targets import table
from harness.speed.plan import build
from tests.measuring import profile
from tests.planning import card, use_cards
from tests.recorded import CEILINGS
from tests.recorded.floor import REPLAYS, write_floor_run

LARGE = {"kind": "forward", "dtype": "bfloat16", "batch": 64, "steps": 512}
PLACES = [LARGE, {**LARGE, "batch": 256}, {**LARGE, "batch": 8, "steps": 32}]
PLACES += [{**LARGE, "dtype": "float32", "batch": 8, "steps": steps} for steps in (32, 512)]
COPY = CEILINGS["copy_bytes"]


@pytest.fixture
def cards(monkeypatch):
    return use_cards(monkeypatch)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_floor_run(tmp_path_factory.mktemp("device") / "run", REPLAYS, places=PLACES)


@pytest.fixture
def frame(folder):
    return results.load(folder, parts=True)


def test_pooling_is_judged_by_its_bandwidth_where_it_moves_64_mb_and_more(frame):
    line = table(frame, COPY).iloc[0]
    assert (line["verdict"], line["cells"]) == ("met", "2")
    small = (frame["mode"] == "pooling") & (frame["bytes"] < 64e6)
    assert small.sum() == 3
    frame.loc[small, "min_ns"] *= 100
    assert table(frame, COPY).iloc[0]["verdict"] == "met"
    slow = frame["mode"].eq("pooling") & frame["batch"].eq(256)
    frame.loc[slow, "min_ns"] *= 2
    assert table(frame, COPY).iloc[0]["verdict"] == "missed"
    assert table(frame, None).iloc[0]["verdict"].startswith("not measured")


def test_the_layer_is_judged_by_its_replay_at_many_tokens_in_bfloat16(frame):
    assert tuple(table(frame, COPY).iloc[1][["verdict", "cells"]]) == ("met", "2")
    called = frame["contender"] == "torch_cupy"
    frame.loc[called, "min_ns"] *= 1e3
    assert table(frame, COPY).iloc[1]["verdict"] == "met"
    frame.loc[frame["contender"] == "torch_cupy:graph", "min_ns"] *= 1e3
    assert table(frame, COPY).iloc[1]["verdict"] == "missed"


def test_every_cell_of_the_paper_counts_replay_against_replay(frame):
    line = table(frame, COPY).iloc[2]
    assert line["verdict"] == "missed"  # 4.0 in both, the paper has 16.9 at 8 x 512
    assert line["cells"] == "2 of 30"
    assert "4.00 [3.96, 4.04] where the paper has 16.9" in line["medians"]
    fast = frame.assign(speedup=frame["speedup"] * 10)
    assert table(fast, COPY).iloc[2]["verdict"] == "open", "28 cells were not measured"
    eager = frame[frame["mode"] != "graph"]
    assert table(eager, COPY).iloc[2]["verdict"].startswith("not measured")


def test_few_samples_leave_a_line_open(frame):
    few = table(frame.assign(n=5), COPY)
    assert list(few["verdict"]) == ["open", "open", "missed"]
    assert "only 5 samples" in few.iloc[0]["remarks"]


def test_a_run_without_them_claims_nothing(frame):
    for some in (frame[:0], frame[frame["impl"] == "lstm_torch"], frame.assign(status="crash")):
        assert table(some, COPY)["verdict"].str.startswith("not measured").all()


def test_the_page_shows_the_bandwidth_of_pooling_beside_a_copys(frame, folder):
    pytest.importorskip("seaborn")
    from harness import plots

    manifest = results.load_manifest(folder)
    told = plots.reached(frame, pd.DataFrame(), pd.DataFrame(), manifest).text
    assert "Of 3 lines: 2 met, 1 missed." in told
    shown = plots.part_rates(frame, manifest).text
    assert "A copy moves 12.0 GB/s" in shown
    row = frame[(frame["mode"] == "pooling") & (frame["batch"] == 256)].iloc[0]
    rate = row["bytes"] / row["min_ns"]
    assert f">{rate:.1f}<" in shown
    assert f">{100 * rate * 1e9 / COPY:.0f}<" in shown
    assert "replayed layer × floor" in shown
    assert "nan" not in shown


def test_parts_are_timed_only_at_points_of_so_many_tokens(cards):
    cards["fast"] = replace(card("fast"), parts={"pooling": None})
    grid = {"kind": ["forward"], "batch": [1, 8], "steps": [4]}
    used = profile(parts=("pooling",), parts_from=32, grids=(grid,), overhead_s=1.0)
    plan = build(used, [], Ceilings.nominal())
    names = {s.point.batch: [c.name for c in s.contenders] for s in plan.sittings}
    assert "fast:pooling" not in names[1]
    assert "fast:pooling" in names[8]


def test_a_profile_says_from_how_many_tokens_on(tmp_path):
    assert load_profile("cuda").parts_from == 32768
    text = '[profile]\nbudget = "9s"\nparts_from = 0\n[[grid]]\nkind = "forward"\n'
    (tmp_path / "mine.toml").write_text(text + "batch = 1\nsteps = 1\n")
    with pytest.raises(UsageError, match="parts_from = 0"):
        load_profile(str(tmp_path / "mine.toml"))
