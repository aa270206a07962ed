"""Read a run folder back as tables: the only door through which notebooks see results.

The folder's files are described in README.md here; nothing here writes, times or imports a
framework. A torn last line (a run that was killed while it wrote) is left out with a note in
`DataFrame.attrs["notes"]`; no reader ever changes a file.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from harness import files, store
from harness.ablation import accuracy
from harness.errors import UsageError
from harness.files import Row
from harness.speed import newest
from harness.speed.modes import WHOLE, named
from harness.store import SCHEMA_VERSION
from impls.contract import ADDED_LATER, ModelSpec

COLUMNS = (
    "point_id cell_id sitting_id repeat status noisy reason impl twin mode framework "
    "framework_version kind device dtype batch steps ragged family input_size hidden_size layers "
    "kernel_width pooling threads gate_error gate_worst gate_tolerance clock rounds n min_ns "
    "median_ns ci_lo_ns ci_hi_ns baseline speedup speedup_lo speedup_hi verdict control "
    "control_lo control_hi graph_baseline graph_speedup graph_speedup_lo graph_speedup_hi "
    "tokens_per_s bytes tflops gbps floor_s staged_floor_s x_of_floor x_of_staged "
    "profile started_at"
).split()
"""Columns that a table of `load` always has, null where no row knows them."""

MEASURED = (
    "min_ns median_ns ci_lo_ns ci_hi_ns speedup speedup_lo speedup_hi control control_lo "
    "control_hi graph_speedup graph_speedup_lo graph_speedup_hi gate_error gate_tolerance "
    "tokens_per_s bytes tflops gbps floor_s staged_floor_s x_of_floor x_of_staged error tolerance "
    "seconds"
).split()
"""Columns of numbers, NaN where unknown, also where no row of a run knows them."""

EQUIVALENCE_COLUMNS = (
    "impl family dtype check claim spec quantity error tolerance status message seconds"
).split()

MEMORY_COLUMNS = (
    "cell_id impl status reason kind device dtype batch steps mem_method extra_bytes peak_bytes "
    "output_bytes minimum_bytes"
).split()

SAMPLE_COLUMNS = ["sitting_id", "cell_id", "round", "wall_ns", "cpu_ns"]

PAPER_SPEEDUPS = pd.DataFrame(
    {
        32: [5.5, 5.5, 4.2, 3.0, 2.1, 1.4],
        64: [8.8, 6.7, 4.5, 3.0, 1.9, 1.4],
        128: [11.0, 7.8, 4.9, 3.0, 2.0, 1.3],
        256: [12.4, 8.3, 4.9, 3.0, 2.0, 1.3],
        512: [16.9, 10.8, 6.4, 3.7, 2.4, 1.3],
    },
    index=pd.Index([8, 16, 32, 64, 128, 256], name="batch"),
).rename_axis(columns="steps")
"""Bradbury et al. (arXiv 1611.01576v2), figure 4 right: speedup of inference of one 320-unit
QRNN layer over an equal cuDNN LSTM layer on a GPU; batch down, steps across."""


def load(folder: str | Path, *, parts: bool = False) -> pd.DataFrame:
    """Rows of the newest complete sitting of every grid point, one row per cell.

    Args:
        folder: a run folder (it holds manifest.json and cells.jsonl).
        parts: keep the rows of parts of a layer too. What compares whole layers with each other
            must see none of them: a part is faster because it does less.

    Returns:
        one row per cell with the columns of `COLUMNS` and whatever else the rows hold; `contender`
        is who was timed and how ("torch_cupy:graph"; a twin is called like its original), and
        `yardstick` is the contender whose time `speedup` divides by, in the same mode. Times are
        in nanoseconds (`_ns`) or seconds (`_s`). A point that no complete sitting covers is
        represented by its newest unfinished one (status "interrupted"). Remarks about the file
        are in `.attrs["notes"]`.

    Raises:
        UsageError: not a run folder, rows of another schema, or a broken line before the last.
    """
    folder = Path(folder)
    load_manifest(folder)
    found, torn = store.read_rows(folder)
    notes = [torn] if torn else []
    sittings = newest.sittings(_rows(found, folder / "cells.jsonl"))
    if torn or (folder / "cells.torn").exists():
        sittings = newest.whole(sittings, notes)
    frame = _table(newest.newest(sittings), COLUMNS)
    frame["twin"] = frame["twin"].fillna(False).astype(bool)
    frame["noisy"] = frame["noisy"].fillna(False).astype(bool)
    frame["repeat"] = frame["repeat"].fillna(0).astype(int)
    for name in ADDED_LATER:
        if name in frame:
            frame[name] = frame[name].astype(object).fillna(getattr(ModelSpec, name))
    frame["mode"] = frame["mode"].astype(object).fillna("default").astype(str)
    frame["contender"] = _named(frame["impl"], frame["mode"])
    frame["yardstick"] = _named(frame["baseline"], frame["mode"])
    if not parts:
        frame = frame[frame["mode"].isin(WHOLE)].reset_index(drop=True)
    frame.attrs = {"notes": notes}
    return frame


def load_equivalence(folder: str | Path) -> pd.DataFrame:
    """Rows of the conformance runs, the newest of each (impl, check, dtype, spec).

    Returns:
        columns of `EQUIVALENCE_COLUMNS`; a row without a check says why an implementation could
        not be checked at all or to the end; `error` and `tolerance` are relative Frobenius norms.
        Empty where no conformance run was recorded.

    Raises:
        UsageError: as `load`.
    """
    folder = Path(folder)
    load_manifest(folder)
    path = folder / "equivalence.jsonl"
    found, torn = files.read_lines(path)
    frame = _table(_rows(found, path), EQUIVALENCE_COLUMNS)
    frame = frame.drop_duplicates(["impl", "check", "dtype", "spec"], keep="last")
    # A row without a check says that the checks could not run; what came later supersedes it.
    whole = frame["check"].isna()
    last = frame.index.to_series().groupby(frame["impl"]).transform("max")
    frame = frame[~whole | (frame.index == last)].reset_index(drop=True)
    frame.attrs = {"notes": [torn] if torn else []}
    return frame


def load_memory(folder: str | Path) -> pd.DataFrame:
    """Rows of the memory measurements, the newest of each contender and point.

    Returns:
        columns of `MEMORY_COLUMNS` and more; bytes. Empty where none was measured.

    Raises:
        UsageError: as `load`.
    """
    folder = Path(folder)
    load_manifest(folder)
    path = folder / "memory.jsonl"
    found, torn = files.read_lines(path)
    frame = _table(_rows(found, path), MEMORY_COLUMNS)
    frame = frame.drop_duplicates("cell_id", keep="last").reset_index(drop=True)
    frame.attrs = {"notes": [torn] if torn else []}
    return frame


def load_ablation(folder: str | Path) -> accuracy.Ablation:
    """The training runs of a folder, their curves and their registered plan; may be empty.

    Raises:
        UsageError: as `load`.
    """
    load_manifest(folder)
    return accuracy.load(folder)


def load_manifest(folder: str | Path) -> dict[str, Any]:
    """The run folder's manifest: profile, plan, machine, ceilings, versions.

    Raises:
        UsageError: not a run folder, a broken manifest, or one of another schema.
    """
    path = Path(folder) / "manifest.json"
    if not path.is_file():
        raise UsageError(
            f"{folder}: not a run folder (it has no manifest.json); give the folder that "
            "`quasibench speed` or `quasibench run` wrote"
        )
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not valid JSON ({error})") from None
    if not isinstance(manifest, dict):
        raise UsageError(f"{path}: holds no JSON object; this is not a run folder's manifest")
    _check_schema(manifest.get("schema_version"), path)
    return manifest


def load_samples(folder: str | Path, cells: Iterable[str] | None = None) -> pd.DataFrame:
    """Median time of one call in every round, for the strips beside a cell's summary.

    Args:
        folder: a run folder.
        cells: cell_ids to keep; None = all.

    Returns:
        columns of `SAMPLE_COLUMNS`, one row per cell and round: the medians of the round's
        samples, nanoseconds per call on either clock. A damaged end of the file is left out.
    """
    wanted = None if cells is None else set(cells)
    rows = [
        (
            turn["sitting_id"],
            turn["cell_id"],
            turn["round"],
            statistics.median(turn["wall_ns"]),
            statistics.median(turn["cpu_ns"]),
        )
        for turn in store.read_samples(folder)
        if turn["wall_ns"] and (wanted is None or turn["cell_id"] in wanted)
    ]
    return pd.DataFrame(rows, columns=SAMPLE_COLUMNS)


def _rows(found: list[Row], path: Path) -> list[Row]:
    """The rows, once all of them are known to be of this schema."""
    for row in found:
        _check_schema(row.get("schema_version"), path)
    return found


def _check_schema(version: object, path: Path) -> None:
    if version != SCHEMA_VERSION:
        raise UsageError(
            f"{path}: schema version {version!r}, this program reads {SCHEMA_VERSION}; use the "
            "version of quasibench that wrote it, or start a new run folder"
        )


def _named(impls: pd.Series, modes: pd.Series) -> pd.Series:
    """Implementations and modes as the names of contenders; null where there is none."""
    names = [
        None if pd.isna(impl) else named(impl, mode)
        for impl, mode in zip(impls, modes, strict=True)
    ]
    return pd.Series(names, impls.index, dtype=object)


def _table(rows: list[Row], columns: Iterable[str]) -> pd.DataFrame:
    frame = pd.DataFrame(rows)
    missing = [name for name in columns if name not in frame]
    frame = frame.reindex(columns=[*frame.columns, *missing])
    return frame.astype({name: float for name in MEASURED if name in frame})
