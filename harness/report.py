"""A run folder to HTML pages: one per notebook, and an index with the verdict."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import harness
import impls
from harness import paths
from harness.ablation import accuracy
from harness.errors import UsageError, nearest
from harness.machine import system
from impls.contract import PARTS

NOTEBOOKS = ("speed", "floor", "ablation", "equivalence")
"""Pages in the order of the navigation; a further notebook in the folder follows them."""

ABOUT = {
    "speed": "Speedup to the LSTM per batch and length, distance to the machine's floor, samples.",
    "floor": "A layer beside its products and its pooling alone, and what it had to reach.",
    "ablation": "What each choice costs or gains in accuracy: verdicts, learning curves, plan.",
    "equivalence": "Every implementation against the float64 oracle: errors, claims, failures.",
}
NEEDED = ("pandas", "ipykernel", "nbconvert", "papermill", "seaborn")
PAGE_LIMIT = 1_500_000
"""Bytes of one page; a larger one is written, and reported as failed."""


@dataclass(frozen=True)
class Page:
    """A rendered page: its file's stem, its title, and what failed in it (None: nothing)."""

    name: str
    title: str
    about: str
    failed: str | None


class ReportFailedError(Exception):
    """The pages are written, but some are incomplete.

    Attributes:
        index: path of index.html, whose banner says the same.
        pages: the incomplete ones.
    """

    def __init__(self, index: Path, pages: Sequence[Page]) -> None:
        self.index, self.pages = index, tuple(pages)
        words = "; ".join(f"{page.name}.html is incomplete ({page.failed})" for page in pages)
        super().__init__(f"{words}; the rest is in {index}")


def source_folder() -> Path:
    """Folder of notebooks and template: `reports/` in a checkout, `harness/_reports` installed.

    Raises:
        UsageError: neither is there.
    """
    package = Path(harness.__file__).resolve().parent
    for folder in (package.parent / "reports", package / "_reports"):
        if (folder / "template" / "conf.json").is_file():
            return folder
    raise UsageError(f"no report notebooks: neither reports/ nor {package.name}/_reports is there")


def render(
    folder: str | Path, out: str | Path | None = None, notebooks: Sequence[str] | None = None
) -> Path:
    """Render a run folder's pages and their index.

    Args:
        folder: a run folder, only read.
        out: folder of the pages, made if absent; None = `harness.paths.html_folder()`.
        notebooks: names such as "speed", or paths of further notebooks with a `run_dir`
            parameter; None = all of the source folder that the run has rows for.

    Returns:
        path of index.html.

    Raises:
        UsageError: not a run folder, an unknown notebook, or the extra `report` is missing.
        ReportFailedError: a notebook failed; all pages are written, with a banner in its place.
    """
    _check_installed()
    from harness import results

    folder = Path(folder).resolve()
    manifest = results.load_manifest(folder)
    sources = source_folder()
    files = _chosen(sources, notebooks)
    if notebooks is None:
        without = _unused(folder)
        files = [file for file in files if file.stem not in without]
    out = Path(out) if out is not None else paths.html_folder()
    out.mkdir(parents=True, exist_ok=True)
    names = [file.stem for file in files]
    pages = _pages(files, names, folder, sources, out)
    index = out / "index.html"
    index.write_text(_index(sources, folder, manifest, pages), encoding="utf-8")
    failed = [page for page in pages if page.failed]
    if failed:
        raise ReportFailedError(index, failed)
    return index


def _check_installed() -> None:
    if (name := lacking()) is not None:
        raise UsageError(
            f"rendering pages needs {name}, which is not installed; "
            'run: pip install "quasibench[report]"'
        )


def lacking() -> str | None:
    """The first package that rendering needs and that is not installed; None: all are."""
    return next((name for name in NEEDED if impls.absent(name)), None)


def _chosen(sources: Path, notebooks: Sequence[str] | None) -> list[Path]:
    """Files of the wanted notebooks."""
    found = {path.stem: path for path in sorted(sources.glob("*.ipynb"))}
    if notebooks is None:
        order = [*NOTEBOOKS, *(name for name in found if name not in NOTEBOOKS)]
        return [found[name] for name in order if name in found]
    files = []
    for name in notebooks:
        path = found.get(name, Path(name))
        if path.suffix != ".ipynb" or not path.is_file():
            hint = nearest(name, found)
            raise UsageError(f"no notebook {name!r}{hint} (there are {', '.join(found)})")
        files.append(path)
    return files


def _unused(folder: Path) -> set[str]:
    """Pages that a folder has no rows for, unless they are asked for by name."""
    from harness import results

    cells, trained = results.load(folder, parts=True), accuracy.recorded(folder)
    out = set() if cells["mode"].isin(PARTS).any() else {"floor"}
    if not trained:
        return out | {"ablation"}
    if cells.empty:
        out.add("speed")
        if results.load_equivalence(folder).empty:
            out.add("equivalence")
    return out


def _pages(
    files: Sequence[Path], names: list[str], folder: Path, sources: Path, out: Path
) -> list[Page]:
    """All pages, side by side in processes: each kernel start waits more than it computes."""
    with ProcessPoolExecutor(
        max_workers=min(len(files), system.cores()), mp_context=get_context("spawn")
    ) as pool:
        made = [pool.submit(_page, file, names, folder, sources, out) for file in files]
        return [page.result() for page in made]


def _page(file: Path, names: list[str], folder: Path, sources: Path, out: Path) -> Page:
    """Execute and write one page; a failing notebook gives an incomplete one."""
    from harness import render as renderer

    with tempfile.TemporaryDirectory(prefix="quasibench-report-") as scratch:
        parameters = {"run_dir": str(folder)}
        executed, failed = renderer.execute(file, parameters, Path(scratch))
    title = executed.metadata.get("title", file.stem)
    html = renderer.to_html(executed, sources, title, file.stem, names, failed)
    html = html.replace(str(folder), folder.name)
    (out / f"{file.stem}.html").write_text(html, encoding="utf-8")
    size = len(html.encode())
    if failed is None and size > PAGE_LIMIT:
        failed = f"{size / 1e6:.1f} MB, allowed are {PAGE_LIMIT / 1e6:.1f}"
    return Page(file.stem, title, ABOUT.get(file.stem, ""), failed)


def _index(sources: Path, folder: Path, manifest: dict[str, Any], pages: list[Page]) -> str:
    """The index page: verdict, status, proofs, machine, command."""
    from jinja2 import Environment, FileSystemLoader

    from harness import facts, results, summary
    from harness.analysis import board, deviations

    rows, checks = results.load(folder), results.load_equivalence(folder)
    study = results.load_ablation(folder)
    alone = rows.empty and bool(study.rows)
    template = sources / "template"
    environment = Environment(loader=FileSystemLoader(template), autoescape=True)
    return environment.get_template("front.html.j2").render(
        style=(template / "style.css").read_text(encoding="utf-8"),
        profile=manifest.get("profile", folder.name),
        speed=[] if alone else summary.verdict(rows),
        accuracy=board.html(study) if study.rows else "",
        strip=[] if alone else facts.strip(rows, manifest),
        proof=[] if alone and checks.empty else facts.proof(checks),
        notes=rows.attrs["notes"] + checks.attrs["notes"] + study.notes,
        pages=pages,
        machine=facts.machine(manifest),
        command=deviations.command(study) if alone else facts.command(manifest),
    )
