"""Reading somebody's own text file: everything that can be wrong with it is one clear line."""

from __future__ import annotations

from pathlib import Path

from harness.errors import UsageError


def read(path: object) -> str:
    """The text of a UTF-8 file of at least two lines, with "\\n" at the end of each line.

    Raises:
        UsageError: no such file, a folder, empty, not UTF-8, or a single line.
    """
    if not isinstance(path, (str, Path)) or not str(path):
        raise UsageError(f"file = {path!r}: give the path of a text file")
    try:
        raw = Path(path).expanduser().read_bytes()
    except FileNotFoundError:
        raise UsageError(
            f"file {str(path)!r} does not exist; give the path of a text file"
        ) from None
    except OSError as error:
        raise UsageError(f"file {str(path)!r} cannot be read: {error.strerror}") from None
    if not raw.strip():
        raise UsageError(f"file {str(path)!r} is empty; give a text to learn from")
    text = decode(raw, str(path))
    if len(text.strip().split("\n")) < 2:
        raise UsageError(
            f"file {str(path)!r} has only one line, so nothing could be held out; give one line "
            "per sentence or example"
        )
    return text


def decode(raw: bytes, path: str) -> str:
    """Bytes as UTF-8 with plain line ends; a byte order mark is dropped.

    Raises:
        UsageError: not UTF-8; the line says where.
    """
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise UsageError(
            f"file {path!r} is not UTF-8 (line {line}, byte {error.start}); convert it, for "
            "example with iconv -t UTF-8"
        ) from None
    return text.replace("\r\n", "\n").replace("\r", "\n")
