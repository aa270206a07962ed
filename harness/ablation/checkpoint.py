"""Checkpoints of a training: arrays and, in the same file's header, JSON that says of what.

One safetensors file per training, replaced in one step, so that arrays and words cannot part.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from harness.errors import UsageError
from impls.contract import Arrays

KEY = "quasibench"


def save(path: Path, identity: Mapping[str, Any], words: Mapping[str, Any], arrays: Arrays) -> None:
    """Put a checkpoint in the place of an older one; on the disk when this returns.

    Args:
        identity: of the training, see `cells.Run.identity`; words: its course so far.
    """
    from safetensors.numpy import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(path.name + ".new")
    text = json.dumps({"identity": identity, "words": words})
    whole = {name: np.asarray(value, order="C") for name, value in arrays.items()}
    save_file(whole, str(new), metadata={KEY: text})
    with new.open("rb+") as file:
        os.fsync(file.fileno())
    new.replace(path)


def header(path: Path, identity: Mapping[str, Any]) -> dict[str, Any]:
    """The words of a checkpoint, once it is known to be of this training.

    Raises:
        UsageError: no checkpoint, or one of another training; says what differs.
    """
    found = _read(path)
    wanted = json.loads(json.dumps(identity))
    if found["identity"] != wanted:
        raise UsageError(
            f"{path}: a checkpoint of another training, {_difference(found['identity'], wanted)}; "
            "remove it, or give another --out folder"
        )
    words: dict[str, Any] = found["words"]
    return words


def identity(path: Path) -> dict[str, Any]:
    """Of which training a checkpoint is.

    Raises:
        UsageError: no checkpoint.
    """
    found: dict[str, Any] = _read(path)["identity"]
    return found


def _read(path: Path) -> dict[str, Any]:
    """What stands in the header: identity and words."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="np") as file:
            found: dict[str, Any] = json.loads((file.metadata() or {})[KEY])
            return {"identity": dict(found["identity"]), "words": dict(found["words"])}
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f"{path}: not a checkpoint of a training ({type(error).__name__}); remove it to begin "
            "that training again"
        ) from None


def load(path: Path, identity: Mapping[str, Any]) -> tuple[dict[str, Any], Arrays]:
    """Words and arrays of a checkpoint.

    Raises:
        UsageError: as `header`.
    """
    from safetensors.numpy import load_file

    return header(path, identity), load_file(str(path))


def _difference(found: Mapping[str, Any], wanted: Mapping[str, Any], at: str = "") -> str:
    """The first field that differs, in words."""
    for name in sorted({*found, *wanted}):
        old, new = found.get(name), wanted.get(name)
        if isinstance(old, dict) and isinstance(new, dict) and old != new:
            return _difference(old, new, f"{at}{name}.")
        if old != new:
            return f"its {at}{name} is {old!r}, this one's {new!r}"
    return "which is not this one"
