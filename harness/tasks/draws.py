"""Streams of random numbers, sets of examples and their hash: what every task's data share."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields
from zlib import crc32

import numpy as np

from harness.tasks import EVALUATION, Score, Task, TaskData
from impls.training import Batch

Draw = Callable[[np.random.Generator, int], Batch]


def stream(run_root: int, name: str, index: int) -> np.random.Generator:
    """The generator of one named stream: `SeedSequence([run_root, crc32(name), index])`."""
    return np.random.default_rng(np.random.SeedSequence([run_root, crc32(name.encode()), index]))


def synthetic(
    task: Task,
    run_root: int,
    draw: Draw,
    score: Score,
    text: Callable[[Sequence[int]], str] | None = None,
) -> TaskData:
    """Data of a task whose examples are drawn: `draw(generator, sequences) -> Batch`.

    Training step s draws from stream "data" at index s; each evaluation set has a stream of its
    own. `score` and `text` are TaskData's.
    """
    count, size = EVALUATION
    sets = {
        part: [draw(stream(run_root, part, i), size) for i in range(count)]
        for part in ("validation", "test", "tuning")
    }
    return TaskData(
        train=lambda step: draw(stream(run_root, "data", step), task.batch_size),
        **sets,
        score=score,
        sha256=fingerprint(task.name, task.version, sets.values()),
        net=dict(task.net),
        chance=task.chance,
        text=text,
    )


def order(run_root: int, examples: int, batch_size: int) -> Callable[[int], np.ndarray]:
    """Which examples [batch_size] a training step takes: each epoch a permutation of its own.

    Epoch e permutes with stream "order" at index e; what does not fill a batch is left out of
    that epoch. Fewer examples than a batch are taken again.
    """
    per_epoch = max(1, examples // batch_size)
    last: dict[int, np.ndarray] = {}

    def chosen(step: int) -> np.ndarray:
        epoch, at = divmod(step, per_epoch)
        if epoch not in last:
            last.clear()
            last[epoch] = stream(run_root, "order", epoch).permutation(examples)
        return np.take(last[epoch], range(at * batch_size, (at + 1) * batch_size), mode="wrap")

    return chosen


def _arrays(batches: Sequence[Batch]) -> Iterator[tuple[str, np.ndarray]]:
    for batch in batches:
        for part in fields(batch):
            value = getattr(batch, part.name)
            if value is not None:
                yield part.name, np.asarray(value)


def fingerprint(
    name: str, version: int, sets: Iterable[Sequence[Batch]], trained: bytes = b""
) -> str:
    """sha256 of a task's name, version and the arrays of its evaluation sets, in order.

    Args:
        trained: what is trained on, where no seed draws it.
    """
    digest = hashlib.sha256(f"{name} {version}".encode())
    if trained:
        digest.update(hashlib.sha256(trained).digest())
    for batches in sets:
        digest.update(b"set")
        for part, value in _arrays(batches):
            digest.update(f"{part} {value.dtype.str} {value.shape}".encode())
            digest.update(np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()


def digest_of(name: str, version: int, sets: Iterable[Iterable[str]]) -> str:
    """sha256 of a task's name, version and evaluation sets that are given as lines of text."""
    digest = hashlib.sha256(f"{name} {version}".encode())
    for lines in sets:
        digest.update(b"set")
        for line in lines:
            digest.update(line.encode("utf-8", "surrogatepass") + b"\n")
    return digest.hexdigest()


def counted(batch: Batch) -> np.ndarray:
    """Weights [T, B] float64 of a head "steps" or "seq2seq" batch: what its loss counts."""
    steps, sequences = batch.targets.shape[:2]
    if batch.weights is not None:
        return np.asarray(batch.weights, np.float64)
    ends = batch.target_lengths if batch.target_lengths is not None else batch.lengths
    if ends is None:
        return np.ones((steps, sequences))
    return (np.arange(steps)[:, None] < np.asarray(ends)[None, :]).astype(np.float64)


def step_accuracy(outputs: Sequence[np.ndarray], batches: Sequence[Batch]) -> float:
    """Share of counted steps whose largest logit [T, B, O] is the target's."""
    right = total = 0.0
    for logits, batch in zip(outputs, batches, strict=True):
        weights = counted(batch)
        right += float((weights * (logits.argmax(-1) == batch.targets)).sum())
        total += float(weights.sum())
    return right / total


def accuracy(outputs: Sequence[np.ndarray], batches: Sequence[Batch]) -> float:
    """Share of sequences whose largest logit [B, O] is the target's."""
    pairs = list(zip(outputs, batches, strict=True))
    right = sum(int((logits.argmax(-1) == batch.targets).sum()) for logits, batch in pairs)
    return right / sum(len(batch.targets) for _, batch in pairs)


def mean_squared_error(outputs: Sequence[np.ndarray], batches: Sequence[Batch]) -> float:
    """Mean of the squared error over sequences and values [B, O]."""
    total = count = 0.0
    for values, batch in zip(outputs, batches, strict=True):
        total += float(np.square(values.astype(np.float64) - batch.targets).sum())
        count += batch.targets.size
    return total / count


def bits(outputs: Sequence[np.ndarray], batches: Sequence[Batch]) -> float:
    """Mean over counted steps of -log2 of the probability given to the target, from logits."""
    total = count = 0.0
    for logits, batch in zip(outputs, batches, strict=True):
        scores = logits.astype(np.float64)
        top = scores.max(-1, keepdims=True)
        normaliser = np.log(np.exp(scores - top).sum(-1)) + top[..., 0]
        chosen = np.take_along_axis(scores, batch.targets[..., None].astype(np.int64), -1)[..., 0]
        weights = counted(batch)
        total += float((weights * (normaliser - chosen)).sum())
        count += float(weights.sum())
    return total / count / float(np.log(2))


def exact_match(outputs: Sequence[np.ndarray], batches: Sequence[Batch]) -> float:
    """Share of sequences whose every counted symbol has the largest teacher-forced logit.

    That is the exact match of greedy search: as long as each choice is the target's, the decoder
    is fed what it would have fed itself.
    """
    right = total = 0
    for logits, batch in zip(outputs, batches, strict=True):
        wrong = (logits.argmax(-1) != batch.targets) & (counted(batch) > 0)
        right += int((~wrong.any(0)).sum())
        total += wrong.shape[1]
    return right / total
