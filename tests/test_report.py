"""The pages: self-contained, small, readable in both themes, honest when a notebook fails."""

import ast
import json
import re
import shutil
import subprocess
import sys

import pytest

from harness import paths, pipeline, render, report
from harness.errors import UsageError
from tests.recorded import write_run
from tests.recorded.ablation import MISHAPS, SCORES, write_ablation
from tests.recorded.floor import write_floor_run

for module in ("papermill", "nbconvert", "seaborn"):
    pytest.importorskip(module)

SOURCES = sorted(report.source_folder().glob("*.ipynb"))
PAGES = ("index", "speed", "equivalence", "floor", "ablation")
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("recorded") / "run")


@pytest.fixture(scope="module")
def site(run, tmp_path_factory):
    out = tmp_path_factory.mktemp("html")
    report.render(write_floor_run(out.parent / "floor-run"), out, ["floor"])
    some = {name: SCORES[name] for name in ("counting", "selective_copy")}
    names = ("baseline", "ifo", "k1", "zoneout", "lstm")
    few = {"rates": (1e-3, 8e-3, 6e-2), "scores": some, "names": names}
    trained = write_ablation(out.parent / "trained", 8, **few)
    report.render(trained, out, ["ablation"])
    index = report.render(run, out)
    assert index.name == "index.html"
    return index.parent


@pytest.fixture(scope="module")
def pages(site):
    return {name: (site / f"{name}.html").read_text(encoding="utf-8") for name in PAGES}


def _notebook(path, *cells):
    """A notebook with a `run_dir` parameter and the given code cells."""
    sources = [('run_dir = ""', ["parameters"]), *((cell, []) for cell in cells)]
    cells = [
        {"cell_type": "code", "id": f"c{i}", "metadata": {"tags": tags}, "source": source}
        | {"execution_count": None, "outputs": []}
        for i, (source, tags) in enumerate(sources)
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4}
    path.write_text(json.dumps(notebook | {"nbformat_minor": 5}))
    return path


def _meta(text):
    tags = [dict(re.findall(r'(\w+)="([^"]*)"', tag)) for tag in re.findall(r"<meta[^>]*>", text)]
    return {tag.get("name"): tag.get("content") for tag in tags}


@pytest.mark.parametrize("name", PAGES)
def test_a_page_refers_to_nothing_remote(pages, name):
    text = re.sub(r'xmlns(:xlink)?="[^"]*"', "", pages[name])
    loaded = re.findall(r"""(?:src|srcset|data|action|href)\s*=\s*["']([^"']*)["']""", text)
    for target in loaded:
        assert target.startswith(("#", "data:")) or target in {f"{p}.html" for p in PAGES}, target
    assert "@import" not in text
    assert not [u for u in re.findall(r"url\(([^)]*)\)", text) if not u.startswith("#")]
    for tag in ("<script", "<link", "<iframe", "<object", "<embed"):
        assert tag not in text


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_under_one_and_a_half_megabytes(site, name):
    assert (site / f"{name}.html").stat().st_size < report.PAGE_LIMIT


@pytest.mark.parametrize("name", PAGES)
def test_a_page_has_both_themes_and_a_viewport(pages, name):
    text = pages[name]
    assert _meta(text)["viewport"] == "width=device-width, initial-scale=1"
    assert _meta(text)["color-scheme"] == "light dark"
    assert "@media (prefers-color-scheme: dark)" in text


def test_a_figure_takes_the_text_colour_of_its_page(pages):
    drawings = re.findall(r"<svg.*?</svg>", pages["speed"], re.DOTALL)
    assert len(drawings) >= 20
    for drawing in drawings:
        assert 'fill="currentColor"' in drawing
        assert "#000000" not in drawing
        assert 'role="img"' in drawing
        assert re.search(r'aria-label="[^"]{20,}"', drawing)
        assert "<title>" in drawing


def test_ids_are_unique_on_a_page(pages):
    for text in pages.values():
        ids = re.findall(r'\sid="([^"]*)"', text)
        assert len(ids) == len(set(ids))
        assert set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', text)) <= {
            pair for one in ids for pair in ((one, ""), ("", one))
        }


def test_every_csv_link_is_small_and_readable(pages):
    links = re.findall(r'download="[\w.-]+" href="(data:text/csv;base64,[^"]*)"', pages["speed"])
    assert len(links) >= 20
    assert max(map(len, links)) < 50_000


def test_a_page_holds_no_path_of_this_machine(pages, run):
    top = str(report.source_folder().parent)
    for text in pages.values():
        for path in (top, str(run), str(run.parent), sys.prefix):
            assert path not in text


def test_the_speed_page_shows_every_mishap(pages):
    text = pages["speed"]
    for word in ("mismatch", "crash", "missing", "noisy", "SIGSEGV", "pip install cupy-cuda13x"):
        assert word in text
    assert "cuDNN" in text
    assert "times the published speedup" in text


def test_the_index_has_verdict_status_machine_and_command(pages):
    text = pages["index"]
    assert re.search(r"(Fastest|No clear winner) overall", text)
    assert "86 of 108" in text
    assert re.search(r"\d+ of 18 = [\d.]+ % \[[\d.]+, [\d.]+\]", text)
    assert "Example CPU" in text
    assert "python -m harness run default" in text
    for page in ("speed", "equivalence"):
        assert f'href="{page}.html"' in text


def test_the_equivalence_page_names_the_failed_claim_in_words(pages):
    text = pages["equivalence"]
    assert "uneven chunks with the state carried equal one pass" in text
    assert "Not equivalent: torch_eager" in text
    assert "cupy_kernel (missing" in text


def test_the_floor_page_says_what_was_met_and_missed(pages):
    text = pages["floor"]
    assert "Of 13 lines: 10 met, 1 missed, 2 not measured." in text
    assert "which forbids 10" in text
    assert "jax_native is no contender of this run" in text


def test_the_ablation_page_says_the_answer_first_and_hides_nothing(pages):
    text = re.sub(r"\s+", " ", pages["ablation"])
    top = text[: text.index("How to read this page")]
    assert "Beside an LSTM (69 thousand parameters) the QRNN" in top
    assert "fast" not in top
    assert "Of 6 primary contrasts with the reference on 2 tasks (8 seeds)" in top
    assert re.search(r"▲ <b>\+2\d\.\d</b>", top)
    reasons = [message for (task, _, _), (_, message) in MISHAPS.items() if task != "mqar"]
    told = [*reasons, "k1: at the edge", "No deviation from the plan", "plan hash"]
    told += ["python -m harness ablate claim --impl torch_native", "family lstm", "100 % of seeds"]
    assert [words for words in told if words not in text] == []


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


def test_no_code_is_shown(pages):
    for name in PAGES[1:]:
        assert "from harness import" not in pages[name]
        assert "run_dir" not in pages[name]


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_a_source_has_no_outputs_and_asks_for_python3(source):
    notebook = json.loads(source.read_text(encoding="utf-8"))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    tagged = [cell for cell in code if "parameters" in cell["metadata"].get("tags", [])]
    assert len(tagged) == 1
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    assert "papermill" not in notebook["metadata"]


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_a_notebook_imports_only_results_and_plots(source):
    notebook = json.loads(source.read_text(encoding="utf-8"))
    code = ["".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code"]
    imported = set()
    for node in ast.walk(ast.parse("\n".join(code))):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported |= {f"{node.module}.{alias.name}" for alias in node.names}
    assert imported == {"harness.results", "harness.plots"}


def test_drawing_imports_no_implementation_and_no_framework():
    code = (
        "import sys, harness.plots, harness.results\n"
        "import impls\n"
        "own = {f'impls.{name}' for name in (*impls.names(), '_torch', '_jax', 'kernels')}\n"
        "bad = ({'torch', 'jax', 'cupy'} | own) & set(sys.modules)\n"
        "sys.exit(f'imported {bad}' if bad else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_an_unknown_parameter_is_refused(tmp_path):
    source = _notebook(tmp_path / "own.ipynb")
    with pytest.raises(UsageError, match="no parameter 'run_dri'; it has run_dir"):
        render.execute(source, {"run_dri": "x"}, tmp_path / "scratch")


def test_a_parameter_that_papermill_would_turn_into_text_is_refused(tmp_path):
    source = _notebook(tmp_path / "own.ipynb")
    with pytest.raises(UsageError, match="is a "):
        render.execute(source, {"run_dir": tmp_path}, tmp_path / "scratch")


def test_a_failing_notebook_still_gives_a_page_with_the_error(run, tmp_path, monkeypatch):
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "elsewhere"))
    broken = _notebook(tmp_path / "broken.ipynb", "print('before')", "1 / 0", "print('after')")
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


def _chromium(tmp_path, *arguments):
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    words = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    done = subprocess.run(
        [*words, profile, *arguments], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.browser
@pytest.mark.parametrize("width", [360, 390, 1280])
def test_a_page_never_scrolls_sideways(site, tmp_path, width):
    """Each page reports its own width from inside a frame, which may be narrower than a window."""
    tell = (
        "<script>onload = () => parent.postMessage("
        "[{0}, document.documentElement.scrollWidth], '*')</script>"
    )
    frames = ""
    for name in PAGES:
        text = (site / f"{name}.html").read_text(encoding="utf-8")
        (tmp_path / f"{name}.html").write_text(text + tell.format(repr(name)), encoding="utf-8")
        frames += (
            f'<iframe src="{name}.html" width="{width}" height="800" frameborder="0"></iframe>'
        )
    (tmp_path / "frame.html").write_text(
        "<ul></ul><script>onmessage = e => document.querySelector('ul').innerHTML += "
        f"`<li>${{e.data[0]}} ${{e.data[1]}}</li>`</script>{frames}"
    )
    frame = (tmp_path / "frame.html").as_uri()
    shown = _chromium(tmp_path, "--virtual-time-budget=20000", "--dump-dom", frame)
    widths = dict(re.findall(r"<li>(\w+) (\d+)</li>", shown))
    assert set(widths) == set(PAGES), shown[:500]
    assert {name: int(value) for name, value in widths.items()} == dict.fromkeys(PAGES, width)


@pytest.mark.browser
@pytest.mark.parametrize("page", PAGES)
def test_a_page_follows_the_theme(site, tmp_path, page):
    image = pytest.importorskip("PIL.Image")
    corner = {}
    for theme, setting in {"light": 1, "dark": 0}.items():
        shot = tmp_path / f"{theme}.png"
        _chromium(
            tmp_path,
            f"--blink-settings=preferredColorScheme={setting}",
            f"--screenshot={shot}",
            "--window-size=600,400",
            (site / f"{page}.html").as_uri(),
        )
        corner[theme] = sum(image.open(shot).convert("RGB").getpixel((2, 2))) / 3
    assert corner["light"] > 240
    assert corner["dark"] < 40
