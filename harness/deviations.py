"""Where the recorded training runs differ from the registered plan, which failed, how to go on."""

from __future__ import annotations

from collections.abc import Iterable

from harness import outcomes
from harness.accuracy import Ablation
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
    found = outcomes.arms(study, subject)
    lacking = [words for arm in found.values() if (words := _short(arm, study))]
    ran = {(task, arm) for task, arm, _ in found}
    for task in study.tasks:
        none = [arm for arm in study.trained(task) if (task, arm) not in ran]
        if none:
            lacking.append(f"{task}: no run of {listing(none, 12)}")
    if lacking:
        yield f"{subject.name}, not finished: {listing(lacking, 8, '; ')}."
    if unknown := sorted({arm for _, arm in ran} - set(study.arms)):
        yield f"{subject.name}: {listing(unknown, 8)} are in no plan."


def _short(arm: Arm, study: Ablation) -> str:
    """What an arm lacks of its planned seeds, in words."""
    seeds = study.seeds(arm.task.name)
    missing = 0 if seeds is None else seeds - len(arm.scores)
    why = f" ({listing(sorted(set(arm.unavailable)))})" if arm.unavailable else ""
    lacks = f"{arm.task.name}, {arm.name}: {missing} of {seeds} seeds{why}"
    return lacks if missing > 0 else ""


def failures(study: Ablation) -> list[dict[str, object]]:
    """Every run without a score, grouped: status, task, arm, role, seeds, message."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for row in study.rows:
        if row["status"] != "ok" or row["metric"] is None:
            message = str(row.get("error_msg") or row.get("error_type") or "no reason recorded")
            who = (str(row["status"]), str(row["task"]), str(row["arm"]), str(row["impl"]))
            groups.setdefault((*who, str(row["role"]), message), []).append(int(row["seed"]))
    return [
        {
            "status": status,
            "task": task,
            "arm": arm,
            "implementation": impl,
            "runs": count(len(seeds), f"{role} run"),
            "seeds": ", ".join(map(str, sorted(set(seeds)))),
            "counts as": "chance" if status in FAILED and role == "final" else "no score",
            "reason": message,
        }
        for (status, task, arm, impl, role, message), seeds in sorted(groups.items())
    ]


def command(study: Ablation) -> str:
    """The command that trains all of it again, or goes on where it stopped."""
    words = ["python -m harness ablate", str(study.planned.get("name") or "")]
    impl = study.planned.get("impl")
    return " ".join([*filter(None, words), *([f"--impl {impl}"] if impl else [])])
