"""The workers of a run, kept alive from sitting to sitting."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import impls
from harness.process import Worker, worker_cpus
from harness.speed.arm import Arm, Limits, live
from harness.speed.grid import Contender
from harness.stop import Stop


class Pool:
    """The workers of a run on one device, one per contender, kept alive from sitting to sitting."""

    def __init__(self, logs: Path, stop: Stop, limits: Limits, device: str = "cpu") -> None:
        self._logs, self._stop, self._limits, self._device = logs, stop, limits, device
        self._workers: dict[Contender, Worker] = {}

    def arms(self, contenders: Sequence[Contender], threads: int) -> list[Arm]:
        """Living workers for these contenders, those that must be started at the same time."""
        for contender, worker in list(self._workers.items()):
            if not worker.alive or worker.threads != threads or contender not in contenders:
                worker.kill()
                del self._workers[contender]
        fresh = [contender for contender in contenders if contender not in self._workers]
        for slot, contender in enumerate(fresh):
            worker = Worker(contender.name, threads, self._logs, self._stop, slot)
            self._workers[contender] = worker
            modules = list(impls.get(contender.impl).requires)
            worker.ask("hello", modules=modules, impl=contender.impl, device=self._device)
        arms = {one: Arm(one, self._workers[one], self._device) for one in contenders}
        until = self._limits.until(self._limits.hello_s)
        for contender in fresh:
            arms[contender].collect(until)
        for arm in live([arms[contender] for contender in fresh]):
            arm.ask("bind", self._limits.until(self._limits.hello_s), cpus=worker_cpus(threads))
        return list(arms.values())

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers.values():
            worker.end()  # all first: giving a GPU back takes each of them a while
        for worker in self._workers.values():
            worker.kill()
