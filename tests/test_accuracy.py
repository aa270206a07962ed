"""Which row of a training counts, and which rows are refused."""

import json

import pytest

from harness.ablation import accuracy
from harness.ablation.rows import attempts
from harness.errors import UsageError
from tests.judging import reference, rows_of
from tests.recorded.ablation import write_ablation


def test_the_newest_row_of_a_run_counts_and_a_torn_one_does_not(tmp_path):
    folder = write_ablation(tmp_path / "run", seeds=2, rates=(), mishaps={})
    first = json.loads((folder / "ablation.jsonl").read_text().splitlines()[0])
    with (folder / "ablation.jsonl").open("a") as file:
        file.write(json.dumps(first | {"metric": 0.5}) + "\n" + '{"row_key": "to')
    study = accuracy.load(folder)
    assert [r["metric"] for r in study.rows if r["row_key"] == first["row_key"]] == [0.5]
    assert "torn" in study.notes[0]


def test_rows_of_another_schema_are_refused(tmp_path):
    folder = write_ablation(tmp_path / "run", seeds=2, rates=(), mishaps={})
    with (folder / "ablation.jsonl").open("a") as file:
        file.write(json.dumps({"row_key": "x", "schema_version": 99}) + "\n")
    with pytest.raises(UsageError, match="schema version 99"):
        accuracy.load(folder)


@pytest.mark.parametrize(
    ("changed", "left"),
    [
        ({"root": 2}, 4),
        ({"tasks": [{"name": "counting", "steps": 700}]}, 4),
        ({"evaluations": 6}, 0),
        ({"tasks": [{"name": "counting", "steps": 350, "target": 0.5}]}, 0),
    ],
)
def test_a_row_of_other_streams_or_steps_is_paired_with_none_of_today(tmp_path, changed, left):
    first = {"root": 1, "tasks": [{"name": "counting", "steps": 350}]}
    rows = rows_of("k4", [0.1] * 4, plan_hash="old") + reference(seeds=4, plan_hash="new")
    plans = [
        {"plan_hash": "old", "registered_at": "2026-01-01T00:00:00+00:00", "registered": first},
        {"plan_hash": "new", "registered_at": "2026-01-02T00:00:00+00:00", "registered": {}},
    ]
    planned = {"plan_hash": "new", "registered": first | changed, "plans": plans}
    (tmp_path / "manifest.json").write_text(json.dumps({"ablation": planned}))
    (tmp_path / "ablation.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    study = accuracy.load(tmp_path)
    assert len(study.rows) == 8 - left
    assert [note[:24] for note in study.notes] == ["4 trainings under plan o"] * (left > 0)


def test_attempts_are_counted_in_rows_of_before_the_column_too():
    old = {"row_key": "old", "status": "ok"}
    given = [old, {"row_key": "s", "status": "skipped"}, {**old, "attempt": 4}]
    assert attempts(given) == {"old": 4, "s": 0}
    assert attempts([old]) == {"old": 1}


def test_only_a_result_takes_the_place_of_a_result():
    def row(status, number):
        return {"row_key": "k", "status": status, "number": number}

    for word in ("skipped", "interrupted", "missing"):
        for result in ("ok", "crash", "diverged", "timeout", "unsupported"):
            given = [row(word, 0), row(result, 1), row(word, 2)]
            assert accuracy.standing(given)["k"]["number"] == 1
            assert accuracy.standing([*given, row("ok", 3)])["k"]["number"] == 3
        assert accuracy.standing([row("skipped", 0), row(word, 1)])["k"]["number"] == 1
