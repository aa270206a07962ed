"""What was planned and what became of it: arms, plan hash, deviations, failed runs, the command."""

from __future__ import annotations

from html import escape

import pandas as pd

from harness import facts
from harness.ablation.accuracy import Ablation
from harness.analysis import deviations, findings, outcomes
from harness.plots import figure, tables
from harness.plots.ablation import NOTHING
from harness.summary import count, listing


def plan(study: Ablation) -> figure.Html:
    """The registered plan: its hash, arms, tasks, seeds; and every deviation from it."""
    if not study.rows and not study.plan:
        return figure.Html(NOTHING)
    told = deviations.deviations(study)
    items = "".join(f"<li>{escape(words)}</li>" for words in told)
    words = f"<p>Deviations:</p><ul>{items}</ul>" if told else "<p>No deviation from the plan.</p>"
    return figure.Html(tables.strip(_strip(study, len(told))), words, _arms(study), _tasks(study))


def _strip(study: Ablation, differ: int) -> list[facts.Fact]:
    finals = [row for row in study.rows if row["role"] == "final"]
    bad = sum(row["status"] in outcomes.FAILED for row in finals)
    rates = study.plan.get("learning_rates") or ()
    return [
        ("plan hash", str(study.planned.get("plan_hash") or "–")[:12], ""),
        ("final runs", str(len(finals)), ""),
        ("failed", str(bad), "bad" if bad else "good"),
        ("tuning runs", str(len(study.rows) - len(finals)), ""),
        ("seeds per arm", str(study.plan.get("seeds") or "–"), ""),
        ("learning rates tried", ", ".join(f"{rate:g}" for rate in sorted(rates)) or "one", ""),
        ("deviations", str(differ), "bad" if differ else "good"),
    ]


def _arms(study: Ablation) -> str:
    """Every planned arm with its changes, the reference in full."""
    rows = [
        {
            "arm": name,
            "contrast": str(arm.get("contrast") or "–"),
            "changes": findings.changed(arm.get("changes") or study.baseline),
        }
        for name, arm in study.arms.items()
    ]
    return tables.table(pd.DataFrame(rows), wide="changes") if rows else ""


def _tasks(study: Ablation) -> str:
    rows = [
        {
            "task": name,
            "what is asked": task.about or "–",
            "metric": task.metric.replace("_", " "),
            "chance": f"{task.chance:.3g}",
            "ceiling": f"{task.ceiling:.3g}",
            "target": "–" if task.target is None else f"{task.target:.3g}",
            "version": "–" if task.version is None else str(task.version),
            "evaluation data": _data(study, name),
        }
        for name, task in study.tasks.items()
    ]
    shown = tables.table(pd.DataFrame(rows), wide="what is asked")
    return f"<details><summary>The tasks</summary>{shown}</details>" if rows else ""


def _data(study: Ablation, task: str) -> str:
    """The hash of final seed 0's evaluation sets, and how many hashes the seeds have."""
    own = [row for row in study.rows if row["task"] == task and row["role"] == "final"]
    shas = {str(row["data_sha256"]) for row in own if row.get("data_sha256")}
    first = next((str(row["data_sha256"]) for row in own
                  if row["seed"] == 0 and row.get("data_sha256")), None)  # fmt: skip
    if not shas:
        return "–"
    told = f"seed 0: {first[:12]}" if first else ""
    more = f"{count(len(shas), 'hash' if len(shas) == 1 else 'hashe')} over all seeds"
    return "; ".join(filter(None, [told, more]))


def failed_runs(study: Ablation) -> figure.Html:
    """Every run that gave no score, why, and what it counts as."""
    found = deviations.failures(study)
    if not study.rows:
        return figure.Html(NOTHING)
    if not found:
        return figure.Html(f"<p>None of the {count(len(study.rows), 'run')} failed.</p>")
    frame = pd.DataFrame(found)
    bad = [str(row["status"]) for row in study.rows if deviations.unscored(row)]
    words = listing([f"{bad.count(word)} {word}" for word in dict.fromkeys(bad)])
    return figure.Html(
        f"<p>By reason, of {count(len(study.rows), 'run')}: {escape(words)}.</p>",
        tables.table(frame, wide="arms reason"),
        figure.csv_link(frame, "failed-runs"),
    )


def reproduce_ablation(study: Ablation) -> figure.Html:
    """The command that trains all of it again, or goes on where it stopped."""
    return figure.Html(f"<pre>{escape(deviations.command(study))}</pre>")
