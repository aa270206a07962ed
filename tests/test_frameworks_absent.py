"""With one framework absent, the command and the other framework's implementations go on."""

import importlib.util

import pytest

import impls
from tests.absent import command_without, run_without

HEAVY = (
    "torch",
    "jax",
    "jaxlib",
    "cupy",
    "pandas",
    "seaborn",
    "matplotlib",
    "papermill",
    "nbconvert",
)
NEW = {
    "torch": {"torch_compile", "torch_compile_loop", "torch_cupy"},
    "jax": {"jax_native", "jax_pallas", "jax_cupy"},
}
"""Implementations whose cards must not need the framework that they run on."""
PLANS = ("default", "compile", "cuda")
CARDS = """
import impls
from impls.contract import ModelSpec, Placement
for name in impls.names():
    card = impls.get(name)
    card.unsupported(ModelSpec(), Placement()); impls.missing(card)
heavy = set(%r) & set(sys.modules)
assert not heavy, heavy
"""


def needs(module):
    return pytest.mark.skipif(
        importlib.util.find_spec(module) is None, reason=f"{module} is not installed"
    )


def test_cards_lists_and_plans_import_no_framework():
    done = run_without((), CARDS % (HEAVY,))
    assert done.returncode == 0, done.stderr


@needs("torch")
def test_the_test_above_fails_when_a_framework_is_imported():
    done = run_without((), "import torch\n" + CARDS % (HEAVY,))
    assert done.returncode == 1
    assert "AssertionError: {'torch'}" in done.stderr


@pytest.mark.parametrize("absent", ["jax", "torch"])
def test_list_names_who_misses_the_framework_and_how_to_get_it(absent):
    done = command_without([absent, f"{absent}lib"], "list", COLUMNS="200")
    assert done.returncode == 0, done.stderr
    assert f"{absent} not installed: pip install 'quasibench[{absent}]'" in done.stdout
    lines = {line.split()[0]: line for line in done.stdout.splitlines() if line.strip()}
    needy = {name for name in impls.names() if absent in impls.get(name).requires}
    assert NEW[absent] <= needy
    for name in impls.names():
        told = absent in lines[name].partition(" not installed")[0].split("  ")[-1]
        assert told == (name in needy), lines[name]


@pytest.mark.parametrize("absent", ["jax", "torch"])
def test_plans_of_every_card_work_without(absent, tmp_path):
    plans = [["plan", name, "--out", str(tmp_path / name)] for name in PLANS]
    code = f"from harness.cli import main\nfor words in {plans!r}:\n    assert main(words) == 0\n"
    done = run_without([absent, f"{absent}lib"], code, COLUMNS="200")
    assert done.returncode == 0, done.stderr
    assert "18" in done.stdout
    for name in NEW[absent]:
        assert f"missing: {name}: " in done.stdout


def test_report_reads_recorded_rows_without_any_framework(tmp_path):
    from tests.recorded.floor import FEW, REPLAYS, write_floor_run

    new = dict.fromkeys([(name, "default") for names in NEW.values() for name in names], 2.0)
    write_floor_run(tmp_path / "run", REPLAYS | new, places=FEW)
    out = ["--out", str(tmp_path / "run"), "--html", str(tmp_path / "html")]
    done = command_without(["jax", "jaxlib", "torch", "cupy"], "report", *out)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "html" / "index.html").exists()
    page = (tmp_path / "html" / "speed.html").read_text(encoding="utf-8")
    assert "CUDA-graph replays, against the LSTM" in page
    assert [n for names in NEW.values() for n in names if n not in page] == []
    floor = (tmp_path / "html" / "floor.html").read_text(encoding="utf-8")
    assert "measured copy bandwidth, at 64 MB and more" in floor


@pytest.mark.parametrize(
    ("present", "absent", "file"),
    [("torch", "jax", "tests/test_torch_eager.py"), ("jax", "torch", "tests/test_jax_scan.py")],
)
def test_the_other_frameworks_tests_pass_without(present, absent, file):
    pytest.importorskip(present)
    code = f"import pytest\nsys.exit(pytest.main(['-q', '-p', 'no:cacheprovider', {file!r}]))"
    done = run_without([absent, f"{absent}lib"], code)
    assert done.returncode == 0, done.stdout[-3000:]
    assert " passed" in done.stdout


def test_blocking_a_framework_really_blocks_it():
    done = run_without(["torch"], "import torch")
    assert done.returncode == 1
    assert "blocked by the test" in done.stderr
