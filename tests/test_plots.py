"""What the pages show of runs that are not the usual ones."""

import json

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("seaborn")

from PIL import Image

from harness import plots, results, summary
from harness.plots.picture import picture
from tests.recorded import IMPLS, write_run

FRAME_VIEWS = {
    "verdict": plots.verdict,
    "speedup_maps": plots.speedup_maps,
    "paper": lambda frame: plots.paper(frame, results.PAPER_SPEEDUPS),
    "floor": plots.floor,
    "cells": plots.cells,
    "times": plots.times,
    "failures": plots.failures,
    "gate": plots.gate,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("plots") / "run", (1, 8), (32, 512), 8, repeats=2)


@pytest.fixture
def frame(folder):
    return results.load(folder)


def _fail(frame, chosen, status):
    """The frame as if the chosen rows had ended with `status`."""
    known = [c for c in frame if c.endswith("_ns") or c.startswith(("speedup", "control", "x_of"))]
    frame = frame.copy()
    frame.loc[chosen, [*known, "verdict", "baseline", "tokens_per_s", "tflops"]] = None
    frame.loc[chosen, "status"] = status
    return frame


@pytest.mark.parametrize("name", FRAME_VIEWS)
@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_a_run_without_a_framework_is_shown(frame, name, framework):
    shown = FRAME_VIEWS[name](_fail(frame, frame["framework"] == framework, "missing"))
    assert "nan" not in shown.text.lower().replace("nanosecond", "")


@pytest.mark.parametrize("name", FRAME_VIEWS)
@pytest.mark.parametrize("status", ["crash", "missing"])
def test_a_run_in_which_nothing_was_timed_is_shown(frame, name, status):
    assert FRAME_VIEWS[name](_fail(frame, frame["status"] == "ok", status)).text


@pytest.mark.parametrize("name", FRAME_VIEWS)
def test_an_empty_run_is_shown(folder, tmp_path, name):
    (tmp_path / "manifest.json").write_text((folder / "manifest.json").read_text())
    assert FRAME_VIEWS[name](results.load(tmp_path)).text


@pytest.mark.parametrize("name", FRAME_VIEWS)
def test_a_run_without_ceilings_controls_and_ratios_is_shown(folder, tmp_path, name):
    unknown = "speedup speedup_lo speedup_hi verdict baseline control control_lo control_hi "
    unknown += "x_of_floor x_of_staged tflops gate_error"
    lines = (folder / "cells.jsonl").read_text().splitlines()
    rows = [json.loads(line) | dict.fromkeys(unknown.split()) for line in lines]
    (tmp_path / "manifest.json").write_text((folder / "manifest.json").read_text())
    (tmp_path / "cells.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert FRAME_VIEWS[name](results.load(tmp_path)).text


def test_without_an_lstm_no_speedup_is_claimed(frame):
    unknown = {c: np.nan for c in frame if c.startswith("speedup")}
    frame = frame.assign(**unknown, baseline=None, verdict=None)
    bad = _fail(frame, frame["family"] == "lstm", "mismatch")
    assert "No speedup can be stated" in plots.verdict(bad).text
    assert "No ratio" in plots.speedup_maps(bad).text


def test_a_grid_over_two_sizes_gets_a_map_for_each(frame):
    frame["hidden_size"] = frame["hidden_size"].where(frame["batch"] == 1, 64)
    shown = plots.speedup_maps(frame).text
    assert "forward, hidden size 64" in shown
    assert "backward, hidden size 320" in shown


def test_repeats_of_a_point_share_one_cell_of_the_map(frame):
    one = frame[
        (frame["impl"] == "jax_scan") & (frame["batch"] == 8) & (frame["kind"] == "forward")
    ]
    one = one[one["steps"] == 32]
    assert len(one) == 2
    shown = plots.speedup_maps(frame[frame["kind"] == "forward"]).text
    span = f"{summary.number(one['speedup_lo'].min())}–{summary.number(one['speedup_hi'].max())}"
    assert span in shown


def test_a_cell_that_failed_once_is_hatched_with_its_word(frame):
    row = frame[(frame["impl"] == "jax_scan") & (frame["kind"] == "forward")].index[:1]
    shown = plots.speedup_maps(_fail(frame, row, "timeout")).text
    assert ">timeout<" in shown
    assert "<pattern" in shown


def test_many_samples_are_drawn_as_pixels(folder, frame):
    samples = results.load_samples(folder)
    assert "image/png" not in plots.samples(frame, samples).text
    many = samples.loc[samples.index.repeat(4)]
    assert len(many) > 2000
    assert "data:image/png;base64," in plots.samples(frame, many).text


def test_cells_ranked_on_cpu_time_show_their_cpu_samples(folder, frame):
    frame["clock"] = "cpu"
    frame["median_ns"] = frame["median_ns"] * 1.9
    words = plots.samples(frame, results.load_samples(folder)).text
    assert "lie between 0." in words
    assert "lie between 1.8" not in words


def test_a_contender_has_the_same_sign_on_every_page():
    looks = plots.figure.palette(IMPLS)
    assert len(set(looks.values())) == len(IMPLS)
    assert looks == plots.figure.palette(list(IMPLS)[::-1])


def test_a_table_escapes_what_it_shows(frame):
    frame.loc[frame["status"] == "crash", "reason"] = None
    frame.loc[frame["status"] == "mismatch", "reason"] = "<script>alert(1)</script>"
    assert "<script" not in plots.failures(frame).text
    assert "&lt;script" in plots.failures(frame).text


def test_a_large_table_is_not_embedded_as_csv(frame):
    assert "Too large" in plots.figure.csv_link(frame.loc[frame.index.repeat(50)], "big")


def test_a_run_in_two_number_formats_mixes_them_nowhere(frame, tmp_path):
    half = frame[(frame["batch"] == 1) & (frame["kind"] == "forward")]
    fast = half.assign(dtype="bfloat16", speedup=half["speedup"] * 100, point_id="other")
    both = pd.concat([frame, fast], ignore_index=True)
    shown = plots.paper(both, results.PAPER_SPEEDUPS).text
    assert shown == plots.paper(frame, results.PAPER_SPEEDUPS).text
    assert "units in float32 on a CPU" in shown
    picture(both, tmp_path / "both.png")
    picture(frame, tmp_path / "one.png")
    with Image.open(tmp_path / "one.png") as one, Image.open(tmp_path / "both.png") as two:
        assert two.height > 1.3 * one.height, "a row of its own for bfloat16"
