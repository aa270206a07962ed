"""Which pages a run folder gets, and what is said where one fails."""

import shutil

import pytest

from harness import paths, pipeline, report
from harness.errors import UsageError
from tests.recorded import write_run
from tests.recorded.ablation import write_ablation
from tests.recorded.floor import write_floor_run
from tests.recorded.notebook import write_notebook

for module in ("papermill", "nbconvert", "seaborn"):
    pytest.importorskip(module)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("recorded") / "run")


def test_a_run_that_only_trained_gets_its_page_and_no_empty_ones(run, tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(report, "_pages", lambda files, names, *_: shown.append(names) or [])
    trained = write_ablation(tmp_path / "run", 2, (), {})
    index = report.render(trained, tmp_path / "html").read_text()
    assert "Exploratory: beside an LSTM" in index
    assert "Speed</h2>" not in index
    both = tmp_path / "both"
    shutil.copytree(run, both)
    for name in ("ablation.jsonl", "curves.jsonl"):
        shutil.copy(trained / name, both / name)
    index = report.render(both, tmp_path / "html").read_text()
    assert "Speed</h2>" in index
    assert "Accuracy</h2>" in index
    assert shown == [["ablation"], ["speed", "ablation", "equivalence"]]


def test_an_ablation_is_reported_by_its_name(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(paths, "run_folder", lambda name: tmp_path / name)
    monkeypatch.setattr(report, "render", lambda place, html: shown.append(place) or place)
    for folder in ("ablation-claim", "ablation-claim-jax_native"):
        write_ablation(tmp_path / folder, 1, (), {})
    for name in ("claim", "ablation-claim-jax_native", "default"):
        assert pipeline.render_pages(name, None, None) == 0
    names = ["ablation-claim", "ablation-claim-jax_native", "default"]
    assert [place.name for place in shown] == names
    with pytest.raises(UsageError, match="unknown profile 'clam'"):
        pipeline.render_pages("clam", None, None)


def test_only_a_run_with_parts_gets_the_floor_page(run, tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(report, "_pages", lambda files, names, *_: shown.append(names) or [])
    report.render(run, tmp_path)
    report.render(write_floor_run(tmp_path / "floor"), tmp_path)
    replays = write_floor_run(tmp_path / "graph") / "cells.jsonl"
    words = replays.read_text().replace('"gemm"', '"graph"').replace('"pooling"', '"graph"')
    replays.write_text(words)
    report.render(replays.parent, tmp_path)
    plain, parts = ["speed", "equivalence"], ["speed", "floor", "equivalence"]
    assert shown == [plain, parts, plain]


def test_a_failing_notebook_still_gives_a_page_with_the_error(run, tmp_path, monkeypatch):
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "elsewhere"))
    broken = write_notebook(tmp_path / "broken.ipynb", "print('before')", "1 / 0", "print('after')")
    with pytest.raises(report.ReportFailedError) as caught:
        report.render(run, tmp_path / "html", [str(broken)])
    page = (tmp_path / "html" / "broken.html").read_text()
    assert "before" in page
    assert "after" not in page
    assert "This page is incomplete: ZeroDivisionError: division by zero" in page
    assert str(tmp_path) not in page
    assert caught.value.index.is_file()
    assert "ZeroDivisionError" in caught.value.index.read_text()
    assert [p.name for p in caught.value.pages] == ["broken"]


def test_bad_input_is_one_line_and_writes_nothing(run, tmp_path):
    out = tmp_path / "html"
    with pytest.raises(UsageError, match="not a run folder"):
        report.render(tmp_path, out)
    with pytest.raises(UsageError, match="did you mean 'speed'"):
        report.render(run, out, ["sped"])
    assert not out.exists()
