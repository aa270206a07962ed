"""What the table of targets says of a run: met, missed, open or not measured, and why."""

import json
from itertools import product

import pytest

pytest.importorskip("seaborn")

from harness import plots, results, summary
from harness.config import load_profile
from harness.speed import reached
from harness.speed.grid import points
from harness.speed.targets import AIMS, GEMM, JAX_NATIVE, LAYER, LSTM, TARGETS, Target
from tests.recorded import floor
from tests.recorded.floor import COST, write_floor_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_floor_run(tmp_path_factory.mktemp("floor") / "run")


def load(folder):
    """Rows with all modes, samples and memory of a run."""
    rows = results.load(folder, parts=True)
    return rows, results.load_samples(folder), results.load_memory(folder)


@pytest.fixture
def tables(folder, tmp_path):
    def made(cost=COST, rounds=14):
        usual = (cost, rounds) == (COST, 14)
        return load(folder if usual else write_floor_run(tmp_path / "run", cost, rounds))

    return made


def lines(frame, rounds, targets=TARGETS):
    return reached.table(frame, rounds, targets).set_index("what")


def test_the_ratio_is_of_the_smallest_samples_with_the_paired_median_beside(tables):
    frame, rounds, _ = tables()
    found = reached.ratios(frame, rounds, LAYER, GEMM)
    assert len(found) == len(floor.points())
    assert found["ratio"].between(1.07, 1.09).all()
    assert ((found["lo"] <= found["median"]) & (found["median"] <= found["hi"])).all()
    assert (found["samples"] == 14).all()
    one = found.iloc[0]
    rows = frame[frame["point_id"] == one["point_id"]].set_index(["impl", "mode"])["min_ns"]
    assert one["ratio"] == rows[LAYER] / rows[GEMM]


def test_a_limit_is_met_or_missed_by_the_median_or_by_the_worst_cell(tables):
    frame, rounds, _ = tables()
    assert lines(frame, rounds)["verdict"].to_dict() == {
        "float32 forward / its GEMM alone": "met",
        "bfloat16 forward / its GEMM alone": "met",
        "float32 forward + backward / its three GEMMs": "met",
        "nn.LSTM / torch_native, bfloat16 forward": "missed",
        "nn.LSTM / torch_native, float32 forward + backward": "met",
        "torch_eager / torch_native, float32 forward": "met",
        "nn.LSTM / torch_native, default grid, float32": "met",
        "nn.LSTM / torch_native, default grid, bfloat16": "met",
        "nn.LSTM / torch_native, default grid, bfloat16 forward + backward": "met",
        "jax_native / torch_native, float32 forward": (
            "not measured: jax_native is no contender of this run"
        ),
        "jax_scan / jax_native, float32 forward": (
            "not measured: jax_native is no contender of this run"
        ),
    }
    slow = (frame["impl"] == "torch_native") & (frame["mode"] == "default")
    slow &= (frame["kind"] == "forward") & (frame["batch"] == 8) & (frame["steps"] == 128)
    frame.loc[slow, "min_ns"] *= 1.3
    worst = lines(frame, rounds).loc["float32 forward / its GEMM alone"]
    assert worst["verdict"].startswith("missed: worst 1.4")
    assert "(batch 8, steps 128)" in worst["reached"]


def test_another_contender_makes_its_lines_measured(tables):
    frame, rounds, _ = tables({**COST, JAX_NATIVE: 1.4})
    found = lines(frame, rounds)
    assert found.loc["jax_native / torch_native, float32 forward", "verdict"] == "met"
    assert found.loc["jax_scan / jax_native, float32 forward", "verdict"] == "met"


def test_what_lacks_cells_or_samples_is_open_and_never_met(tables):
    frame, rounds, _ = tables(rounds=11)
    found = lines(frame, rounds).loc["float32 forward / its GEMM alone"]
    assert found["verdict"] == "open"
    assert "only 11 samples" in found["remarks"]
    frame, rounds, _ = tables()
    blocks = frame.assign(n=5 * frame["rounds"], rounds=3)  # of five samples each
    found = lines(blocks, rounds).loc["float32 forward / its GEMM alone"]
    assert found["verdict"] == "open"
    assert "only 3 samples" in found["remarks"]
    found = lines(frame[frame["batch"] != 8], rounds).loc["float32 forward / its GEMM alone"]
    assert (found["verdict"], found["cells"]) == ("open", "4 of 6")
    assert "2 cells not measured" in found["remarks"]


def test_a_contender_that_failed_is_not_measured_with_its_reason(tables):
    frame, rounds, _ = tables()
    eager = frame["impl"] == "torch_eager"
    frame.loc[eager, ["status", "reason"]] = "missing", "torch not installed"
    found = lines(frame, rounds).loc["torch_eager / torch_native, float32 forward", "verdict"]
    assert found == "not measured: torch_eager is missing (torch not installed)"


def test_a_ceiling_below_the_limit_says_that_it_forbids_it(tables):
    frame, rounds, _ = tables()
    found = lines(frame, rounds)["remarks"]
    assert "smallest 3.00, which forbids 10" in found["nn.LSTM / torch_native, bfloat16 forward"]
    possible = found["nn.LSTM / torch_native, float32 forward + backward"]
    assert "ceiling" in possible
    assert "forbids" not in possible
    (aim,) = lines(frame, rounds, AIMS[-1:])["verdict"]
    assert aim == "missed: best 2.78"


def test_the_cost_of_a_step_is_flat_or_not(tables):
    frame, _, _ = tables()
    assert reached.flat_cost(frame)["verdict"] == "met"
    frame.loc[frame["steps"] == 8192, "min_ns"] *= 1.2
    found = reached.flat_cost(frame)
    assert found["verdict"] == "missed"
    assert "dearest at steps 8192" in found["reached"]
    assert reached.flat_cost(frame[frame["steps"] != 2048])["cells"] == "3 of 4"


def test_a_line_is_about_its_own_layer_only(tables):
    frame, rounds, _ = tables()
    others = ("kernel_width", 4), ("pooling", "ifo"), ("layers", 2), ("ragged", True), ("repeat", 1)
    for name, value in others:
        found = lines(frame.assign(**{name: value}), rounds)
        assert set(found["cells"].str.split().str[0]) == {"0"}


def test_every_cell_of_the_default_profile_is_compared_with_the_lstm():
    asked = {
        (p.kind, p.placement.dtype, p.batch, p.steps) for p in points(load_profile("default"), 1)
    }
    ours = [t.where for t in TARGETS if "default grid" in t.what]
    named = {
        cell
        for where in ours
        for cell in product(*(where[name] for name in ("kind", "dtype", "batch", "steps")))
    }
    assert named == asked
    measured = points(load_profile("floor"), 1)
    assert asked <= {(p.kind, p.placement.dtype, p.batch, p.steps) for p in measured}


def test_memory_that_grows_with_length_is_missed(tables):
    memory = tables()[2]
    assert reached.flat_memory(memory)["verdict"] == "met"
    grows = memory[memory["impl"] == "torch_eager"].assign(impl="torch_native")
    assert reached.flat_memory(grows)["verdict"] == "missed"
    assert reached.flat_memory(memory[memory["steps"] < 8192])["verdict"] == "open"
    dips = memory.assign(extra_bytes=memory["extra_bytes"].where(memory["steps"] != 512, 0))
    assert reached.flat_memory(dips)["verdict"] == "missed"
    none = memory.assign(extra_bytes=0)
    assert reached.flat_memory(none)["verdict"] == "met"
    assert reached.flat_memory(memory[:0])["verdict"].startswith("not measured")


def test_tables_of_whole_layers_see_no_part(folder):
    frame, plain = results.load(folder, parts=True), results.load(folder)
    assert set(plain["mode"]) == {"default"}
    assert set(frame["mode"]) == {"default", "gemm", "pooling"}
    assert set(summary.ranking(plain)[0]) == {"torch_native", "torch_eager", "jax_scan"}


def test_rows_from_before_there_were_modes_are_whole_layers(folder, tmp_path):
    old = [json.loads(line) for line in (folder / "cells.jsonl").read_text().splitlines()]
    old = [row for row in old if row.pop("mode") == "default"]
    (tmp_path / "cells.jsonl").write_text("".join(json.dumps(row) + "\n" for row in old))
    (tmp_path / "manifest.json").write_bytes((folder / "manifest.json").read_bytes())
    assert len(results.load(tmp_path)) == len(old)


VIEWS = {
    "reached": lambda *tables: plots.reached(*tables, {}),
    "rates": lambda frame, rounds, memory: plots.part_rates(frame, {}),
    "times": lambda frame, rounds, memory: plots.part_times(frame),
    "ratios": lambda frame, rounds, memory: plots.part_ratios(frame, rounds),
    "dots": lambda frame, rounds, memory: plots.part_dots(frame),
    "steps": lambda frame, rounds, memory: plots.step_costs(frame),
    "memory": lambda frame, rounds, memory: plots.memory(memory),
}


@pytest.mark.parametrize("view", VIEWS)
def test_a_run_that_lacks_something_is_shown(tables, view):
    frame, rounds, memory = tables()
    show = VIEWS[view]
    assert "nan" not in show(frame, rounds, memory).text
    for some in (
        frame[frame["mode"] == "default"],
        frame[(frame["mode"] != "pooling") & (frame["impl"] != "lstm_torch")],
        frame.assign(status="crash"),
        frame[:0],
    ):
        assert show(some, rounds[: len(rounds) // 2], memory[:0]).text


def test_cells_of_a_target_are_the_product_of_its_fields():
    one = Target("", LSTM, LAYER, {"batch": (1, 8), "steps": (2, 3, 4)}, {}, {"worst": 1})
    assert one.cells == 6
    assert one.limits == "worst at least 1"
