"""Classifying texts by their hashed tokens (pQRNN): a local file, SNIPS intents or IMDb reviews."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from harness.errors import UsageError, nearest
from harness.tasks import Options, Task, TaskData, labelled
from harness.tasks.draws import accuracy, digest_of, stream
from harness.tasks.ternary import PREFIX, Ternary
from impls.training import Batch

FEATURES = 512
MOST_TOKENS, EVALUATED = 256, 2048
ROUND = 8
"""Batches are as long as their longest text, rounded up to this: few shapes, little padding."""
POOL = 16
"""Batches whose examples are sorted by length together."""
_TOKEN = re.compile(r"[\w']+|[^\w\s]")


def tokens(text: str) -> list[str]:
    """Words and punctuation marks, lower case; "<br />" of web pages is a space."""
    return _TOKEN.findall(text.replace("<br />", " ").lower())


@dataclass(frozen=True)
class Encoded:
    """Examples as rows of a feature table: `rows[i]` int64 of text i, its class `labels[i]`."""

    table: Ternary
    rows: list[np.ndarray]
    labels: np.ndarray

    def batch(self, chosen: np.ndarray) -> Batch:
        """Inputs float32 [T, B, F], targets int64 [B], with lengths."""
        rows = [self.rows[i] for i in chosen]
        lengths = np.array([len(row) for row in rows], np.int64)
        steps = -(-int(lengths.max()) // ROUND) * ROUND
        return Batch(self.table.batch(rows, steps), self.labels[chosen], lengths=lengths)


class Evaluation(Sequence[Batch]):
    """Batches of all examples, the shortest first, each made when it is asked for."""

    def __init__(self, examples: Encoded, size: int) -> None:
        self._examples = examples
        order = np.argsort([len(row) for row in examples.rows], kind="stable")
        self._chosen = [order[at : at + size] for at in range(0, len(order), size)]

    def __len__(self) -> int:
        """Number of batches."""
        return len(self._chosen)

    def __getitem__(self, index: Any) -> Any:
        """One batch, or a list of them."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return self._examples.batch(self._chosen[index])


@dataclass(frozen=True)
class Corpus:
    """The sets of a corpus as `Encoded`, and the labels in order of their class."""

    parts: dict[str, Encoded]
    labels: tuple[str, ...]

    def lines(self, part: str) -> Iterator[str]:
        """What the set of this name is made of, for the hash."""
        mine = self.parts[part]
        yield f"{part} {self.labels} {FEATURES} {PREFIX!r}"
        for rows, label in zip(mine.rows, mine.labels, strict=True):
            yield f"{label} {' '.join(mine.table.tokens(rows))}"


def encode(parts: labelled.Parts, most_tokens: int, evaluated: int) -> Corpus:
    """Texts as rows of one feature table, cut after `most_tokens` (0 = never).

    Of each evaluation set the first `evaluated` examples are taken (0 = all).
    """
    table = Ternary(FEATURES)
    names = sorted({example.label for example in parts["train"]})
    number = {name: i for i, name in enumerate(names)}
    encoded = {}
    for part, every in parts.items():
        examples = every if part == "train" else every[: evaluated or None]
        texts = [tokens(example.text)[: most_tokens or None] or ["?"] for example in examples]
        labels = np.array([number[example.label] for example in examples], np.int64)
        encoded[part] = Encoded(table, [table.rows(text) for text in texts], labels)
    return Corpus(encoded, tuple(names))


@cache
def _known(name: str, most_tokens: int, evaluated: int) -> Corpus:
    return encode(labelled.known(name), most_tokens, evaluated)


class Feeder:
    """Training batches of similar length; each epoch a permutation of its own.

    Epoch e permutes with stream "order" at index e, sorts every 16 batches' examples by length,
    and permutes the batches with the same stream. What does not fill a batch is left out.
    """

    def __init__(self, run_root: int, examples: Encoded, batch_size: int) -> None:
        self.run_root, self.examples, self.batch_size = run_root, examples, batch_size
        self.per_epoch = max(1, len(examples.rows) // batch_size)
        self._lengths = np.array([len(row) for row in examples.rows])
        self._epoch, self._plan = -1, np.zeros((0, 0), np.int64)

    def __call__(self, step: int) -> Batch:
        """The batch of a training step."""
        epoch, at = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            self._epoch, self._plan = epoch, self._planned(epoch)
        return self.examples.batch(self._plan[at])

    def _planned(self, epoch: int) -> np.ndarray:
        generator = stream(self.run_root, "order", epoch)
        size = self.per_epoch * self.batch_size
        chosen = np.resize(generator.permutation(len(self._lengths)), size)
        pool = POOL * self.batch_size
        for at in range(0, size, pool):
            part = chosen[at : at + pool]
            chosen[at : at + pool] = part[np.argsort(self._lengths[part], kind="stable")]
        return generator.permutation(chosen.reshape(self.per_epoch, self.batch_size))


def _number(options: Options, name: str, default: int) -> int:
    value = options.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise UsageError(f"{name} = {value!r}: give a whole number, 0 for no limit")
    return value


def _corpus(options: Options) -> Corpus:
    limits = _number(options, "most_tokens", MOST_TOKENS), _number(options, "evaluated", EVALUATED)
    if "file" in options and "source" in options:
        raise UsageError("task 'text_classification': give either file or source, not both")
    if "file" in options:
        return encode(labelled.of_file(options["file"]), *limits)
    source = options.get("source", "snips")
    if source not in labelled.KNOWN:
        raise UsageError(
            f"source = {source!r}: allowed are {', '.join(labelled.KNOWN)}"
            f"{nearest(source, labelled.KNOWN)}; or file"
        )
    return _known(str(source), *limits)


def _data(run_root: int, options: Options) -> TaskData:
    corpus = _corpus(options)
    parts = ("validation", "test", "tuning")
    sets = {part: Evaluation(corpus.parts[part], size=128) for part in parts}
    commonest = np.bincount(corpus.parts["train"].labels).argmax()
    return TaskData(
        train=Feeder(run_root, corpus.parts["train"], task.batch_size),
        validation=sets["validation"],
        test=sets["test"],
        tuning=sets["tuning"],
        score=accuracy,
        sha256=digest_of(
            task.name, task.version, (corpus.lines(part) for part in ("train", *parts))
        ),
        net=task.net | {"outputs": len(corpus.labels)},
        chance=float((corpus.parts["test"].labels == commonest).mean()),
    )


task = Task(
    name="text_classification",
    version=1,
    about="the class of a text from hashed ternary features of its tokens (pQRNN)",
    metric="accuracy",
    higher_is_better=True,
    chance=0.1229,
    ceiling=1.0,
    target=0.95,
    good={"bidirectional": True},
    bad={"hidden_size": 1},
    net={
        "inputs": "hashed", "features": FEATURES, "outputs": 7, "head": "sequence",
        "readout": "attention", "loss": "cross_entropy",
    },
    batch_size=32,
    steps=772,  # two epochs of SNIPS
    input_size=256,
    make=_data,
    evaluated=EVALUATED,
    options={
        "file": "path of a .jsonl (text, label) or .tsv (label, tab, text) file",
        "source": "known set: snips (default) or imdb, from $QUASIBENCH_DATA or the web",
        "evaluated": f"most examples of each evaluation set (default {EVALUATED}; 0 = all)",
        "most_tokens": f"texts are cut after this many tokens (default {MOST_TOKENS}; 0 = never)",
    },
    recipe={
        "core": {
            "hidden_size": 128, "layers": 2, "kernel_width": 3, "pooling": "fo",
            "bidirectional": True,
        },
        "net": {"dropout": 0.2, "dropout_input": 0.1},
        "optimiser": {
            "algorithm": "adam", "learning_rate": 1e-3, "clip_norm": 1.0, "schedule": "cosine",
            "total_steps": 772,
        },
    },
)  # fmt: skip
