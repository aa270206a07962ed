"""Where the recorded training runs differ from the registered plan, which failed, how to go on."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

from harness.ablation.accuracy import FINAL, Ablation
from harness.ablation.rates import FINALISTS
from harness.analysis import outcomes
from harness.analysis.outcomes import FAILED, Arm, Subject
from harness.files import Row
from harness.summary import count, listing


def deviations(study: Ablation) -> list[str]:
    """Where the recorded runs differ from the registered plan, in sentences; [] where nowhere."""
    out = [str(words) for words in study.planned.get("deviations") or ()]
    if not study.plan:
        return [*out, "This folder's manifest holds no registered plan to compare with."]
    out += _earlier(study)
    finals = [row for row in study.rows if row["role"] == "final"]
    tuned = {row["seed"] for row in study.rows if row["role"] == "tune"}
    if both := sorted(tuned & {row["seed"] for row in finals}):
        seeds = listing([str(seed) for seed in both])
        out.append(f"Seeds {seeds} tuned the learning rate and count as final runs too.")
    out += [*_few_tuned(study), *_unstable(study)]
    for subject in outcomes.subjects(study):
        out += _unfinished(study, subject)
    return out


def _earlier(study: Ablation) -> Iterable[str]:
    """Other plans of the folder, and the trainings that were made under them."""
    if len(study.plans) > 1:
        since = f" at {study.registered_at}" if study.registered_at else ""
        yield (
            f"{len(study.plans)} plans were registered in this folder; the page is of the last "
            f"one, registered{since}."
        )
    foreign, before = study.foreign, study.before_plan
    late = [row for row in foreign if row not in before]
    for rows, when in ((before, "before"), (late, "after")):
        if rows:
            under = dict.fromkeys(str(r.get("trained_under") or r["plan_hash"])[:12] for r in rows)
            yield (
                f"{len(rows)} of {count(len(study.rows), 'training')} were made {when} this plan "
                f"was registered, under {listing(list(under), 3)}."
            )


def _few_tuned(study: Ablation) -> Iterable[str]:
    """Arms whose learning rate was chosen on fewer tuning seeds than planned.

    Of a runoff's rates it takes two to choose, so the second most tried one counts.
    """
    planned = sum(study.plan.get(key) or 0 for key in ("tuning_seeds", "runoff_seeds"))
    groups = dict[tuple[str, ...], Counter[float]]()
    for row in study.rows:
        if row["role"] == "tune" and row["status"] in FINAL:
            place = tuple(str(row[key]) for key in ("impl", "task", "arm", "budget_mode"))
            groups.setdefault(place, Counter())[row.get("learning_rate") or 0.0] += 1
    few = [
        f"{task} {arm}"
        for (_, task, arm, _), tried in groups.items()
        if min(number for _, number in tried.most_common(FINALISTS)) < planned
    ]
    if few:
        names = listing(list(dict.fromkeys(few)), 8)
        yield f"Fewer than {count(planned, 'tuning seed')} chose the learning rate of {names}."


def _unstable(study: Ablation) -> Iterable[str]:
    """Tasks whose contrasted rows come from several states of code or machine."""
    states: dict[tuple[str, str], set[str]] = {}
    for row in study.rows:
        if row["role"] == "final" and row.get("stale_key"):
            states.setdefault((str(row["impl"]), str(row["task"])), set()).add(row["stale_key"])
    mixed = [f"{task} ({impl})" for (impl, task), keys in states.items() if len(keys) > 1]
    if mixed:
        yield f"Code or machine changed between final runs that are compared: {listing(mixed, 8)}."


def _unfinished(study: Ablation, subject: Subject) -> Iterable[str]:
    """Planned arms, budget modes and seeds without a final run, and arms that no plan names."""
    found, lacking = outcomes.arms(study, subject), dict[str, list[str]]()
    for arm in found.values():
        if words := _short(arm, study):
            lacking.setdefault(words, []).append(arm.name)
    ran = {(task, arm) for task, arm, _ in found}
    for task in study.tasks:
        if not any(name == task for name, _ in ran) and _left_out(study, task):
            continue
        none = [arm for arm in study.trained(task) if (task, arm) not in ran]
        if none:
            lacking[f"{task}: no run of"] = none
        for name in study.trained(task):
            modes = study.arms[name].get("budgets") or ()
            lost = [m for m in modes if (task, name) in ran and (task, name, m) not in found]
            for mode in lost:
                lacking.setdefault(f"{task}: no run in budget mode {mode} of", []).append(name)
    if lacking:
        told = [f"{words} {listing(names, 12)}" for words, names in lacking.items()]
        yield f"{subject.name}, not finished: {listing(told, 12, '; ')}."
    if unknown := sorted({arm for _, arm in ran} - set(study.arms)):
        yield f"{subject.name}: {listing(unknown, 8)} are in no plan."


def _left_out(study: Ablation, task: str) -> bool:
    """Whether the manifest itself says that a task was left out."""
    said = study.planned.get("deviations") or ()
    return any(str(words).startswith(f"task {task}: left out") for words in said)


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
            message = str(row.get("error_msg") or row.get("error_type") or "")
            key = (str(row["status"]), str(row["task"]), str(row["role"]), message)
            groups.setdefault(key, []).append(row)
    return [
        {
            "status": status,
            "task": task,
            "arms": ", ".join(dict.fromkeys(_named(row) for row in rows)),
            "runs": count(len(rows), f"{role} run"),
            "seeds": ", ".join(map(str, sorted({int(row["seed"]) for row in rows}))),
            "counts as": _counted(status, role),
            "reason": message or _reason(study, status, rows),
            "implementation": ", ".join(dict.fromkeys(str(row["impl"]) for row in rows)),
        }
        for (status, task, role, message), rows in sorted(groups.items())
    ]


def _named(row: Row) -> str:
    mode = row.get("budget_mode", "as_is")
    return str(row["arm"]) if mode == "as_is" else f"{row['arm']} ({mode})"


def _counted(status: str, role: str) -> str:
    if status not in FAILED:
        return "no score"
    return "chance" if role == "final" else "chance in the choice of the rate"


def _reason(study: Ablation, status: str, rows: list[Row]) -> str:
    """Why trainings stopped that left no message: the rule, the steps and the losses."""
    # What trains imports the implementations' contract.
    from harness.ablation.course import DIVERGED

    rules = {
        "diverged": f"the validation loss rose above {DIVERGED:g} times its first value",
        "nonfinite": "the loss or the score was no finite number",
    }
    if status not in rules:
        return "no reason recorded"
    steps = [float(row["steps_done"]) for row in rows if row.get("steps_done") is not None]
    curves = [study.curves.get(str(row["row_key"]), {}).get("loss") or [] for row in rows]
    losses = [curve[-1] for curve in curves if curve and curve[-1] is not None]
    losses = [loss for loss in losses if math.isfinite(loss)]
    told = [f"{words} {_ends(found)}" for words, found in (("step", steps), ("loss", losses))
            if found]  # fmt: skip
    return f"{rules[status]}{f' ({listing(told)})' if told else ''}"


def _ends(values: list[float]) -> str:
    """ "7", or "7 to 20"."""
    return " to ".join(dict.fromkeys(f"{end:.3g}" for end in (min(values), max(values))))


def command(study: Ablation) -> str:
    """The command that trains all of it again, or goes on where it stopped."""
    if study.command:
        return study.command
    words = ["python -m harness ablate", str(study.planned.get("name") or "")]
    impl = study.planned.get("impl")
    return " ".join([*filter(None, words), *([f"--impl {impl}"] if impl else [])])
