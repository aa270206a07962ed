"""A made-up run folder in the real format: nine cells, two kinds, six contenders, every mishap.

Times follow a simple law of batch and steps with seeded noise; nothing here was measured.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

HARDWARE = {
    "comparable": {
        "cpu": "Example CPU 2.6 GHz",
        "cpu_flags": ["fma", "avx2", "avx512f"],
        "cores": 2,
        "architecture": "x86_64",
        "system": "Linux",
        "gpus": [],
        "python": "3.11",
        "numpy": "2.4.6",
        "threads": 2,
        "environment": {},
    },
    "recorded": {
        "host_id": "0123456789ab",
        "kernel": "6.1.0",
        "versions": {"torch": "2.13.0", "jax": "0.10.2", "cupy": None},
        "memory_bytes": 8 * 2**30,
        "load": 0.4,
    },
}
CEILINGS = {
    "gemm_flops": {"float32": 1.1e11},
    "copy_bytes": 1.2e10,
    "dispatch_s": 4e-6,
    "exp_rate": 6e8,
    "step_s": 9e-6,
    "source": "torch 2.13.0, 2 threads",
}
IMPLS = {
    "lstm_torch": ("lstm", "torch", "2.13.0", 1.0),
    "lstm_jax": ("lstm", "jax", "0.10.2", 1.5),
    "torch_eager": ("qrnn", "torch", "2.13.0", 0.0),
    "jax_scan": ("qrnn", "jax", "0.10.2", 0.0),
    "jax_associative": ("qrnn", "jax", "0.10.2", 0.0),
    "cupy_kernel": ("qrnn", "cupy", None, 0.0),
}
"""(family, framework, version, factor of an LSTM)."""

BATCHES, STEPS, KINDS = (1, 8, 32), (32, 128, 512), ("forward", "backward")
DTYPES = {"float32": 2e-6, "bfloat16": 6e-3, "float64": 1e-12}
CLAIMS = {
    "values_equal_oracle": "outputs equal the oracle's",
    "states_equal_oracle": "the carried state equals the oracle's",
    "gradients_equal_oracle": "every gradient equals the oracle's",
    "stream_equals_sequence": "uneven chunks with the state carried equal one pass",
    "padded_equals_per_sequence": "a padded batch equals its sequences run one by one",
    "causality": "no output depends on a later input",
    "zoneout_mask_equals_oracle": "the zoneout mask is the Philox mask of its seed",
    "long_sequences_stay_accurate": "4096 steps stay as accurate as 32",
}


def write_run(
    folder: Path,
    batches: tuple[int, ...] = BATCHES,
    steps: tuple[int, ...] = STEPS,
    rounds: int = 30,
    repeats: int = 1,
    profile: str = "default",
) -> Path:
    """Write a run folder and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    manifest = {
        "schema_version": 1,
        "protocol_version": 1,
        "run_id": "made-up",
        "profile": profile,
        "created_at": "2026-11-21T12:00:00+00:00",
        "machine": HARDWARE,
        "ceilings": CEILINGS,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    places = [
        (kind, batch, length, repeat)
        for kind in KINDS
        for batch in batches
        for length in steps
        for repeat in range(repeats)
    ]
    with (folder / "cells.jsonl").open("w") as cells:
        members = []
        for place in places:
            rows, samples = sitting(*place, rounds)
            cells.writelines(json.dumps(row) + "\n" for row in rows)
            members.append(gzip.compress("".join(json.dumps(s) + "\n" for s in samples).encode()))
    (folder / "samples.jsonl.gz").write_bytes(b"".join(members))
    checks = "".join(json.dumps(row) + "\n" for row in equivalence())
    (folder / "equivalence.jsonl").write_text(checks)
    return folder


def sitting(
    kind: str, batch: int, length: int, repeat: int = 0, rounds: int = 30, tag: str = "first"
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows and samples of one grid point; `tag` tells a second sitting from the first."""
    point = {"kind": kind, "batch": batch, "steps": length, "repeat": repeat}
    point_id = _digest(point, 12)
    rng = np.random.default_rng(int(point_id, 16))
    shared = {
        "schema_version": 1,
        "record": "speed",
        "run_id": "made-up",
        "profile": "default",
        "point_id": point_id,
        "sitting_id": _digest([point_id, tag], 12),
        **point,
        "device": "cpu",
        "dtype": "float32",
        "ragged": False,
        "threads": 2,
        "mode": "default",
        "input_size": 320,
        "hidden_size": 320,
        "layers": 1,
        "kernel_width": 2,
        "pooling": "fo",
        "zoneout": 0.0,
        "zoneout_mode": "keep",
        "zoneout_eval": "off",
        "dense": False,
        "bidirectional": False,
        "python": "3.11.9",
    }
    drift = 1 + 0.05 * np.abs(rng.standard_normal(rounds)) + 0.4 * (rng.random(rounds) < 0.06)
    rows, samples = [], []
    for impl, twin in [*((name, False) for name in IMPLS), ("lstm_torch", True)]:
        row = {**shared, **_identity(point_id, impl, twin), **_fate(impl, kind, batch, length)}
        if row["status"] == "ok":
            noise = drift * np.exp(0.02 * rng.standard_normal(rounds))
            wall = 1e9 * call_s(impl, kind, batch, length) * noise
            row |= _timing(row, wall)
            samples += _turns(row, wall, rng)
        rows.append(row)
    _ratios(rows, noisy=(kind, batch, length) == ("backward", 1, 32))
    return rows, samples


def call_s(impl: str, kind: str, batch: int, length: int) -> float:
    """Seconds of one call by a simple law."""
    work = batch * length * (3 if kind == "backward" else 1)
    per_step = {"torch_eager": 90e-6, "jax_scan": 18e-6}.get(impl, 4e-6)
    slower = 2.2 if impl == "jax_associative" and batch == 32 else 1.0
    qrnn = slower * (19e-6 + 3e-7 * batch) * work + per_step * length
    factor = IMPLS[impl][3]
    lstm = factor * (26e-6 * work + (150e-6 if batch < 32 else 10e-6) * length)
    return 4e-5 + (lstm if factor else qrnn)


def _identity(point_id: str, impl: str, twin: bool) -> dict[str, Any]:
    family, framework, version, _ = IMPLS[impl]
    return {
        "impl": impl,
        "twin": twin,
        "family": family,
        "framework": framework,
        "framework_version": version,
        "stale_key": _digest(impl, 16),
        "cell_id": _digest([point_id, impl, twin], 16),
        "noisy": False,
        "attempt": 1,
    }


def _fate(impl: str, kind: str, batch: int, length: int) -> dict[str, Any]:
    if impl == "cupy_kernel":
        return {"status": "missing", "reason": "needs cupy: pip install cupy-cuda13x"}
    if (impl, kind, batch, length) == ("jax_associative", "backward", 32, 512):
        reason = "worker ended with signal 11 (SIGSEGV); its last words are in the log"
        return {"status": "crash", "reason": reason}
    if (impl, kind, batch) == ("torch_eager", "backward", 8):
        reason = "grad.x is off by 3.1e-04 (relative Frobenius norm), allowed are 2e-06"
        gate = {"gate_error": 3.1e-4, "gate_worst": "grad.x", "gate_tolerance": 2e-6}
        return {"status": "mismatch", "reason": reason, **gate}
    gate = {"gate_error": 3e-7 + 1e-9 * length, "gate_worst": "y", "gate_tolerance": 2e-6}
    return {"status": "ok", "reason": None, **gate}


def _timing(row: dict[str, Any], wall: np.ndarray) -> dict[str, Any]:
    median = float(np.median(wall))
    spread = 2.2 * float(np.std(wall)) / math.sqrt(len(wall))
    tokens = row["batch"] * row["steps"]
    flops = tokens * 3 * 2 * 320 * 320 * 2 * (3 if row["kind"] == "backward" else 1)
    floor = flops / CEILINGS["gemm_flops"]["float32"]
    return {
        "clock": "wall",
        "inner": 1,
        "rounds": len(wall),
        "n": len(wall),
        "min_ns": float(wall.min()),
        "median_ns": median,
        "ci_lo_ns": median - spread,
        "ci_hi_ns": median + spread,
        "tokens_per_s": tokens / median * 1e9,
        "tflops": flops / median * 1e-3,
        "floor_s": floor,
        "x_of_floor": median * 1e-9 / floor,
        "x_of_staged": median * 1e-9 / floor / 1.7,
        "_wall": wall,
    }


def _turns(row: dict[str, Any], wall: np.ndarray, rng: np.random.Generator) -> list[dict[str, Any]]:
    keys = {"cell_id": row["cell_id"], "sitting_id": row["sitting_id"], "burn": 1}
    return [
        {
            **keys,
            "round": number,
            "place": int(rng.integers(7)),
            "wall_ns": [value, value * 1.01, value * 0.99],
            "cpu_ns": [value * 1.9] * 3,
            "burn_ns": [value * 3],
        }
        for number, value in enumerate(wall.tolist())
    ]


def _ratios(rows: list[dict[str, Any]], noisy: bool) -> None:
    """Fill in ratio columns against the faster LSTM, and take the helper arrays out."""
    walls = {(row["impl"], row["twin"]): row.pop("_wall", None) for row in rows}
    control = _ratio(walls["lstm_torch", False], walls["lstm_torch", True])
    if noisy:
        control = (1.08, 1.04, 1.12)
    base = min(("lstm_torch", "lstm_jax"), key=lambda name: np.median(walls[name, False]))
    for row in rows:
        wall = walls[row["impl"], row["twin"]]
        if wall is None:
            continue
        against = row["impl"] if row["twin"] else base
        value, lo, hi = _ratio(walls[against, False], wall)
        word = "FASTER" if lo > 1.03 else "SLOWER" if hi < 1 / 1.03 else "AMBIGUOUS"
        if lo > 1 / 1.03 and hi < 1.03:
            word = "SAME"
        ranked = not noisy and (row["impl"] != base or row["twin"])
        row |= {"baseline": against, "speedup": value, "speedup_lo": lo, "speedup_hi": hi}
        row |= {"verdict": word if ranked else None, "noisy": noisy}
        row |= dict(zip(("control", "control_lo", "control_hi"), control, strict=True))


def _ratio(base: np.ndarray, arm: np.ndarray) -> tuple[float, float, float]:
    logs = np.log(base / arm)
    half = 3.4 * float(np.std(logs)) / math.sqrt(len(logs))
    return tuple(math.exp(float(np.median(logs)) + d) for d in (0.0, -half, half))


def equivalence() -> list[dict[str, Any]]:
    """Conformance rows: one failing claim, one that must hold exactly, one missing contender."""
    rng = np.random.default_rng(7)
    rows = []
    blank = {"schema_version": 1, "record": "equivalence", "message": None, "seconds": 0.1}
    for impl, (family, *_) in IMPLS.items():
        if impl == "cupy_kernel":
            none = dict.fromkeys(("dtype", "check", "spec", "quantity", "error", "tolerance"))
            words = {"claim": "the checks run to their end", "status": "missing"}
            reason = {"message": "needs cupy: pip install cupy-cuda13x"}
            rows.append({**blank, "impl": impl, "family": family, **none, **words, **reason})
            continue
        for dtype, tolerance in DTYPES.items():
            for check, claim in CLAIMS.items():
                known = {"impl": impl, "family": family, "dtype": dtype, "check": check}
                known |= {"claim": claim, "spec": "fo K=2 L=1 C=5 H=7 B=3 T=9", "quantity": "y"}
                exact = check == "causality"
                error = 0.0 if exact else float(tolerance * 10 ** rng.uniform(-2.5, -0.2))
                found = {"error": error, "tolerance": 0.0 if exact else tolerance}
                status = "passed"
                if family == "lstm" and check.startswith("zoneout"):
                    found, status = {"error": None, "tolerance": None}, "unsupported"
                elif (impl, check, dtype) == ("torch_eager", *list(CLAIMS)[3:4], "bfloat16"):
                    found, status = {"error": 0.21, "tolerance": tolerance}, "failed"
                rows.append({**blank, **known, **found, "status": status})
    return rows


def _digest(value: object, digits: int) -> str:
    text = json.dumps(value, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:digits]
