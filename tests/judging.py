"""Rows of made training runs and the verdicts on them, for the tests of the analysis."""

from harness.ablation.accuracy import Ablation, TaskFacts
from harness.analysis import effects, outcomes

COUNTING = TaskFacts("counting", chance=0.1, target=0.9, good="ifo", bad="f")
WIGGLE = [0.002, -0.001, 0.0, 0.003, -0.002, 0.001, -0.003, 0.002, 0.0, -0.002]


def rows_of(arm, scores, contrast="primary", task="counting", **more):
    """Final rows of an arm; a word among the scores is the status of a run that failed."""
    shared = {"task": task, "arm": arm, "contrast": contrast, "role": "final", "impl": "numpy_made"}
    shared |= {"framework": "torch", "device": "cpu", "dtype": "float32", "budget_mode": "as_is"}
    shared |= {"changes": {}, "plan_hash": "abc", "metric_name": "accuracy", "ms_per_step": 1.0}
    rows = []
    for seed, score in enumerate(scores):
        failed = isinstance(score, str)
        key = f"{task} {arm} {seed} {more.get('budget_mode')} {more.get('impl')}"
        row = {**shared, "seed": seed, "row_key": key, "steps_to_target": 100, **more}
        status = {"status": score if failed else "ok", "metric": None if failed else score}
        rows.append(row | status)
    return rows


def study_of(*groups, tasks=(COUNTING,), planned=None):
    rows = [row for group in groups for row in group]
    return Ablation(rows, tasks={task.name: task for task in tasks}, planned=planned or {})


def reference(level=0.5, seeds=10, **more):
    return rows_of("fo", [level + w for w in WIGGLE[:seeds]], "reference", **more)


def verdicts(study):
    (subject,) = outcomes.subjects(study)
    return {one.label: one for one in effects.contrasts(study, subject)}


def arm(name, gap, seeds=10, **more):
    noise = WIGGLE[::-1]
    return rows_of(name, [0.5 + gap + w for w in noise[:seeds]], **more)


def again(gap=0.0, **more):
    rows = arm("again", gap, contrast="control", **more)
    return [row | {"seed": row["seed"] + 100, "row_key": row["row_key"] + "+"} for row in rows]
