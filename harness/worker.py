"""The worker process: settles its CPUs before anything heavy is imported, then serves commands.

Started by `harness.process.Worker` as `python -m harness.worker ASKS ANSWERS PARENT CPUS`. This
module imports only the standard library at its top, because NumPy's and the frameworks' thread
pools are sized from the CPU affinity at the moment they are imported.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import struct
import sys
import traceback
from typing import Any, BinaryIO

HEADER = struct.Struct("!I")
PR_SET_PDEATHSIG = 1


def settle(parent: int, cpus: list[int]) -> None:
    """Bind this process to its CPUs and to the life of its parent."""
    if cpus:
        os.sched_setaffinity(0, cpus)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit("the coordinator is gone")


def failure(error: BaseException, device: str) -> dict[str, Any]:
    """The answer that describes an error: status word, type, first 500 characters, fatal or not.

    Memory errors of a framework on the CPU count as the host's.
    """
    from harness.speed.gate import GateError

    name, text = type(error).__name__, str(error)
    reply = {"ok": False, "error_type": name, "reason": text[:500] or name, "fatal": True}
    reply["details"] = {}
    if isinstance(error, GateError):
        return reply | {"status": error.status, "details": error.details, "fatal": False}
    if isinstance(error, NotImplementedError):
        return reply | {"status": "unsupported", "fatal": False}
    memory = name == "OutOfMemoryError" or "RESOURCE_EXHAUSTED" in text
    if isinstance(error, MemoryError) or memory or "can't allocate memory" in text:
        on_device = device != "cpu" and not isinstance(error, MemoryError)
        return reply | {"status": "oom_device" if on_device else "oom_host"}
    return reply | {"status": "crash"}


def serve(asks: BinaryIO, answers: BinaryIO) -> None:
    """Answer one command after the other until "quit" or the end of the pipe."""
    from harness.commands import Commands

    commands = Commands()
    while header := asks.read(HEADER.size):
        message = json.loads(asks.read(HEADER.unpack(header)[0]))
        name = message.pop("command")
        if name == "quit":
            return
        try:
            reply = {"ok": True, **getattr(commands, name)(**message)}
        except Exception as error:
            traceback.print_exc()
            reply = failure(error, commands.device)
        body = json.dumps(reply, allow_nan=False).encode()
        answers.write(HEADER.pack(len(body)) + body)
        answers.flush()


def main(arguments: list[str]) -> None:
    """Entry of the process."""
    asks, answers, parent = map(int, arguments[:3])
    settle(parent, [int(cpu) for cpu in arguments[3].split(",") if cpu])
    for number in (asks, answers):  # a compiler that an implementation starts must not hold them
        os.set_inheritable(number, False)
    with os.fdopen(asks, "rb") as source, os.fdopen(answers, "wb") as sink:
        serve(source, sink)


if __name__ == "__main__":
    main(sys.argv[1:])
