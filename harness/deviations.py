"""Where the recorded training runs differ from the registered plan, which failed, how to go on."""

from __future__ import annotations

from collections.abc import Iterable

from harness import outcomes
from harness.accuracy import Ablation
from harness.files import Row
from harness.outcomes import FAILED, Arm, Subject
from harness.summary import count, listing


def deviations(study: Ablation) -> list[str]:
    """Where the recorded runs differ from the registered plan, in sentences; [] where nowhere."""
    out = [str(words) for words in study.planned.get("deviations") or ()]
    if not study.plan:
        return [*out, "This folder's manifest holds no registered plan to compare with."]
    registered = study.planned.get("plan_hash")
    foreign = sum(row["plan_hash"] != registered for row in study.rows)
    if foreign:
        out.append(f"{count(foreign, 'run')} of {len(study.rows)} were made under another plan.")
    finals = [row for row in study.rows if row["role"] == "final"]
    tuned = {row["seed"] for row in study.rows if row["role"] == "tune"}
    if both := sorted(tuned & {row["seed"] for row in finals}):
        seeds = listing([str(seed) for seed in both])
        out.append(f"Seeds {seeds} tuned the learning rate and count as final runs too.")
    for subject in outcomes.subjects(study):
        out += _unfinished(study, subject)
    return out


def _unfinished(study: Ablation, subject: Subject) -> Iterable[str]:
    """Planned arms and seeds without a final run, and arms that no plan names."""
    found, lacking = outcomes.arms(study, subject), dict[str, list[str]]()
    for arm in found.values():
        if words := _short(arm, study):
            lacking.setdefault(words, []).append(arm.name)
    ran = {(task, arm) for task, arm, _ in found}
    for task in study.tasks:
        none = [arm for arm in study.trained(task) if (task, arm) not in ran]
        if none:
            lacking[f"{task}: no run of"] = none
    if lacking:
        told = [f"{words} {listing(names, 12)}" for words, names in lacking.items()]
        yield f"{subject.name}, not finished: {listing(told, 12, '; ')}."
    if unknown := sorted({arm for _, arm in ran} - set(study.arms)):
        yield f"{subject.name}: {listing(unknown, 8)} are in no plan."


def _short(arm: Arm, study: Ablation) -> str:
    """What an arm lacks of its planned seeds, in words; "" where nothing."""
    seeds = study.seeds(arm.task.name)
    missing = 0 if seeds is None else seeds - len(arm.scores)
    why = f" ({listing(sorted(set(arm.unavailable)))})" if arm.unavailable else ""
    mode = "" if arm.mode == "as_is" else f", {arm.mode}"
    return f"{arm.task.name}{mode}: {missing} of {seeds} seeds{why} of" if missing > 0 else ""


def unscored(row: Row) -> bool:
    """Whether a run has no score: it failed, or never ran. Tuning runs see no test set."""
    return row["status"] != "ok" or (row["metric"] is None and row["role"] == "final")


def failures(study: Ablation) -> list[dict[str, str]]:
    """Runs without a score, alike ones together: status, task, arms, runs, seeds, reason."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in study.rows:
        if unscored(row):
            message = str(row.get("error_msg") or row.get("error_type") or "no reason recorded")
            key = (str(row["status"]), str(row["task"]), str(row["role"]), message)
            groups.setdefault(key, []).append(row)
    return [
        {
            "status": status,
            "task": task,
            "arms": ", ".join(dict.fromkeys(str(row["arm"]) for row in rows)),
            "runs": count(len(rows), f"{role} run"),
            "seeds": ", ".join(map(str, sorted({int(row["seed"]) for row in rows}))),
            "counts as": "chance" if status in FAILED and role == "final" else "no score",
            "reason": message,
            "implementation": ", ".join(dict.fromkeys(str(row["impl"]) for row in rows)),
        }
        for (status, task, role, message), rows in sorted(groups.items())
    ]


def command(study: Ablation) -> str:
    """The command that trains all of it again, or goes on where it stopped."""
    words = ["python -m harness ablate", str(study.planned.get("name") or "")]
    impl = study.planned.get("impl")
    return " ".join([*filter(None, words), *([f"--impl {impl}"] if impl else [])])
