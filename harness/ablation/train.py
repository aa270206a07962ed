"""One training in a worker process: data, steps, evaluations, early stop, checkpoints, its row."""

from __future__ import annotations

import functools
import gc
import hashlib
import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

import impls
from harness import peak, tasks
from harness.ablation import budgets, checkpoint, losses, seeds
from harness.ablation.course import Course, evaluation_steps
from harness.tasks import Task, TaskData
from impls import net_params
from impls.contract import Arrays, Dtype, ModelSpec, Placement, SpecError
from impls.nets import NetSpec, OptimiserSpec
from impls.training import Batch, Trainer, framework_of, trainer

DEVICE = "cpu"
CALIBRATION = (5, 25)
"""Steps before and in a calibration: the first ones compile and fill caches."""


@dataclass
class Job:
    """A training as it was asked for.

    Attributes:
        identity: what decides its result, see `cells.Run.identity`.
        options: of the task's data.
        file: of its checkpoint, None = it keeps none; every_s: seconds between two of them.
        stale_key: of the code that trains; a checkpoint of other code is not gone on with.
    """

    identity: dict[str, Any]
    options: dict[str, Any]
    file: Path | None = None
    every_s: float = math.inf
    stale_key: str = ""

    @functools.cached_property
    def task(self) -> Task:
        """What is learned."""
        return tasks.get(self.identity["task"])

    @functools.cached_property
    def root(self) -> int:
        """Root of everything random in this training."""
        return seeds.run_root(self.identity["root"], self.identity["seed"])

    @functools.cached_property
    def data(self) -> TaskData:
        """Its examples."""
        return _data(self.identity["task"], self.root, tuple(sorted(self.options.items())))

    @functools.cached_property
    def net(self) -> NetSpec:
        """Its network."""
        fields = dict(self.identity["net"])
        return NetSpec(core=ModelSpec(**fields.pop("core")), **fields)

    @functools.cached_property
    def optimiser(self) -> OptimiserSpec:
        """Its optimiser."""
        fields = dict(self.identity["optimiser"])
        return OptimiserSpec(**{**fields, "betas": tuple(fields["betas"])})

    def trainer(self) -> Trainer:
        """A fresh trainer with the seed's initial parameters.

        Raises:
            NotImplementedError: the implementation cannot compute this network.
        """
        place = Placement(DEVICE, cast(Dtype, self.identity["dtype"]))
        params = net_params.init(self.net, seeds.of(self.root, "init"))
        try:
            return trainer(
                impls.get(self.identity["impl"]), self.net, params, self.optimiser, place
            )
        except SpecError as error:
            raise NotImplementedError(str(error)) from error


@functools.lru_cache(maxsize=8)
def _data(task: str, root: int, options: tuple[tuple[str, Any], ...]) -> TaskData:
    """The examples of the last few seeds: consecutive arms are trained on the same ones."""
    return tasks.get(task).data(root, dict(options))


def run(job: Job) -> dict[str, Any]:
    """Train to the end, or go on from the checkpoint; the columns of its row and curve.

    Raises:
        NotImplementedError: the implementation cannot compute this network.
        UsageError: a checkpoint of another training.
    """
    course = Course(evaluation_steps(job.identity["steps"], job.identity["evaluations"]))
    made, state = job.trainer(), None
    if job.file is not None and job.file.exists():
        words, state = checkpoint.load(job.file, job.identity)
        course = Course(**words["course"])
        made.restore(state)
    _Training(job, made, course).finish()
    if job.file is not None:
        job.file.unlink(missing_ok=True)
    return _columns(job, course, fingerprint(made.export()))


class _Training:
    """A trainer on its way."""

    def __init__(self, job: Job, made: Trainer, course: Course) -> None:
        self.job, self.trainer, self.course = job, made, course
        self.tuning = job.identity["role"] == "tune"
        self.held_out = job.data.tuning if self.tuning else job.data.validation
        self.mark = (time.perf_counter(), time.process_time())
        self.saved = time.perf_counter()

    def finish(self) -> None:
        """All steps that are left, with the memory they take."""
        try:
            self.course.peak_bytes = max(self.course.peak_bytes, peak.peak(self._steps))
        except NotImplementedError:
            self._steps()
        self._clock()

    def _steps(self) -> None:
        course, points = self.course, set(self.course.points)
        if math.isnan(course.first_loss):
            course.first_loss = self._validate()[0]
        while not course.ended:
            self._step()
            if course.stop is None and course.done in points:
                self._evaluate()
            late = time.perf_counter() - self.saved >= self.job.every_s
            if self.job.file is not None and late and not course.ended:
                self._save(self.job.file)

    def _step(self) -> None:
        course = self.course
        batch, masks = self.job.data.train(course.done), seeds.masks(self.job.root, course.done)
        start = time.perf_counter()
        self.trainer.step(batch, masks)
        course.train_loss = self.trainer.loss()
        course.step_s.append(round(time.perf_counter() - start, 7))
        course.done += 1
        if not math.isfinite(course.train_loss):
            course.fail("nonfinite")

    def _validate(self) -> tuple[float, float]:
        """Loss and score on the set that this role may look at."""
        found = [self.trainer.outputs(batch) for batch in self.held_out]
        if not all(np.isfinite(values).all() for values in found):
            return math.nan, math.nan
        return losses.mean(self.job.net, found, self.held_out), self._score(found, self.held_out)

    def _score(self, found: Sequence[np.ndarray], batches: Sequence[Batch]) -> float:
        return float(self.job.data.score(found, batches))

    def _evaluate(self) -> None:
        course = self.course
        loss, score = self._validate()
        course.judge(loss, score, self.job.task.metric)
        test = None
        if course.needs_test and not self.tuning:
            batches = self.job.data.test
            test = self._score([self.trainer.outputs(batch) for batch in batches], batches)
        course.test.append(test)

    def _clock(self) -> None:
        """Add what has passed to the course."""
        now = (time.perf_counter(), time.process_time())
        self.course.wall_s += now[0] - self.mark[0]
        self.course.cpu_s += now[1] - self.mark[1]
        self.mark = now

    def _save(self, file: Path) -> None:
        self._clock()
        words = {"stale_key": self.job.stale_key, "course": vars(self.course)}
        checkpoint.save(file, self.job.identity, words, self.trainer.snapshot())
        self.saved = time.perf_counter()


def calibrate(job: Job) -> dict[str, Any]:
    """Seconds of a training step of this network, the median over a few dozen."""
    made, times = job.trainer(), []
    for step in range(sum(CALIBRATION)):
        batch, masks = job.data.train(step), seeds.masks(job.root, step)
        start = time.perf_counter()
        made.step(batch, masks)
        made.loss()
        times.append(time.perf_counter() - start)
    gc.collect()
    return {"step_s": statistics.median(times[CALIBRATION[0] :])}


def fingerprint(params: Arrays) -> str:
    """sha256 of parameters: names, shapes and every bit."""
    total = hashlib.sha256()
    for name in sorted(params):
        value = np.asarray(params[name], order="C")
        total.update(f"{name} {value.dtype.str} {value.shape}".encode() + value.tobytes())
    return total.hexdigest()


def _columns(job: Job, course: Course, params_sha256: str) -> dict[str, Any]:
    """What the row and the curve say of a training that has ended."""
    task, target, net = job.task, job.identity["target"], job.net
    steps, batch = job.data.train(0).inputs.shape[:2]
    median = statistics.median(course.step_s) if course.step_s else None
    row = {
        "framework": framework_of(impls.get(job.identity["impl"])),
        "data_sha256": job.data.sha256,
        "params": budgets.params(net),
        "flops_per_step": budgets.flops(net, batch, steps),
        "steps_done": course.done,
        "status": course.status,
        "stop_reason": course.stop or "budget",
        "metric": course.final(course.test),
        "validation": course.final(cast("list[float | None]", course.validation)),
        "auc": course.auc(),
        "steps_to_target": course.steps_to(target, task.higher_is_better)
        if course.status == "ok"
        else None,
        "train_loss": course.train_loss,
        "wall_s": course.wall_s,
        "cpu_s": course.cpu_s,
        "ms_per_step": None if median is None else 1e3 * median,
        "peak_bytes": course.peak_bytes or None,
        "chance": job.data.chance,
        "params_sha256": params_sha256,
    }
    curve = {
        "steps": course.points[: len(course.validation)],
        "validation": course.validation,
        "test": course.test,
        "loss": course.loss,
    }
    return {"row": row, "curve": curve}
