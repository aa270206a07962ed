"""The notebooks: no outputs, no imports but results and plots, parameters that are checked."""

import ast
import json
import subprocess
import sys

import pytest

from harness import render, report
from harness.errors import UsageError
from tests.recorded.notebook import write_notebook

for module in ("papermill", "nbconvert", "seaborn"):
    pytest.importorskip(module)

SOURCES = sorted(report.source_folder().glob("*.ipynb"))


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
    source = write_notebook(tmp_path / "own.ipynb")
    with pytest.raises(UsageError, match="no parameter 'run_dri'; it has run_dir"):
        render.execute(source, {"run_dri": "x"}, tmp_path / "scratch")


def test_a_parameter_that_papermill_would_turn_into_text_is_refused(tmp_path):
    source = write_notebook(tmp_path / "own.ipynb")
    with pytest.raises(UsageError, match="is a "):
        render.execute(source, {"run_dir": tmp_path}, tmp_path / "scratch")
