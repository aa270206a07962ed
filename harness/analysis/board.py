"""The answer of an ablation as HTML without figures: a few sentences, and the board of verdicts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from harness.ablation.accuracy import Ablation
from harness.analysis import findings, outcomes
from harness.analysis.contrasts import ENOUGH, MARGIN
from harness.analysis.effects import (
    BETTER,
    EXPLORATORY,
    LITTLE_BETTER,
    LITTLE_WORSE,
    NONE,
    OPEN,
    UNINFORMATIVE,
    WORSE,
    Contrast,
)

NOTHING = f"<p>{findings.EMPTY}</p>"
SIGNS = {
    BETTER: "▲", LITTLE_BETTER: "△", WORSE: "▼", LITTLE_WORSE: "▽", NONE: "=", OPEN: "?",
    EXPLORATORY: "○", UNINFORMATIVE: "∅",
}  # fmt: skip
TONES = {
    BETTER: "up", LITTLE_BETTER: "up", WORSE: "down", LITTLE_WORSE: "down", UNINFORMATIVE: "soft",
}  # fmt: skip
MEANINGS = {
    BETTER: "better",
    LITTLE_BETTER: LITTLE_BETTER,
    WORSE: "worse",
    LITTLE_WORSE: LITTLE_WORSE,
    NONE: f"no effect: surely within ±{MARGIN:g} point",
    OPEN: "not resolved: neither a difference nor its absence is shown",
    EXPLORATORY: f"exploratory: fewer than {ENOUGH} seeds, no claim",
    UNINFORMATIVE: "uninformative at this budget",
}


def html(study: Ablation) -> str:
    """The result in words and the board of verdicts, one per implementation."""
    found = outcomes.subjects(study)
    if not found:
        return NOTHING
    parts = []
    for subject in found:
        if len(found) > 1:
            parts.append(f"<h3>{escape(subject.name)}</h3>")
        first, *rest = findings.answer(study, subject)
        parts += [
            f'<p class="lead">{escape(first)}</p>',
            f"<p>{escape(' '.join(rest))}</p>" * bool(rest),
        ]
        parts.append(_board(findings.told_of(study, subject)))
    return "\n".join(parts)


def _board(made: Sequence[Contrast]) -> str:
    """Arms down, tasks across, in each cell the verdict's sign and the difference in points."""
    tasks = list(dict.fromkeys(one.arm.task.name for one in made))
    cells = {(one.label, one.arm.task.name): one for one in made}
    rows = []
    for label, kind in dict.fromkeys((one.label, one.kind) for one in made):
        own = "".join(_cell(cells.get((label, task))) for task in tasks)
        one = next(one for one in made if one.label == label)
        changes = "the reference with other seeds" if kind == "control" else _changes(one)
        what = changes + ("" if kind == "primary" else f", {kind}")
        aside = f'<br><span class="aside">{escape(what.lstrip(", "))}</span>'
        rows.append(f'<tr><th scope="row">{escape(label)}{aside}</th>{own}</tr>')
    head = "".join(f'<th scope="col">{escape(task).replace("_", "_<wbr>")}</th>' for task in tasks)
    reference = {one.arm.task.name: one.reference for one in made}
    means = "".join(f"<td>{_level(reference[task].mean)}</td>" for task in tasks)
    words = list(dict.fromkeys(one.verdict for one in made if one.verdict in SIGNS))
    key = " · ".join(f"{SIGNS[word]} {MEANINGS[word]}" for word in SIGNS if word in words)
    counted = any("count as chance" in remark for one in made for remark in one.remarks)
    second = (
        "Second lines: 95 % intervals, not corrected; below 8 seeds the lowest and highest seed."
    )
    failed = " * with runs that failed and count as chance." * counted
    return (
        '<div class="scroll board" tabindex="0" role="region" aria-label="verdicts"><table>'
        f"<thead><tr><th>arm − reference, points</th>{head}</tr></thead><tbody>{''.join(rows)}"
        f'<tr class="soft"><th scope="row">score of the reference</th>{means}</tr></tbody></table>'
        f'</div><p class="note">{escape(key)}. {second}{failed}</p>'
    )


def _changes(one: Contrast) -> str:
    found = next(iter(one.arm.rows.values())).get("changes") or {}
    row = next(iter(one.arm.rows.values()))
    width = f", {row.get('hidden_size')} units" if one.arm.mode != "as_is" else ""
    return findings.changed(found) + width


def _level(mean: float) -> str:
    return "–" if math.isnan(mean) else f"{mean:.1f}"


def _cell(one: Contrast | None) -> str:
    if one is None or one.result is None:
        words = "–" if one is None else findings.difference(one)
        return f'<td class="soft">{escape(words)}</td>'
    tone = TONES.get(one.verdict, "")
    told = f"{SIGNS[one.verdict]} <b>{findings.signed(one.result.mean)}</b>"
    remarks = f' title="{escape("; ".join(one.remarks))}"' if one.remarks else ""
    note = "*" if any("failed" in remark for remark in one.remarks) else ""
    interval = f'<br><span class="aside">{findings.span(one)}</span>'
    words = f'<span class="unseen"> {escape(one.verdict)}</span>'
    return f'<td class="{tone}"{remarks}>{told}{note}{words}{interval}</td>'
