"""One notebook to one HTML page: papermill runs it, nbconvert writes it, nothing remote in it."""

from __future__ import annotations

import copy
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import harness
from harness.errors import UsageError

CELL_TIMEOUT_S = 300
Parameter = str | int | float | bool


def execute(
    notebook: Path, parameters: Mapping[str, Parameter], scratch: Path
) -> tuple[Any, str | None]:
    """Run a notebook with its parameters; the source file is not touched.

    Args:
        parameters: JSON-like values only; papermill turns anything else into text silently.
        scratch: an empty folder for the executed copy and Jupyter's own files.

    Returns:
        (the executed notebook, None), or what there is of it and one line that says what failed.

    Raises:
        UsageError: a parameter that the notebook does not have.
    """
    import nbformat
    import papermill

    _check_parameters(papermill.inspect_notebook(str(notebook)), parameters, notebook)
    target, failed = scratch / notebook.name, None
    with _jupyter(scratch) as config:
        try:
            papermill.execute_notebook(
                str(notebook),
                str(target),
                dict(parameters),
                kernel_name="python3",
                progress_bar=False,
                log_output=False,
                cwd=str(scratch),
                execution_timeout=CELL_TIMEOUT_S,
                config=config,
            )
        except Exception as error:  # a dead kernel, a cell that raised: the page still appears
            failed = _one_line(error)
    path = target if target.exists() else notebook
    return nbformat.read(path, as_version=4), failed


def to_html(
    executed: Any, templates: Path, title: str, page: str, pages: list[str], failed: str | None
) -> str:
    """The page of an executed notebook through the project's own template.

    Args:
        templates: folder that holds `template/`.
        page, pages: the page's own name and those of all pages, for the navigation.
        failed: what failed, shown at the top; None where all cells ran.
    """
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(
        template_name="template",
        extra_template_basedirs=[str(templates)],
        exclude_input=True,
        exclude_input_prompt=True,
        exclude_output_prompt=True,
        exclude_anchor_links=True,
    )
    resources = {
        "title": title,
        "page": page,
        "pages": pages,
        "failed": failed,
        "style": (templates / "template" / "style.css").read_text(encoding="utf-8"),
    }
    body, _ = exporter.from_notebook_node(copy.deepcopy(executed), resources)
    return scrub(body)


def scrub(text: str) -> str:
    """`text` without paths of this machine: the checkout, Python, temporary and home folders."""
    top = Path(harness.__file__).resolve().parents[1]
    roots = {
        str(top): ".",
        sys.prefix: "<python>",
        sys.base_prefix: "<python>",
        tempfile.gettempdir(): "<tmp>",
        str(Path.home()): "~",
    }
    for root, word in sorted(roots.items(), key=lambda item: -len(item[0])):
        if len(root) > 1:
            text = re.sub(rf"{re.escape(root)}(?=[/\\&\s\"'<]|$)", word.replace("<", "&lt;"), text)
    return text


def _check_parameters(
    known: Mapping[str, Any], given: Mapping[str, Parameter], notebook: Path
) -> None:
    """papermill only notes an unknown parameter; here it is an error."""
    for name, value in given.items():
        if name not in known:
            raise UsageError(
                f"{notebook.name} has no parameter {name!r}; it has {', '.join(known) or 'none'}"
            )
        if not isinstance(value, Parameter):
            kind = type(value).__name__
            raise UsageError(f"{notebook.name}: {name} is a {kind}; give text, a number or a bool")


@contextmanager
def _jupyter(scratch: Path) -> Iterator[Any]:
    """Surroundings of a kernel that needs no registration and leaves nothing in the home folder.

    Yields the configuration that makes the kernel talk over local sockets. These live in a
    folder of their own, because the system allows them about 100 characters of path.
    """
    from traitlets.config import Config

    with tempfile.TemporaryDirectory(prefix="qb-") as runtime:
        own = {
            "JUPYTER_PATH": "",
            "JUPYTER_PREFER_ENV_PATH": "1",
            "JUPYTER_PLATFORM_DIRS": "1",
            "JUPYTER_CONFIG_DIR": str(scratch / "config"),
            "JUPYTER_DATA_DIR": str(scratch / "data"),
            "JUPYTER_RUNTIME_DIR": runtime,
            "IPYTHONDIR": str(scratch / "ipython"),
            "MPLBACKEND": "agg",
            "PYTHONPATH": _search_path(),
        }
        before = {name: os.environ.get(name) for name in own}
        os.environ.update(own)
        try:
            ipc = {"KernelManager": {"transport": "ipc"}} if os.name == "posix" else {}
            yield Config(ipc)
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


def _search_path() -> str:
    """The kernel sees the same `harness` as this process, also in a checkout."""
    top = str(Path(harness.__file__).resolve().parents[1])
    return os.pathsep.join(filter(None, [top, os.environ.get("PYTHONPATH", "")]))


def _one_line(error: Exception) -> str:
    """`Error: what happened`, for papermill's long messages the cell's own error."""
    name, value = getattr(error, "ename", None), getattr(error, "evalue", None)
    text = f"{name}: {value}" if name else f"{type(error).__name__}: {error}"
    return scrub(" ".join(text.split()))[:300]
