"""A run folder is read back as it was measured: newest complete sittings, nothing invented."""

import json

import pytest

from harness import facts, results, summary
from harness.errors import UsageError
from tests.recorded import sitting, write_run


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "run", batches=(1, 8), steps=(32, 512), rounds=8)


def _append(run, rows, name="cells.jsonl"):
    with (run / name).open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def _sitting_ids(frame, kind="forward", batch=1, steps=32):
    here = (frame["kind"] == kind) & (frame["batch"] == batch) & (frame["steps"] == steps)
    return set(frame.loc[here, "sitting_id"])


def test_load_gives_one_row_per_cell(run):
    frame = results.load(run)
    assert len(frame) == 2 * 4 * 7
    assert not frame.duplicated("cell_id").any()
    assert set(results.COLUMNS) <= set(frame.columns)
    assert frame.attrs["notes"] == []


def test_load_takes_the_newest_complete_sitting(run):
    rows, _ = sitting("forward", 1, 32, rounds=8, tag="second")
    _append(run, rows)
    frame = results.load(run)
    assert len(frame) == 2 * 4 * 7
    assert _sitting_ids(frame) == {rows[0]["sitting_id"]}


def test_an_interrupted_sitting_does_not_replace_a_complete_one(run):
    first = _sitting_ids(results.load(run))
    rows, _ = sitting("forward", 1, 32, rounds=8, tag="second")
    rows[2] |= {"status": "interrupted", "speedup": None}
    _append(run, rows)
    assert _sitting_ids(results.load(run)) == first


def test_a_point_with_only_an_interrupted_sitting_is_shown_as_such(run):
    rows, _ = sitting("forward", 99, 32, rounds=8)
    _append(run, [row | {"status": "interrupted"} for row in rows])
    frame = results.load(run)
    assert set(frame.loc[frame["batch"] == 99, "status"]) == {"interrupted"}


def test_a_torn_tail_is_left_out_with_its_sitting_and_a_note(run):
    first = _sitting_ids(results.load(run))
    rows, _ = sitting("forward", 1, 32, rounds=8, tag="second")
    _append(run, rows[:4])
    with (run / "cells.jsonl").open("a") as file:
        file.write(json.dumps(rows[4])[:150])
    before = (run / "cells.jsonl").read_bytes()
    frame = results.load(run)
    assert _sitting_ids(frame) == first
    assert len(frame.attrs["notes"]) == 2
    assert "torn" in frame.attrs["notes"][0]
    assert (run / "cells.jsonl").read_bytes() == before


def test_a_sitting_whose_torn_line_was_set_aside_is_still_left_out(run):
    first = _sitting_ids(results.load(run))
    rows, _ = sitting("forward", 1, 32, rounds=8, tag="second")
    _append(run, rows[:4])
    (run / "cells.torn").write_text(json.dumps(rows[4])[:150])
    assert _sitting_ids(results.load(run)) == first


def test_a_torn_line_alone_costs_no_finished_sitting(run):
    with (run / "cells.jsonl").open("a") as file:
        file.write('{"schema_ver')
    assert len(results.load(run)) == 2 * 4 * 7


def test_a_damaged_line_in_the_middle_is_refused(run):
    lines = (run / "cells.jsonl").read_text().splitlines()
    (run / "cells.jsonl").write_text("\n".join([lines[0], lines[1][:40], *lines[2:]]) + "\n")
    with pytest.raises(UsageError, match="line 2"):
        results.load(run)


@pytest.mark.parametrize("read", [results.load, results.load_equivalence, results.load_manifest])
def test_a_folder_that_is_no_run_is_refused(tmp_path, read):
    with pytest.raises(UsageError, match="not a run folder"):
        read(tmp_path)


def test_another_schema_is_refused(run):
    manifest = json.loads((run / "manifest.json").read_text())
    (run / "manifest.json").write_text(json.dumps(manifest | {"schema_version": 99}))
    with pytest.raises(UsageError, match="schema version 99"):
        results.load(run)


def test_rows_of_another_schema_are_refused(run):
    rows, _ = sitting("forward", 1, 32, rounds=8, tag="second")
    _append(run, [row | {"schema_version": 2} for row in rows])
    with pytest.raises(UsageError, match="schema version 2"):
        results.load(run)


def test_an_empty_run_is_an_empty_table(run):
    for name in ("cells.jsonl", "equivalence.jsonl", "samples.jsonl.gz"):
        (run / name).unlink()
    frame, checks = results.load(run), results.load_equivalence(run)
    assert frame.empty
    assert checks.empty
    assert results.load_samples(run).empty
    assert "no measured cell" in summary.verdict(frame)[0]
    assert "No conformance run" in facts.proof(checks)[0]
    assert facts.strip(frame, results.load_manifest(run))[0][1] == "0 of 0"


def test_samples_belong_to_the_cells(run):
    frame, samples = results.load(run), results.load_samples(run)
    timed = frame[frame["status"] == "ok"].set_index("cell_id")
    assert set(samples["cell_id"]) == set(timed.index)
    one = samples[samples["cell_id"] == timed.index[0]]
    assert len(one) == 8
    assert one["wall_ns"].median() == pytest.approx(timed["median_ns"].iloc[0])
    assert set(results.load_samples(run, [timed.index[0]])["cell_id"]) == {timed.index[0]}


def test_a_damaged_end_of_the_samples_costs_only_the_end(run):
    data = (run / "samples.jsonl.gz").read_bytes()
    whole = len(results.load_samples(run))
    (run / "samples.jsonl.gz").write_bytes(data[:-20])
    assert 0 < len(results.load_samples(run)) < whole


def test_a_repeated_check_replaces_its_older_row(run):
    checks = results.load_equivalence(run)
    bad = checks[checks["status"] == "failed"].iloc[0].to_dict()
    row = json.loads((run / "equivalence.jsonl").read_text().splitlines()[0])
    _append(run, [row | bad | {"status": "passed", "error": 1e-9}], "equivalence.jsonl")
    again = results.load_equivalence(run)
    assert len(again) == len(checks)
    assert not (again["status"] == "failed").any()


def test_a_missing_contender_that_is_checked_later_counts_as_checked(run):
    lines = [json.loads(line) for line in (run / "equivalence.jsonl").read_text().splitlines()]
    _append(run, [lines[0] | {"impl": "cupy_kernel"}], "equivalence.jsonl")
    again = results.load_equivalence(run)
    assert list(again.loc[again["impl"] == "cupy_kernel", "status"]) == ["passed"]


def test_the_paper_has_thirty_published_speedups():
    table = results.PAPER_SPEEDUPS
    assert table.shape == (6, 5)
    assert table.loc[8, 512] == 16.9
    assert table.loc[256, 32] == 1.4


def test_the_ranking_counts_only_points_that_every_contender_finished(run):
    frame = results.load(run)
    means, points = summary.ranking(frame)
    assert set(means) == {"torch_eager", "jax_scan", "jax_associative"}
    assert points == 6  # torch_eager fails its gate at two of eight points
    values = [mean.value for mean in means.values()]
    assert values == sorted(values, reverse=True)


def test_the_verdict_names_the_fastest_and_where_the_lstm_wins(tmp_path):
    frame = results.load(write_run(tmp_path / "run", batches=(1, 32), rounds=8))
    means, _ = summary.ranking(frame)
    text = " ".join(summary.verdict(frame))
    assert f"{next(iter(means))}, " in text
    assert "The LSTM wins at" in text
    assert "forward, batch 32, steps 32, 128 and 512" in text
    assert "cupy_kernel (missing)" in text


def test_the_verdict_does_not_call_a_slower_contender_fastest(run):
    frame = results.load(run)
    ratios = ["speedup", "speedup_lo", "speedup_hi"]
    frame.loc[frame["family"] == "qrnn", ratios] /= 50
    assert summary.verdict(frame)[0].startswith("Fastest overall: the LSTM.")


def test_the_control_counts_one_interval_per_sitting(run):
    frame = results.load(run)
    found = facts.control(frame)
    assert found.sittings == frame["sitting_id"].nunique() == 8
    wide = {"control": 1.0, "control_lo": 0.9, "control_hi": 1.1}
    assert facts.control(frame.assign(**wide)).wrong == 0
    assert facts.control(frame.assign(**wide | {"control_lo": 1.01})).wrong == 8


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (12.41, "12.4"),
        (0.9996, "1.00"),
        (0.0841, "0.0841"),
        (1234.0, "1234"),
        (0.0, "0"),
        (None, "–"),
        (float("nan"), "–"),
        (3e-12, "3.00e-12"),
    ],
)
def test_numbers_have_three_digits(value, text):
    assert summary.number(value) == text


def _with_families(run, **more):
    """The run with a convolution beside every timed `torch_eager`, fifty times an LSTM's speed."""
    rows = [json.loads(line) for line in (run / "cells.jsonl").read_text().splitlines()]
    beside = [
        row
        | {"impl": "conv_torch", "family": "conv", "cell_id": f"conv {row['cell_id']}"}
        | {"speedup": 50.0, "speedup_lo": 49.0, "speedup_hi": 51.0, "verdict": "FASTER"}
        | more
        for row in rows
        if row["impl"] == "torch_eager" and row["status"] == "ok"
    ]
    assert beside
    _append(run, beside)
    return summary.verdict(results.load(run))


def test_layers_of_other_families_are_told_apart_and_do_not_win(run):
    before = summary.verdict(results.load(run))
    after = _with_families(run)
    (added,) = [words for words in after if words not in before]
    assert [words for words in after if words != added] == before
    assert added.startswith("Layers of other families and the same width")
    assert "conv_torch 50.0 [50.0, 50.0] over " in added


def test_rows_from_before_a_field_was_are_of_the_same_scene_as_rows_with_it(run):
    told = _with_families(run, dilated=False, heads=4)
    assert not any("dilated" in words or "heads" in words for words in told)
    frame = results.load(run)
    assert set(frame["dilated"]) == {False}
    assert set(frame["heads"]) == {4}
