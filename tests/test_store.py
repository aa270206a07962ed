"""A run folder gives back what was written and overwrites nothing that is not its own."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from harness import files, store
from harness.errors import UsageError
from harness.store import complete, read_rows, read_samples
from tests.storing import open_folder, row


def test_what_was_appended_is_read_back_after_reopening(tmp_path):
    with open_folder(tmp_path / "run") as folder:
        folder.append_sitting([row("c1"), row("c2")], [{"cell_id": "c1", "wall_ns": [1, 2]}])
        folder.append_sitting([row("c1", "s2")], [{"cell_id": "c1", "wall_ns": [3]}])
        folder.append_equivalence([{"check": "stream", "error": 1e-7}])
        first, manifest = folder.rows, folder.manifest
    with open_folder(tmp_path / "run") as folder:
        assert folder.rows == first
        assert folder.manifest == manifest
        assert folder.manifest["run_id"]
        assert folder.logs.is_dir()
    rows, note = read_rows(tmp_path / "run")
    assert (rows, note) == (first, None)
    assert [r["sitting_id"] for r in rows] == ["s1", "s1", "s2"]
    assert {r["schema_version"] for r in rows} == {store.SCHEMA_VERSION}
    assert [s["wall_ns"] for s in read_samples(tmp_path / "run")] == [[1, 2], [3]]
    text = (tmp_path / "run" / "equivalence.jsonl").read_text()
    assert json.loads(text) == {"schema_version": 1, "check": "stream", "error": 1e-7}


def test_samples_are_one_gzip_member_per_sitting_and_plain_gzip_reads_them(tmp_path):
    with open_folder(tmp_path) as folder:
        for number in range(3):
            folder.append_sitting([row()], [{"round": number}] * 50)
    data = (tmp_path / "samples.jsonl.gz").read_bytes()
    assert len(list(files.members(data))) == 3
    assert gzip.decompress(data).count(b"\n") == 150


def test_large_members_are_found_whole():
    noise = np.random.default_rng(0).bytes(300_000)
    parts = [gzip.compress(noise), gzip.compress(b""), gzip.compress(noise[:70_000])]
    assert list(files.members(b"".join(parts))) == parts


def test_numpy_becomes_plain_and_what_is_not_finite_null(tmp_path):
    odd = row(a=np.float64(1.5), b=float("nan"), c=np.inf, d=np.int64(3), e=np.arange(2), f=True)
    with open_folder(tmp_path) as folder:
        folder.append_sitting([odd], [])
        assert folder.rows[0]["b"] is None
    text = (tmp_path / "cells.jsonl").read_text()
    assert "NaN" not in text
    assert "Infinity" not in text
    found = json.loads(text)
    assert [found[k] for k in "abcdef"] == [1.5, None, None, 3, [0, 1], True]


def test_manifest_is_replaced_in_one_step(tmp_path, monkeypatch):
    with open_folder(tmp_path) as folder:
        folder.update_manifest(ceilings={"copy_bytes": np.float64(2.0)})
        before = (tmp_path / "manifest.json").read_text()
        assert json.loads(before)["ceilings"] == {"copy_bytes": 2.0}

        def crash(*_):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", crash)
            with pytest.raises(KeyboardInterrupt):
                folder.update_manifest(ceilings=None)
        assert (tmp_path / "manifest.json").read_text() == before
    with open_folder(tmp_path) as folder:
        assert folder.manifest["ceilings"] == {"copy_bytes": 2.0}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"profile": "paper"}, "profile 'smoke', this is 'paper'"),
        ({"protocol": 2}, "protocol_version 1, this is 2"),
    ],
)
def test_another_profile_or_protocol_is_refused(tmp_path, change, words):
    open_folder(tmp_path).close()
    before = (tmp_path / "manifest.json").read_bytes()
    with pytest.raises(UsageError, match=words):
        open_folder(tmp_path, **change)
    assert (tmp_path / "manifest.json").read_bytes() == before
    assert not (tmp_path / "lock").exists()


def test_another_schema_is_refused(tmp_path):
    with open_folder(tmp_path) as folder:
        folder.update_manifest(schema_version=0)
    with pytest.raises(UsageError, match="schema_version 0, this is 1"):
        open_folder(tmp_path)


def test_a_broken_manifest_is_refused(tmp_path):
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(UsageError, match="not valid JSON"):
        open_folder(tmp_path)
    (tmp_path / "manifest.json").write_text("[]")
    with pytest.raises(UsageError, match="schema_version None"):
        open_folder(tmp_path)


def test_a_folder_of_something_else_is_not_touched(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UsageError, match=r"not a run folder .*'thesis\.tex'"):
        open_folder(tmp_path)
    assert [item.name for item in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(UsageError, match="is a file"):
        open_folder(tmp_path / "thesis.tex")


EXPECTED = {"c1": "k1", "c2": "k2"}


def sitting(name="s1", status=("ok", "ok"), stale=("k1", "k2"), cells=("c1", "c2")):
    return [row(c, name, s, k) for c, s, k in zip(cells, status, stale, strict=True)]


@pytest.mark.parametrize("status", sorted(store.FINAL))
def test_a_whole_current_sitting_is_complete(status):
    assert complete(sitting(status=("ok", status)), EXPECTED)


@pytest.mark.parametrize("status", ["interrupted", "skipped", "nonsense"])
def test_interrupted_and_skipped_cells_are_measured_again(status):
    assert not complete(sitting(status=("ok", status)), EXPECTED)


def test_cells_of_two_sittings_do_not_make_one():
    halves = [row("c1", "s1", stale="k1"), row("c2", "s2", stale="k2")]
    assert not complete(halves, EXPECTED)
    assert not complete([], EXPECTED)


def test_a_stale_cell_makes_the_sitting_incomplete_until_it_is_measured_anew():
    old = sitting(stale=("k1", "older"))
    assert not complete(old, EXPECTED)
    assert complete(old + sitting("s2"), EXPECTED)


def test_cells_that_are_no_longer_expected_do_not_matter():
    more = [*sitting(), row("c3", "s1", stale="k3")]
    assert complete(more, EXPECTED)
    assert not complete(sitting(), {**EXPECTED, "c3": "k3"})
