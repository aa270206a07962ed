"""Where runs and pages go: under `reports/` in a checkout, else in the current folder."""

from __future__ import annotations

from pathlib import Path


def checkout() -> Path | None:
    """Top of the source checkout that this package runs from, or None when installed."""
    top = Path(__file__).resolve().parent.parent
    return top if (top / "noxfile.py").exists() and (top / "reports").is_dir() else None


def run_folder(profile: str) -> Path:
    """Default folder of a profile's recorded rows."""
    top = checkout()
    return (top / "reports" / "runs" if top else Path("quasibench-runs")) / profile


def html_folder() -> Path:
    """Default folder of the rendered pages."""
    top = checkout()
    return top / "reports" / "html" if top else Path("quasibench-html")
