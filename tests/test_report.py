"""The pages: self-contained, small, readable in both themes, honest about what failed."""

import re
import shutil
import subprocess
import sys

import pytest

from harness import report
from tests.recorded import write_run
from tests.recorded.ablation import MISHAPS, SCORES, write_ablation
from tests.recorded.floor import write_floor_run

for module in ("papermill", "nbconvert", "seaborn"):
    pytest.importorskip(module)

PAGES = ("index", "speed", "equivalence", "floor", "ablation")
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("recorded") / "run")


# Of the session: a worker that steals tests comes back to this module, and rendering takes 45 s.
@pytest.fixture(scope="session")
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


@pytest.fixture(scope="session")
def pages(site):
    return {name: (site / f"{name}.html").read_text(encoding="utf-8") for name in PAGES}


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


def test_no_code_is_shown(pages):
    for name in PAGES[1:]:
        assert "from harness import" not in pages[name]
        assert "run_dir" not in pages[name]


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
