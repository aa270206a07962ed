"""One writer per run folder: a lock that dies with its process.

The lock file holds the owner's process id, start time and boot id. Where the system offers
`flock`, the file is held locked too, which covers processes of other machines and containers.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from harness.errors import UsageError
from harness.machine import system

try:
    import fcntl
except ImportError:  # not a POSIX system: the file's content alone decides
    fcntl = None  # type: ignore[assignment]


class Lock:
    """The lock of one run folder; taken in `__init__`, given back by `release`.

    Raises:
        UsageError: a live process holds it. A dead one's lock is taken over.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = self._open()
        try:
            owner = _owner(os.read(self._file, 4096))
            if owner is not None and _alive(owner):
                raise self._refusal(owner)
            me = {
                "pid": os.getpid(),
                "started": system.process_started(os.getpid()),
                "boot_id": system.boot_id(),
            }
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, json.dumps(me).encode() + b"\n", 0)
            os.fsync(self._file)
        except BaseException:
            os.close(self._file)
            raise

    def release(self) -> None:
        """Remove the lock file; called once, by the owner."""
        self.path.unlink(missing_ok=True)
        os.close(self._file)

    def _open(self) -> int:
        """The lock file, held; opened again where its owner removed it in the meantime."""
        while True:
            file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            if fcntl is None:
                return file
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(file).st_nlink:
                    return file
            except BlockingIOError:
                refusal = self._refusal(_owner(os.read(file, 4096)) or {})
                os.close(file)
                raise refusal from None
            os.close(file)

    def _refusal(self, owner: dict[str, Any]) -> UsageError:
        who = f"process {owner['pid']}" if "pid" in owner else "another process"
        return UsageError(
            f"{self.path.parent}: in use by {who}, which is still running; wait for it, end it, "
            "or give another --out folder"
        )


def _owner(content: bytes) -> dict[str, Any] | None:
    """Who wrote the lock; None for an empty or half-written one, whose writer is gone."""
    try:
        owner = json.loads(content)
    except ValueError:
        return None
    return owner if isinstance(owner, dict) and isinstance(owner.get("pid"), int) else None


def _alive(owner: dict[str, Any]) -> bool:
    """Whether that very process still runs: same boot, same id, same start time."""
    if owner.get("boot_id") != system.boot_id():
        return False
    started = system.process_started(owner["pid"])
    return started is not None and started == owner.get("started")
