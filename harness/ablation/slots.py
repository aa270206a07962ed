"""Workers that train side by side: one process each, kept warm from training to training.

Each slot is a thread that owns its process, because Linux ends a worker with the thread that
started it. The coordinator gives a slot one thing at a time and waits for whoever answers first.
"""

from __future__ import annotations

import contextlib
import math
import queue
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import impls
from harness.process import Worker, WorkerFailure
from harness.stop import InterruptError, Stop

HELLO_S = 120.0
"""A worker that has not imported its frameworks by then counts as hanging."""


@dataclass(frozen=True)
class Asked:
    """One question for a slot.

    Attributes:
        about: whatever the coordinator wants back with the answer.
        impl: whose frameworks the worker needs; command, arguments: of `harness.commands`.
        timeout_s: until the worker is killed; it has its frameworks by then.
        end: of the monotonic clock: nothing is waited for beyond it, imports included.
    """

    about: Any
    impl: str
    command: str
    arguments: dict[str, Any]
    timeout_s: float
    end: float = math.inf

    def within(self, seconds: float) -> float:
        """So many seconds, or fewer where the end comes first."""
        return max(0.1, min(seconds, self.end - time.monotonic()))


@dataclass(frozen=True)
class Answer:
    """What came of it: `found`, or a `failure`, or neither after an interrupt."""

    slot: Slot
    asked: Asked
    found: dict[str, Any] | None = None
    failure: WorkerFailure | None = None


class Slot:
    """One thread with its worker process.

    Attributes:
        last: what the coordinator noted of the last question, to give it more of the same.
    """

    def __init__(self, number: int, logs: Path, stop: Stop, answers: queue.Queue[Answer]) -> None:
        self.number, self.last = number, ""
        self._logs, self._stop, self._answers = logs, stop, answers
        self._questions: queue.Queue[Asked | None] = queue.Queue()
        self._worker: Worker | None = None
        self._known: set[str] = set()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def ask(self, asked: Asked) -> None:
        """Give the slot its next question; it must have answered the last one."""
        self._questions.put(asked)

    def end(self) -> None:
        """Let the thread end once it has answered, with its process."""
        self._questions.put(None)

    def join(self) -> None:
        """Wait for that."""
        self._thread.join()

    def _serve(self) -> None:
        try:
            while (asked := self._questions.get()) is not None:
                self._answers.put(self._answer(asked))
        finally:
            self._drop()

    def _answer(self, asked: Asked) -> Answer:
        try:
            worker = self._ready(asked)
        except InterruptError:
            self._drop()
            return Answer(self, asked)
        except Exception as error:
            self._drop()
            return Answer(self, asked, failure=_before(error, asked))
        try:
            found = worker.call(asked.command, asked.within(asked.timeout_s), **asked.arguments)
            return Answer(self, asked, found)
        except WorkerFailure as failure:
            if failure.fatal:
                self._drop()
            return Answer(self, asked, failure=failure)
        except InterruptError:
            self._drop()
            return Answer(self, asked)
        except Exception as error:  # nobody may wait for an answer that never comes
            self._drop()
            return Answer(
                self, asked, failure=WorkerFailure("crash", type(error).__name__, f"{error}")
            )

    def _ready(self, asked: Asked) -> Worker:
        """A living worker with the frameworks of the asked implementation in it."""
        if self._worker is None or not self._worker.alive:
            self._drop()
            self._worker = Worker(f"train-{self.number}", 1, self._logs, self._stop, self.number)
            self.last, self._known = "", set()
        if asked.impl not in self._known:
            modules = list(impls.get(asked.impl).requires)
            self._worker.call("hello", asked.within(HELLO_S), modules=modules)
            self._known.add(asked.impl)
        return self._worker

    def _drop(self) -> None:
        if self._worker is not None:
            with contextlib.suppress(OSError):
                self._worker.kill()
            self._worker = None


def _before(error: Exception, asked: Asked) -> WorkerFailure:
    """A failure before the question was asked says nothing of what was asked: "missing".

    One that the end of all time brought stays a timeout.
    """
    failed = error if isinstance(error, WorkerFailure) else None
    if failed is not None and failed.status == "timeout" and time.monotonic() >= asked.end:
        return failed
    kind = failed.error_type if failed is not None else type(error).__name__
    reason = failed.reason if failed is not None else str(error)
    return WorkerFailure("missing", kind, f"before it began: {reason}")


class Slots:
    """So many slots; a context manager that ends them."""

    def __init__(self, count: int, logs: Path, stop: Stop) -> None:
        self._answers: queue.Queue[Answer] = queue.Queue()
        self._all = [Slot(number, logs, stop, self._answers) for number in range(count)]
        self.idle = list(self._all)

    @property
    def busy(self) -> bool:
        """Whether some slot has not answered."""
        return len(self.idle) < len(self._all)

    def ask(self, slot: Slot, asked: Asked) -> None:
        """Give an idle slot something to do."""
        self.idle.remove(slot)
        slot.ask(asked)

    def wait(self) -> Answer:
        """The next answer, whoever gives it."""
        answer = self._answers.get()
        self.idle.append(answer.slot)
        return answer

    def __enter__(self) -> Slots:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for slot in self._all:
            slot.end()
        if kind is None:
            for slot in self._all:
                slot.join()
