"""A worker process and the talk with it: spawned, asked one thing at a time, paused in between.

Messages are JSON with a four-byte length in front, on two pipes of their own, so that whatever
an implementation prints goes to its log and cannot be mistaken for an answer. The coordinator
sleeps in `select` while a worker computes; a worker that has answered is stopped (SIGSTOP), so
that neither its OpenMP pool nor its garbage collector runs beside the one that is measured.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from harness.stop import InterruptError, Stop, end

HEADER = struct.Struct("!I")
Reply = dict[str, Any]
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)


class WorkerFailure(Exception):
    """A contender could not do what it was asked: a status word and the reason.

    Attributes:
        status: a status word (README.md here).
        error_type: name of the exception, signal or limit.
        details: further columns of the row (the gate's numbers, say).
        fatal: the process is gone or must not be used again.
    """

    def __init__(
        self,
        status: str,
        error_type: str,
        reason: str,
        details: dict[str, Any] | None = None,
        fatal: bool = True,
    ) -> None:
        super().__init__(reason)
        self.status, self.error_type, self.reason = status, error_type, reason[:500]
        self.details, self.fatal = details or {}, fatal


def worker_cpus(threads: int, slot: int = 0) -> list[int]:
    """The CPUs of a thread budget: the last ones allowed here, since the first serve interrupts.

    Args:
        slot: 0 is where everybody is measured; other slots, as many as fit, let several workers
            import at once. Empty where the system has no affinity.
    """
    if not hasattr(os, "sched_getaffinity"):
        return []
    allowed = sorted(os.sched_getaffinity(0), reverse=True)
    start = threads * (slot % max(1, len(allowed) // threads))
    return allowed[start : start + threads]


def environment(threads: int) -> dict[str, str]:
    """This process's environment with the thread budget and what must be set before imports."""
    env = dict(os.environ)
    env.update({name: str(threads) for name in THREAD_VARIABLES})
    env["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    env["PYTHONHASHSEED"] = "0"
    root = str(Path(__file__).resolve().parent.parent)
    env["PYTHONPATH"] = os.pathsep.join([root, *filter(None, [env.get("PYTHONPATH")])])
    return env


def oom_kills() -> int:
    """How many processes of this cgroup the kernel has killed for memory; 0 where unknown."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        line = next(
            line for line in Path("/proc/self/cgroup").read_text().splitlines() if "::" in line
        )
        folder = Path("/sys/fs/cgroup") / line.split("::", 1)[1].lstrip("/")
        for place in (folder, Path("/sys/fs/cgroup")):
            if (place / "memory.events").exists():
                events = dict(
                    row.split() for row in (place / "memory.events").read_text().splitlines()
                )
                return int(events.get("oom_kill", 0))
    with contextlib.suppress(OSError, StopIteration):
        text = Path("/sys/fs/cgroup/memory/memory.oom_control").read_text()
        return int(next(row.split()[1] for row in text.splitlines() if row.startswith("oom_kill ")))
    return 0


class Worker:
    """One process that loads implementations and times them; only here may a framework live.

    Spawn it from a thread that lives as long as the worker: Linux kills the worker when the
    thread that started it ends, so that a killed coordinator leaves no stopped orphan.
    """

    def __init__(
        self, name: str, threads: int, log_dir: Path, stop: Stop | None = None, slot: int = 0
    ) -> None:
        self.name, self.threads, self.stop = name, threads, stop
        self.log = Path(log_dir) / f"{name.replace('#', '-')}.log"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.paused = False
        self._asked = time.monotonic()
        self._oom_before = oom_kills()
        asks, self._write = os.pipe()
        self._read, answers = os.pipe()
        cpus = ",".join(map(str, worker_cpus(threads, slot)))
        command = [sys.executable, "-m", "harness.worker", str(asks), str(answers)]
        command += [str(os.getpid()), cpus]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment(threads),
                pass_fds=(asks, answers),
                start_new_session=True,
            )
        os.close(asks)
        os.close(answers)

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """False once the process has ended."""
        return self._process.poll() is None

    def call(self, command: str, timeout: float, finish: bool = False, **arguments: Any) -> Reply:
        """Ask, wait for the answer, pause the worker; the answer without its envelope.

        Args:
            timeout: seconds until the worker is killed and counted as hanging.
            finish: on an interrupt, still wait for the answer.

        Raises:
            WorkerFailure: an error in the worker, its death, or the time limit.
            InterruptError: the user asked to stop and `finish` is False.
        """
        self.ask(command, **arguments)
        return self.answer(timeout, finish)

    def ask(self, command: str, **arguments: Any) -> None:
        """Send one command and let the worker run; `answer` collects what it says."""
        body = json.dumps({"command": command, **arguments}).encode()
        self._asked = time.monotonic()
        with contextlib.suppress(BrokenPipeError):  # a dead worker shows in `answer`
            _write_all(self._write, HEADER.pack(len(body)) + body)
        self.resume()

    def answer(self, timeout: float, finish: bool = False) -> Reply:
        """The answer to the last `ask`; arguments and errors as in `call`."""
        deadline = time.monotonic() + timeout
        size = HEADER.unpack(self._receive(HEADER.size, deadline, finish))[0]
        reply: Reply = json.loads(self._receive(size, deadline, finish))
        self.pause()
        if reply.pop("ok"):
            return reply
        raise WorkerFailure(**reply)

    def _receive(self, size: int, deadline: float, finish: bool) -> bytes:
        parts = bytearray()
        while len(parts) < size:
            listening = [self._read]
            if self.stop is not None and not finish:
                listening.append(self.stop.fileno())
            left = max(0.0, deadline - time.monotonic())
            ready = select.select(listening, [], [], left)[0]
            if not ready:
                self.kill()
                waited = time.monotonic() - self._asked
                reason = f"no answer within {waited:.0f} s; the worker was killed"
                raise WorkerFailure("timeout", "Timeout", reason)
            if self._read not in ready:
                raise InterruptError
            chunk = os.read(self._read, size - len(parts))
            if not chunk:
                raise self._death()
            parts += chunk
        return bytes(parts)

    def _death(self) -> WorkerFailure:
        try:
            code = self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:  # it closed its pipe and lives on
            self.kill()
            code = -signal.SIGKILL
        tail = self.log_tail()
        if code == -signal.SIGKILL and oom_kills() > self._oom_before:
            return WorkerFailure("oom_host", "SIGKILL", f"killed for memory by the kernel; {tail}")
        if code < 0:
            name = signal.Signals(-code).name
            return WorkerFailure("crash", name, f"the worker died by {name}; {tail}")
        return WorkerFailure("crash", "exit", f"the worker ended with code {code}; {tail}")

    def log_tail(self) -> str:
        """Words about where the log is and how it ends."""
        lines = self.log.read_text(errors="replace").strip().splitlines()[-3:]
        return f"logs/{self.log.name}" + (f" ends: {' | '.join(lines)}" if lines else " is empty")

    def pause(self) -> None:
        """Stop the process until the next question; returns when it has stopped.

        A signal only counts once its target is scheduled, which takes milliseconds on a busy
        machine: the next contender must not begin before.
        """
        if self.alive and not self.paused:
            self._process.send_signal(signal.SIGSTOP)
            if hasattr(os, "waitid"):  # macOS has it from Python 3.13 on
                os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
            self.paused = True

    def resume(self) -> None:
        """Let a paused process go on."""
        if self.paused:
            self._process.send_signal(signal.SIGCONT)
            self.paused = False

    def end(self) -> None:
        """Tell the process to end at once, with all that it started; without waiting for it."""
        end(self._process)

    def kill(self) -> None:
        """End the process at once and close its pipes; safe to repeat."""
        self.end()
        self._process.wait()
        for name in ("_write", "_read"):
            number = getattr(self, name)
            if number >= 0:
                os.close(number)
                setattr(self, name, -1)

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


def _write_all(number: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(number, view) :]
