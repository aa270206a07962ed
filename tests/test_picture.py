"""`report --picture` draws what was measured: speed, else accuracy."""

from pathlib import Path

import pytest

pytest.importorskip("seaborn")
from PIL import Image

from harness import report, results
from harness.cli import main
from harness.plots import picture

DATA = Path(__file__).parent.parent / "reports" / "data"


@pytest.fixture(autouse=True)
def _no_pages(monkeypatch, tmp_path):
    monkeypatch.setattr(report, "render", lambda place, html: tmp_path / "index.html")


def test_a_folder_of_trainings_becomes_a_forest_plot_with_a_panel_per_task(tmp_path):
    for name, tasks in (("decoder", 1), ("claim", 3)):
        file, folder = tmp_path / f"{name}.png", DATA / f"{name}-2-cores"
        assert main(["report", name, "--out", str(folder), "--picture", str(file)]) == 0
        with Image.open(file) as image:
            assert image.width == pytest.approx(tasks * 3.75 * picture.DPI, abs=2)


def test_a_folder_with_both_becomes_the_picture_of_speed(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(picture, "picture", lambda frame, path: drawn.append(len(frame)))
    folder = DATA / "cpu-2-cores"
    file = tmp_path / "speed.png"
    assert main(["report", "default", "--out", str(folder), "--picture", str(file)]) == 0
    assert drawn == [len(results.load(folder))]


def test_nothing_to_compare_is_refused_in_one_line(tmp_path, capsys):
    for name in ("manifest.json", "ablation.jsonl"):
        text = (DATA / "decoder-2-cores" / name).read_text()
        kept = [line for line in text.splitlines() if '"role":"final"' not in line]
        (tmp_path / name).write_text(text if name == "manifest.json" else "\n".join(kept) + "\n")
    file = tmp_path / "none.png"
    assert main(["report", "x", "--out", str(tmp_path), "--picture", str(file)]) == 2
    assert "neither speedups nor arms" in capsys.readouterr().err
    assert not file.exists()
