"""Files that only grow: synced appends in one write, torn ends, JSON lines, gzip members."""

from __future__ import annotations

import json
import math
import os
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from harness.errors import UsageError

Row = dict[str, Any]
CHUNK = 1 << 16


def read_lines(file: Path) -> tuple[list[Row], str | None]:
    """The objects of a JSONL file, and a note where its last line is torn; absent means empty.

    Raises:
        UsageError: a damaged line before the last one.
    """
    parts = file.read_bytes().split(b"\n") if file.exists() else [b""]
    rows = []
    for number, line in enumerate(parts, 1):
        row = _row(line)
        if row is not None and number < len(parts):
            rows.append(row)
        elif line and number >= len(parts) - 1 and not any(parts[number:]):
            return rows, f"{file.name}: its last line is torn and left out"
        elif line:
            raise UsageError(
                f"{file}: line {number} is damaged; the folder cannot be used, give another one"
            )
    return rows, None


def _row(line: bytes) -> Row | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None


def check_tail(file: Path, repair: bool) -> None:
    """Refuse a torn last line, or move it to <name>.torn and cut it off."""
    if read_lines(file)[1] is None:
        return
    aside = file.with_suffix(".torn")
    if not repair:
        raise UsageError(
            f"{file}: its last line is torn (a crash or a full disk); nothing was changed. Run "
            f"again with --repair to set it aside in {aside.name} and resume"
        )
    data = file.read_bytes()
    _cut(file, data.rstrip(b"\n").rfind(b"\n") + 1, aside)


def set_aside_torn_gzip(file: Path, aside: Path) -> None:
    """Move the torn end of a gzip file to `aside`, so that later members can be read."""
    data = file.read_bytes() if file.exists() else b""
    whole = sum(len(member) for member in members(data))
    if whole < len(data):
        _cut(file, whole, aside)


def _cut(file: Path, size: int, aside: Path) -> None:
    append(aside, file.read_bytes()[size:])
    os.truncate(file, size)


def members(data: bytes) -> Iterator[bytes]:
    """The complete gzip members that `data` begins with."""
    at = 0
    while at < len(data):
        reader, end = zlib.decompressobj(wbits=31), at
        try:
            while not reader.eof and end < len(data):
                reader.decompress(data[end : end + CHUNK])
                end += CHUNK
        except zlib.error:
            return
        if not reader.eof:
            return
        end = min(end, len(data)) - len(reader.unused_data)
        yield data[at:end]
        at = end


def append(file: Path, data: bytes) -> None:
    """One write at the end of the file, on the disk when this returns, undone where it fails."""
    new = not file.exists()
    handle = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        size = os.fstat(handle).st_size
        written = os.write(handle, data)
        if written != len(data):
            os.ftruncate(handle, size)
            raise OSError(f"{file}: only {written} of {len(data)} bytes written; is the disk full?")
        os.fsync(handle)
    finally:
        os.close(handle)
    if new:
        _sync_folder(file.parent)


def replace(file: Path, value: Row) -> None:
    """Put a JSON file in the place of an older one in one step."""
    new = file.with_name(file.name + ".new")
    new.unlink(missing_ok=True)
    append(new, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())
    new.replace(file)
    _sync_folder(file.parent)


def _sync_folder(folder: Path) -> None:
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def lines(rows: list[Any]) -> bytes:
    """Plain rows as JSON lines."""
    text = (json.dumps(row, separators=(",", ":"), allow_nan=False) for row in rows)
    return "".join(line + "\n" for line in text).encode()


def plain(value: Any) -> Any:
    """The value as JSON knows it: NumPy made plain, what is not finite null."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value
