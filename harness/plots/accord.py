"""Do two implementations agree? Their differences to their own references, side by side."""

from __future__ import annotations

from html import escape

import pandas as pd

from harness.ablation.accuracy import Ablation
from harness.analysis import accord, findings
from harness.plots import figure, tables
from harness.plots.ablation import NOTHING


def implementations(*studies: Ablation) -> figure.Html:
    """The contrasts that two implementations trained, in one folder or in several."""
    parts = []
    for (first, second), both in accord.sides(*studies).items():
        rows = [
            {
                "task": side.one.arm.task.name,
                "arm": side.one.label,
                first.name: f"{findings.difference(side.one)}, {side.one.verdict}",
                second.name: f"{findings.difference(side.other)}, {side.other.verdict}",
                "gap": f"{side.gap:.1f}",
                "same sign": "yes" if side.same_sign else "no",
            }
            for side in both
        ]
        frame = pd.DataFrame(rows)
        parts.append(f"<p>{escape(accord.words(first, second, both))}</p>{tables.table(frame)}")
        parts.append(figure.csv_link(frame, figure.slug("accord", first.name, second.name)))
    if parts or not any(study.rows for study in studies):
        return figure.Html(*(parts or [NOTHING]))
    return figure.Html(
        "<p>One implementation was trained in this folder. <code>quasibench ablate NAME --impl "
        "OTHER --out FOLDER</code> with this folder adds another, and this section compares.</p>"
    )
