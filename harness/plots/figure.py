"""Turn matplotlib figures into HTML that reads in light and dark, on paper-wide and phone screens.

Text stays text and takes the page's colour, ids are private to each figure, every figure has
words for a screen reader and its numbers as a CSV link.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from html import escape
from typing import Any

import matplotlib as mpl
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from seaborn.utils import relative_luminance

GREY = "#7a7f87"
"""Readable on white and on near-black: frames, grid lines, hatching."""

CSV_LIMIT = 50_000
RASTER_MARKS = 2_000
RASTER_DPI = 144
COARSE_MARKS, COARSE_DPI = 20_000, 96
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
GLYPHS = dict(zip(MARKERS, "●■▲◆▼✚✖★", strict=True))

_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.image_inline": True,
    "savefig.transparent": True,
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.labelsize": 9,
    "axes.edgecolor": GREY,
    "axes.linewidth": 0.8,
    "grid.color": GREY,
    "grid.alpha": 0.25,
    "hatch.color": GREY,
    "hatch.linewidth": 0.6,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": "black",
    "ytick.labelcolor": "black",
    "axes.spines.top": False,
    "axes.spines.right": False,
}


class Html:
    """A piece of HTML that a notebook displays."""

    def __init__(self, *parts: str) -> None:
        self.text = "\n".join(parts)

    def _repr_html_(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"Html({len(self.text)} characters)"


@contextmanager
def drawing(width: float, height: float, dpi: int = RASTER_DPI) -> Iterator[Figure]:
    """A new figure of `width` x `height` inches in the project's style, outside pyplot's list.

    `dpi` is that of rasterised marks; all else is drawn as lines and text.
    """
    with mpl.rc_context(_STYLE), sns.axes_style(_STYLE):
        yield Figure(figsize=(width, height), dpi=dpi, layout="constrained")


def svg(figure: Figure, name: str, words: str) -> str:
    """The figure as inline SVG: `name` makes its ids unique on the page, `words` describe it."""
    buffer = io.StringIO()
    with mpl.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", dpi="figure", metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)
    text = _private_ids(_compact(text), name)
    head = re.match(r"<svg[^>]*>", text)
    width = float(re.search(r'width="([\d.]+)pt"', text)[1]) * 4 / 3  # type: ignore[index]
    box = re.search(r'viewBox="([^"]+)"', text)[1]  # type: ignore[index]
    opening = (
        f'<svg viewBox="{box}" style="width:{width:.0f}px;min-width:{0.8 * width:.0f}px" '
        f'fill="currentColor" role="img" '
        f'aria-label="{escape(words)}" xmlns:xlink="http://www.w3.org/1999/xlink">'
        f"<title>{escape(words)}</title>"
    )
    return re.sub(r"\n\s*", "\n", opening + text[head.end() :])  # type: ignore[union-attr]


def panel(figure: Figure, name: str, words: str, data: pd.DataFrame | None = None) -> str:
    """One figure of a page with the CSV link of its numbers."""
    link = "" if data is None else csv_link(data, name)
    return f'<figure class="panel">{svg(figure, name, words)}{link}</figure>'


def row(panels: Sequence[str]) -> str:
    """Panels side by side where there is room, below each other on a phone."""
    return f'<div class="panels">{"".join(panels)}</div>'


def csv_link(data: pd.DataFrame, name: str) -> str:
    """A link that holds `data` as CSV, or a word about where the numbers are if it is large."""
    uri = "data:text/csv;base64," + base64.b64encode(csv_text(data).encode()).decode()
    if len(uri) >= CSV_LIMIT:
        return '<p class="csv">Too large to embed as CSV; the run folder holds the rows.</p>'
    return (
        f'<p class="csv"><a download="{escape(name)}.csv" href="{uri}">CSV of this figure</a></p>'
    )


def csv_text(data: pd.DataFrame) -> str:
    """`data` as CSV with six significant digits."""
    return str(data.to_csv(index=False, float_format="%.6g", lineterminator="\n"))


def palette(names: Sequence[str]) -> dict[str, tuple[str, str]]:
    """(colour, marker) of every contender: told apart by shape where colours are alike."""
    colours = sns.color_palette("colorblind").as_hex()
    return {
        name: (colours[i % len(colours)], MARKERS[i % len(MARKERS)])
        for i, name in enumerate(sorted(names))
    }


def legend(names: Sequence[str]) -> str:
    """The key of colours and markers, as text that wraps."""
    items = (
        f'<li><span style="color:{colour}" aria-hidden="true">{GLYPHS[marker]}</span> '
        f"{escape(name)}</li>"
        for name, (colour, marker) in palette(names).items()
    )
    return f'<ul class="legend">{"".join(items)}</ul>'


def ink(colour: Any) -> str:
    """Near-black or white, whichever reads better on `colour`."""
    return "#111111" if relative_luminance(colour) > 0.19 else "#ffffff"


def readable(axes: Axes) -> None:
    """Give the numbers of a seaborn heat map the ink that suits their cells."""
    (mesh,) = axes.collections
    colours = mesh.get_facecolor()
    columns = round(axes.get_xlim()[1])
    for text in axes.texts:
        across, down = text.get_position()
        text.set_color(ink(colours[int(down) * columns + int(across)]))


def slug(*words: object) -> str:
    """A name for files and ids from words."""
    return re.sub(r"[^a-z0-9]+", "-", " ".join(map(str, words)).lower()).strip("-")


def _compact(text: str) -> str:
    """Black becomes the page's text colour, the font the page's; shorter numbers and images."""
    text = re.sub(r"#000000|(?<=: )black\b", "currentColor", text)
    text = re.sub(r"font-family: [^;\"]*", "font-family: sans-serif", text)
    text = re.sub(r"<[^>]*>", lambda tag: re.sub(r"(?<=\d\.\d\d)\d+", "", tag[0]), text)
    text = re.sub(r' transform="rotate\(-0 [^"]*"', "", text)
    return re.sub(r"(?<=data:image/png;base64,)[^\"]+", _few_colours, text)


def _few_colours(match: re.Match[str]) -> str:
    """An embedded PNG with a palette: a quarter of the bytes, no visible difference."""
    image = Image.open(io.BytesIO(base64.b64decode(match[0])))
    small = io.BytesIO()
    image.quantize(48, method=Image.Quantize.FASTOCTREE).save(small, "PNG", optimize=True)
    return base64.b64encode(small.getvalue()).decode()


def _private_ids(text: str, name: str) -> str:
    """Prefix the ids that the figure refers to, drop all others: many figures share a page."""
    used = set(re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', text))
    names = {a or b for a, b in used}

    def rename(match: re.Match[str]) -> str:
        return f' id="{name}-{match[1]}"' if match[1] in names else ""

    text = re.sub(r'\sid="([^"]+)"', rename, text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", text)
    return re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', text)
