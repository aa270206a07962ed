"""The run folder: rows that are appended in one piece or not at all, samples, manifest.

manifest.json says what the run is; cells.jsonl has one line per cell, all lines of a sitting
written and synced together; samples.jsonl.gz has one gzip member per sitting; equivalence.jsonl
has the conformance rows, memory.jsonl the memory rows, ablation.jsonl one line per training and
curves.jsonl its evaluations. One process writes (see `harness.lock`),
nothing is ever rewritten but the manifest, which is replaced.
"""

from __future__ import annotations

import gzip
import json
import uuid
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from harness import files
from harness.errors import UsageError
from harness.files import Row
from harness.lock import Lock

SCHEMA_VERSION = 1
FINAL = {"ok", "mismatch", "unsupported", "missing", "timeout", "crash", "nonfinite"} | {
    "oom_device",
    "oom_host",
}
"""Statuses that end a cell; "missing" only as long as its stale_key says it is still missing."""
OURS = {"lock", "logs", "manifest.json", "manifest.json.new"}
"""What a folder may hold before its first manifest is complete."""


class RunFolder:
    """An open, locked run folder; a context manager that gives the lock back.

    Attributes:
        path: the folder; logs: its folder for the workers' output.
        rows: the speed rows, those of `append_sitting` included.
        manifest: what manifest.json holds; change it with `update_manifest`.
    """

    def __init__(self, path: Path, lock: Lock, manifest: Row, rows: list[Row]) -> None:
        self.path, self.logs, self.rows, self.manifest = path, path / "logs", rows, manifest
        self._lock: Lock | None = lock

    @classmethod
    def open(
        cls, path: str | Path, profile_name: str, protocol: int, repair: bool = False
    ) -> RunFolder:
        """Create or resume a run folder and lock it.

        Raises:
            UsageError: in use by a live process; another schema, protocol or profile; no run
                folder but not empty; a torn last line, unless `repair` sets it aside.
        """
        path = Path(path)
        _check_place(path)
        (path / "logs").mkdir(parents=True, exist_ok=True)
        lock = Lock(path / "lock")
        try:
            manifest = _manifest(path, profile_name, protocol)
            for name in ("cells", "equivalence", "memory", "ablation", "curves"):
                files.check_tail(path / f"{name}.jsonl", repair)
            files.set_aside_torn_gzip(path / "samples.jsonl.gz", path / "samples.torn")
            rows, _ = read_rows(path)
        except BaseException:
            lock.release()
            raise
        return cls(path, lock, manifest, rows)

    def close(self) -> None:
        """Give the lock back; closing twice does nothing."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def append_sitting(self, rows: list[Row], samples: list[Row]) -> None:
        """Append a finished sitting: its samples as one gzip member, then all rows at once.

        NumPy values become plain ones and what is not finite null. When this returns the rows
        are on the disk; when it is cut short none of them counts.
        """
        plain = [files.plain({"schema_version": SCHEMA_VERSION, **row}) for row in rows]
        if samples:
            member = gzip.compress(files.lines([files.plain(s) for s in samples]), 6, mtime=0)
            files.append(self.path / "samples.jsonl.gz", member)
        files.append(self.path / "cells.jsonl", files.lines(plain))
        self.rows.extend(plain)

    def append_equivalence(self, rows: list[Row]) -> None:
        """Append conformance rows in one write."""
        plain = [files.plain({"schema_version": SCHEMA_VERSION, **row}) for row in rows]
        files.append(self.path / "equivalence.jsonl", files.lines(plain))

    def append_memory(self, rows: list[Row]) -> None:
        """Append memory rows in one write."""
        plain = [files.plain({"schema_version": SCHEMA_VERSION, **row}) for row in rows]
        files.append(self.path / "memory.jsonl", files.lines(plain))

    def append_accuracy(self, row: Row, curve: Row | None) -> None:
        """Append the row of a training, after its curve, so that a row is never without one."""
        for name, value in (("curves", curve), ("ablation", row)):
            if value is not None:
                plain = files.plain({"schema_version": SCHEMA_VERSION, **value})
                files.append(self.path / f"{name}.jsonl", files.lines([plain]))

    def update_manifest(self, **values: Any) -> None:
        """Set keys of the manifest and replace the file in one step."""
        self.manifest = {**self.manifest, **files.plain(values)}
        files.replace(self.path / "manifest.json", self.manifest)


def read_rows(path: str | Path) -> tuple[list[Row], str | None]:
    """Speed rows of a run folder in the order of their writing, and a note on a torn tail.

    Raises:
        UsageError: a damaged line before the last one.
    """
    return files.read_lines(Path(path) / "cells.jsonl")


def read_samples(path: str | Path) -> Iterator[Row]:
    """Records of samples.jsonl.gz of a run folder; a torn end is left out."""
    file = Path(path) / "samples.jsonl.gz"
    data = file.read_bytes() if file.exists() else b""
    for member in files.members(data):
        for line in gzip.decompress(member).splitlines():
            yield json.loads(line)


def complete(rows: list[Row], expected: Mapping[str, str]) -> bool:
    """Whether a sitting in `rows` holds every expected cell, current and final.

    `expected` gives the stale_key of each cell_id of one point. A "missing" row counts while
    its stale_key holds, since that covers which frameworks are absent.
    """
    sittings: dict[str, set[str]] = {}
    for row in rows:
        cell = row["cell_id"]
        if row["stale_key"] == expected.get(cell) and row["status"] in FINAL:
            sittings.setdefault(row["sitting_id"], set()).add(cell)
    return any(cells == set(expected) for cells in sittings.values())


def _check_place(path: Path) -> None:
    """Nothing of somebody else's is touched: the folder is new, empty or a run folder."""
    if path.exists() and not path.is_dir():
        raise UsageError(f"{path}: is a file; give a folder for the run")
    if path.is_dir() and not (path / "manifest.json").exists():
        others = sorted({item.name for item in path.iterdir()} - OURS)
        if others:
            raise UsageError(
                f"{path}: not a run folder (no manifest.json, but {others[0]!r}); give a new or "
                "an empty folder"
            )


def _manifest(path: Path, profile_name: str, protocol: int) -> Row:
    """The folder's manifest, written first where there is none."""
    manifest = read_manifest(path, profile_name, protocol)
    if manifest is None:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        manifest = _expected(profile_name, protocol) | {"run_id": uuid.uuid4().hex[:12]}
        files.replace(path / "manifest.json", manifest | {"created_at": now})
        return manifest | {"created_at": now}
    return manifest


def _expected(profile_name: str, protocol: int) -> Row:
    return {
        "schema_version": SCHEMA_VERSION,
        "protocol_version": protocol,
        "profile": profile_name,
    }


def read_manifest(path: str | Path, profile_name: str, protocol: int) -> Row | None:
    """The manifest of a run folder, or None where there is none; nothing is changed.

    Raises:
        UsageError: it is damaged, or of another schema, protocol or profile.
    """
    file = Path(path) / "manifest.json"
    if not file.exists():
        return None
    try:
        manifest = json.loads(file.read_bytes())
    except ValueError as error:
        raise UsageError(f"{file}: not valid JSON ({error}); give another --out folder") from None
    for key, value in _expected(profile_name, protocol).items():
        found = manifest.get(key) if isinstance(manifest, dict) else None
        if found != value:
            raise UsageError(
                f"{path}: was measured with {key} {found!r}, this is {value!r}; give another "
                "--out folder, nothing was changed"
            )
    return dict(manifest)
