"""A made-up run with parts of layers in the real format; nothing here was measured."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.recorded import CEILINGS, HARDWARE, _digest, _timing, _turns

COST = {
    ("lstm_torch", "default"): 3.0,
    ("torch_native", "default"): 1.08,
    ("torch_native", "gemm"): 1.0,
    ("torch_native", "pooling"): 0.2,
    ("torch_eager", "default"): 2.0,
    ("jax_scan", "default"): 2.5,
}
"""Times by contender and mode, as multiples of the products alone."""
REPLAYS = {
    ("lstm_torch", "default"): 6.0,
    ("lstm_torch", "graph"): 4.0,
    ("torch_cupy", "default"): 3.0,
    ("torch_cupy", "graph"): 1.0,
    ("torch_cupy", "gemm"): 0.5,
    ("torch_cupy", "pooling"): 0.2,
    ("jax_cupy", "default"): 1.6,
}
"""The same of a CUDA run, where an LSTM and a QRNN are timed as graph replays too."""
FEW = [{"kind": "forward", "dtype": "float32", "batch": 8, "steps": steps} for steps in (32, 128)]
SPEC = {
    "input_size": 320, "hidden_size": 320, "layers": 1, "kernel_width": 2, "pooling": "fo",
    "zoneout": 0.0, "zoneout_mode": "keep", "zoneout_eval": "off", "dense": False,
    "bidirectional": False,
}  # fmt: skip


def points() -> list[dict[str, Any]]:
    """The grid points of the profile `floor`."""
    out = [
        {"kind": kind, "dtype": dtype, "batch": batch, "steps": steps}
        for dtype in ("float32", "bfloat16")
        for kind in ("forward", "backward")
        for batch in (1, 8, 32)
        for steps in (32, 128, 512)
    ]
    plain = {"kind": "forward", "dtype": "float32"}
    out += [{**plain, "batch": 20, "steps": 105, "input_size": 256, "hidden_size": 256}]
    return out + [{**plain, "batch": 8, "steps": steps} for steps in (2048, 8192)]


def write_floor_run(
    folder: Path,
    cost: Mapping[tuple[str, str], float] = COST,
    rounds: int = 14,
    places: Sequence[dict[str, Any]] | None = None,
) -> Path:
    """Write a run folder and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    manifest = {"schema_version": 1, "protocol_version": 1, "run_id": "made-up", "profile": "floor"}
    manifest |= {"created_at": "2026-11-21T12:00:00+00:00", "machine": HARDWARE}
    (folder / "manifest.json").write_text(json.dumps(manifest | {"ceilings": CEILINGS}))
    cells, members = [], []
    for point in places or points():
        rows, turns = _sitting(point, cost, rounds)
        cells += [json.dumps(row) + "\n" for row in rows]
        members.append(gzip.compress("".join(json.dumps(t) + "\n" for t in turns).encode()))
    (folder / "cells.jsonl").write_text("".join(cells))
    (folder / "samples.jsonl.gz").write_bytes(b"".join(members))
    (folder / "memory.jsonl").write_text("".join(json.dumps(row) + "\n" for row in memory()))
    return folder


def _sitting(
    point: dict[str, Any], cost: Mapping[tuple[str, str], float], rounds: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    point_id = _digest(point, 12)
    rng = np.random.default_rng(int(point_id, 16))
    shared = {"schema_version": 1, "record": "speed", "point_id": point_id, "sitting_id": point_id}
    shared |= {"profile": "floor", "repeat": 0, "ragged": False, "threads": 2}
    shared["device"] = "cuda" if ("torch_cupy", "default") in cost else "cpu"
    shared |= {**SPEC, **point, "noisy": False, "attempt": 1, "framework_version": "1"}
    rows, turns = [], []
    gemm_ns = 1e3 * point["batch"] * point["steps"] * (3 if point["kind"] == "backward" else 1)
    for (impl, mode), factor in cost.items():
        who = {"impl": impl, "mode": mode, "twin": False, "framework": impl.partition("_")[0]}
        who |= {"family": "lstm" if impl.startswith("lstm") else "qrnn"}
        row = {**shared, **who, "cell_id": _digest([point_id, impl, mode], 16), "status": "ok"}
        wall = gemm_ns * factor * np.exp(np.abs(0.004 * rng.standard_normal(rounds)))
        row |= {**_timing(row, wall), "reason": None, "staged_floor_s": gemm_ns * 1.1e-9}
        if mode == "pooling":
            item = 2 if point["dtype"] == "bfloat16" else 4
            row["bytes"] = 4 * 320 * point["batch"] * point["steps"] * item
        del row["_wall"]
        turns += _turns(row, wall, rng)
        if mode in ("default", "graph"):
            row |= _ratio(cost["lstm_torch", mode] / factor, "speedup")
            row |= {"baseline": "lstm_torch", "verdict": "FASTER" if row["speedup"] > 1 else None}
            row |= {"control": 1.0, "control_lo": 0.99, "control_hi": 1.01}
        if mode == "default" and (replay := cost.get(("lstm_torch", "graph"))):
            row |= {**_ratio(replay / factor, "graph_speedup"), "graph_baseline": "lstm_torch"}
        rows.append(row)
    return rows, turns


def _ratio(value: float, name: str) -> dict[str, float]:
    return {name: value, f"{name}_lo": value * 0.99, f"{name}_hi": value * 1.01}


def memory() -> list[dict[str, Any]]:
    """Memory rows of a layer whose workspace is constant, and of one whose is not."""
    rows = []
    for impl in ("torch_native", "torch_eager"):
        for steps in (128, 512, 2048, 8192):
            outputs = 8 * steps * 320 * 4
            extra = 6 << 20 if impl == "torch_native" else 4 * outputs
            row = {"schema_version": 1, "record": "memory", "cell_id": _digest([impl, steps], 16)}
            row |= {"impl": impl, "status": "ok", "kind": "forward", "batch": 8, "steps": steps}
            row |= {"dtype": "float32", "device": "cpu", "reason": None, "output_bytes": outputs}
            row |= {"extra_bytes": extra, "peak_bytes": extra + outputs, "mem_method": "made up"}
            rows.append(row)
    return rows
