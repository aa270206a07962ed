"""CUDA-graph replays on the pages: contenders of their own, beside those called one by one."""

import pytest

from harness import facts, results, summary
from tests.recorded.floor import FEW, REPLAYS, write_floor_run

WHOLE = {"lstm_torch", "lstm_torch:graph", "torch_cupy", "torch_cupy:graph", "jax_cupy"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_floor_run(tmp_path_factory.mktemp("replays") / "run", REPLAYS, places=FEW)


@pytest.fixture
def frame(folder):
    return results.load(folder)


def test_both_modes_are_loaded_as_contenders_of_their_own_and_no_part_is(frame, folder):
    assert set(frame["contender"]) == WHOLE
    assert not frame.duplicated(["point_id", "contender"]).any()
    parts = {"torch_cupy:gemm", "torch_cupy:pooling"}
    assert set(results.load(folder, parts=True)["contender"]) == WHOLE | parts


def test_the_yardstick_of_a_replay_is_the_lstms_replay(frame):
    pairs = set(zip(frame["contender"], frame["yardstick"], strict=True))
    assert pairs == {
        ("lstm_torch", "lstm_torch"),
        ("torch_cupy", "lstm_torch"),
        ("jax_cupy", "lstm_torch"),
        ("lstm_torch:graph", "lstm_torch:graph"),
        ("torch_cupy:graph", "lstm_torch:graph"),
    }


def test_the_verdict_tells_replays_first_and_mixes_no_yardsticks(frame):
    told = summary.verdict(frame)
    first = next(n for n, words in enumerate(told) if words.startswith("CUDA-graph replays"))
    then = next(n for n, words in enumerate(told) if words.startswith("Called one by one"))
    assert first == 0
    assert "Fastest overall: torch_cupy:graph, 4.00" in told[first]
    assert "jax_cupy" not in told[first]
    assert "Fastest overall: jax_cupy, 3.75" in told[then]
    assert "then torch_cupy 2.00" in told[then]
    (beside,) = (words for words in told if words.startswith("Without a replay"))
    assert "jax_cupy 2.50" in beside
    assert "torch_cupy" not in beside


def test_a_part_never_enters_a_geometric_mean(folder):
    rows = results.load(folder, parts=True)
    parts = rows["mode"].isin(["gemm", "pooling"])
    rows.loc[parts, ["speedup", "speedup_lo", "speedup_hi"]] = 99.0  # as no row has it
    means, points = summary.ranking(rows[rows["mode"] != "graph"])
    assert set(means) == {"jax_cupy", "torch_cupy"}
    assert points == len(FEW)
    assert not any(":gemm" in words or "99" in words for words in summary.verdict(rows))


def test_a_run_without_replays_says_nothing_of_them(folder):
    plain = results.load(folder)
    plain = plain[plain["mode"] == "default"].assign(graph_speedup=float("nan"))
    told = " ".join(summary.verdict(plain))
    assert "replay" not in told
    assert told.startswith("Fastest overall: jax_cupy")


def test_a_replay_that_ran_nowhere_is_named(frame):
    frame.loc[frame["contender"] == "torch_cupy:graph", "status"] = "crash"
    assert "ran nowhere: torch_cupy:graph (crash)." in summary.verdict(frame)[-1]


def test_each_mode_of_a_sitting_has_a_control_of_its_own(frame):
    assert facts.control(frame).sittings == 2 * len(FEW)
    loud = frame["mode"] == "graph"
    frame.loc[loud, "control_lo"] = 1.005
    assert facts.control(frame).wrong == len(FEW)


def test_every_view_shows_both(frame, folder, tmp_path):
    pytest.importorskip("seaborn")
    from harness import plots
    from harness.plots.picture import picture

    shown = plots.cells(frame).text
    assert "to the LSTM&#x27;s replay" in shown
    assert shown.count("yardstick</td>") == 2 * len(FEW)
    views = [
        shown,
        plots.speedup_maps(frame).text,
        plots.floor(frame).text,
        plots.times(frame).text,
        plots.samples(frame, results.load_samples(folder)).text,
        plots.gate(frame.assign(gate_error=1e-7, gate_tolerance=2e-6, gate_worst="y")).text,
    ]
    for text in views:
        assert "torch_cupy:graph" in text
        assert "torch_cupy:gemm" not in text
        assert "nan" not in text
    assert "Speedup of lstm_torch" not in views[1], "a yardstick has no map"
    paper = plots.paper(frame, results.PAPER_SPEEDUPS).text
    assert "fastest QRNN, graph replays" in paper
    assert "jax_cupy" not in paper
    picture(frame, tmp_path / "both.png")
    assert (tmp_path / "both.png").stat().st_size > 10_000
