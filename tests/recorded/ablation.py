"""Made-up training runs in the real format; nothing here was trained.

Final scores lie around those of the pilot (a convex average cannot count), with seeded noise that
the arms of a seed share in part.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.recorded import CEILINGS, HARDWARE, _digest

BASELINE = {
    "family": "qrnn", "pooling": "fo", "kernel_width": 2, "layers": 2, "hidden_size": 64,
    "dense": False, "zoneout": 0.0, "optimiser": "adam", "learning_rate": 8e-3,
}  # fmt: skip
ARMS: dict[str, tuple[dict[str, Any], str, float, int]] = {
    "baseline": ({}, "reference", 1.0, 52),
    "f": ({"pooling": "f"}, "primary", 0.82, 35),
    "ifo": ({"pooling": "ifo"}, "primary", 1.2, 68),
    "k1": ({"kernel_width": 1}, "primary", 0.7, 27),
    "k4": ({"kernel_width": 4}, "primary", 1.5, 101),
    "zoneout": ({"zoneout": 0.1}, "primary", 1.1, 52),
    "dense": ({"dense": True}, "primary", 1.35, 78),
    "lstm": ({"family": "lstm"}, "secondary", 3.4, 69),
}
"""By arm: its changes, its contrast, milliseconds per step and thousands of parameters."""
TASKS: dict[str, dict[str, Any]] = {
    "counting": {"chance": 0.12, "ceiling": 1.0, "target": 0.95, "good": "ifo",
                 "bad": "f", "about": "How many a minus how many b so far."},
    "selective_copy": {"chance": 0.125, "ceiling": 1.0, "target": 0.9, "good": "k4",
                       "bad": "ifo", "about": "Repeat four marked symbols."},
    "mqar": {"chance": 0.06, "ceiling": 1.0, "target": 0.9, "good": "dense",
             "bad": "k1", "about": "Look values up by their keys."},
}  # fmt: skip
SCORES: dict[str, dict[str, tuple[float, float]]] = {
    "counting": {"baseline": (0.79, 0.015), "f": (0.80, 0.02), "ifo": (0.998, 0.002),
                 "k1": (0.75, 0.03), "k4": (0.835, 0.012), "zoneout": (0.79, 0.012),
                 "dense": (0.825, 0.015), "lstm": (0.97, 0.012)},
    "selective_copy": {"baseline": (0.92, 0.012), "f": (0.92, 0.012), "ifo": (0.615, 0.03),
                       "k1": (0.815, 0.02), "k4": (0.94, 0.008), "zoneout": (0.84, 0.015),
                       "dense": (0.78, 0.07), "lstm": (0.65, 0.09)},
    "mqar": {"baseline": (0.330, 0.004), "f": (0.330, 0.004), "ifo": (0.330, 0.004),
             "k1": (0.328, 0.004), "k4": (0.331, 0.004), "zoneout": (0.327, 0.006),
             "dense": (0.50, 0.02), "lstm": (0.065, 0.006)},
}  # fmt: skip
RATES = (1e-3, 2.8e-3, 8e-3, 2.2e-2, 6e-2)
MISHAPS = {
    ("selective_copy", "lstm", 3): ("diverged", "loss 41.2 is more than 3 times the first, 2.1"),
    ("selective_copy", "lstm", 7): ("diverged", "loss 17.9 is more than 3 times the first, 2.1"),
    ("mqar", "dense", 5): ("timeout", "no answer within 600 s"),
    ("counting", "zoneout", 2): ("crash", "the worker died of SIGSEGV"),
}


def write_ablation(
    folder: Path,
    seeds: int = 10,
    rates: Sequence[float] = RATES,
    mishaps: Mapping[tuple[str, str, int], tuple[str, str]] = MISHAPS,
    scores: Mapping[str, Mapping[str, tuple[float, float]]] = SCORES,
    impls: Sequence[str] = ("torch_native",),
    depths: Sequence[int] = (),
    names: Sequence[str] = tuple(ARMS),
) -> Path:
    """Write a run folder that holds training runs only, and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    arms = {name: ARMS[name] for name in names}
    for depth in depths:
        arms[f"layers{depth}"] = ({"layers": depth}, "secondary", 0.5 * depth, 26 * depth)
        more = {"layers": depth, "dense": True}
        arms[f"dense{depth}"] = (more, "secondary", 0.2 * depth**2, 10 * depth**2)
    tasks = {
        name: {**facts, "metric": "accuracy", "higher_is_better": True, "version": 1}
        for name, facts in TASKS.items() if name in scores
    }  # fmt: skip
    plan: dict[str, Any] = {"seeds": seeds, "baseline": BASELINE, "learning_rates": list(rates)}
    plan["tasks"] = [{"name": name, "seeds": seeds, "arms": None} for name in tasks]
    plan["arms"] = [
        {"name": name, "changes": changes, "contrast": contrast, "tasks": None}
        for name, (changes, contrast, _, _) in arms.items()
    ]
    registered = {"name": "claim", "impl": impls[0], "plan_hash": _digest(plan, 64)}
    registered |= {"registered": plan, "tasks": tasks, "deviations": []}
    manifest = {"schema_version": 1, "protocol_version": 1, "run_id": "made-up", "profile": "claim"}
    manifest |= {"created_at": "2026-11-22T02:00:00+00:00", "machine": HARDWARE}
    manifest |= {"ceilings": CEILINGS, "ablation": registered}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    rows, curves = [], []
    for impl in impls:
        for task in tasks:
            for arm, what in arms.items():
                best = 6e-2 if rates and arm == "k1" else 8e-3
                jobs = [("final", seed, best) for seed in range(seeds)]
                jobs += [("tune", 1000 + s, rate) for rate in rates for s in range(2)]
                for role, seed, rate in jobs:
                    row, curve = _run(impl, task, arm, what, (role, seed, rate), scores, rates)
                    mishap = mishaps.get((task, arm, seed)) if role == "final" else None
                    rows.append(_failed(row, *mishap) if mishap else row)
                    curves += [] if mishap else [curve]
    for name, lines in (("ablation", rows), ("curves", curves)):
        same = {"schema_version": 1, "plan_hash": registered["plan_hash"]}
        text = "".join(json.dumps(line | same) + "\n" for line in lines)
        (folder / f"{name}.jsonl").write_text(text)
    return folder


def _run(
    impl: str, task: str, arm: str, what: tuple[dict[str, Any], str, float, int],
    job: tuple[str, int, float], scores: Mapping[str, Mapping[str, tuple[float, float]]],
    rates: Sequence[float],
) -> tuple[dict[str, Any], dict[str, Any]]:  # fmt: skip
    changes, contrast, ms, kilo = what
    role, seed, rate = job
    framework = impl.partition("_")[0]
    key = _digest([impl, task, arm, role, seed, rate], 16)
    own = np.random.default_rng(int(_digest([impl, task, arm, seed, rate], 8), 16))
    common = np.random.default_rng(int(_digest([task, seed], 8), 16)).standard_normal()
    mean, spread = scores[task].get(arm, scores[task]["baseline"])
    final = mean + spread * (0.5 * common + 0.85 * own.standard_normal())
    if role == "tune":
        final -= 0.25 * mean * np.log10(rate / (6e-2 if arm == "k1" else 8e-3)) ** 2
    chance, target = TASKS[task]["chance"], TASKS[task]["target"]
    final = float(np.clip(final, chance, 1.0))
    steps = [int(s) for s in np.unique(np.geomspace(8, 350, 12).round())]
    rise = 1 / (1 + np.exp(-3.2 * np.log(np.array(steps) / own.uniform(60, 110))))
    test = chance + (final - chance) * rise / rise[-1]
    reached = [step for step, value in zip(steps, test, strict=True) if value >= target]
    name = f"lstm_{framework}" if arm == "lstm" else impl
    row = {
        "record": "accuracy", "run_id": "made-up", "row_key": key,
        "impl": name, "framework": framework, "device": "cpu", "threads": 1, "dtype": "float32",
        "task": task, "task_version": 1, "data_sha256": _digest(task, 64), "arm": arm,
        "changes": changes, "contrast": contrast, "budget_mode": "as_is", "hidden_size": 64,
        "params": 1000 * kilo, "flops_per_step": 4e6 * kilo, "role": role, "seed": seed,
        "learning_rate": rate, "lr_edge": (arm == "k1" and role == "final") if rates else None,
        "steps": 350, "steps_done": 350, "status": "ok", "stop_reason": "budget",
        "metric_name": "accuracy", "metric": None if role == "tune" else final,
        "validation": final + 0.004 * own.normal(),
        "auc": float(test.mean()), "steps_to_target": reached[0] if reached else None,
        "train_loss": 1 - final, "wall_s": 0.4 * ms, "cpu_s": 0.4 * ms, "error_type": None,
        "ms_per_step": ms * float(np.exp(0.03 * own.standard_normal())),
        "peak_bytes": 40_000_000 + 90_000 * kilo, "error_msg": None,
        "started_at": "2026-11-22T02:00:00+00:00", "ended_at": "2026-11-22T02:00:05+00:00",
    }  # fmt: skip
    curve = {"row_key": key, "steps": steps, "test": test.tolist(), "loss": (2 - test).tolist()}
    return row, curve | {"validation": (test + 0.004 * own.standard_normal(len(test))).tolist()}


def _failed(row: dict[str, Any], status: str, message: str) -> dict[str, Any]:
    unknown = dict.fromkeys("metric validation auc train_loss steps_to_target".split())
    stop = "diverged" if status == "diverged" else None
    row = row | unknown | {"status": status, "stop_reason": stop, "steps_done": 120}
    return row | {"error_type": status, "error_msg": message}
