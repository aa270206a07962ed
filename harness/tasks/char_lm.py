"""Predicting the next character of a text, with the state carried over truncated sequences."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from harness.errors import UsageError, nearest
from harness.tasks import Options, Task, TaskData, textfile
from harness.tasks.draws import bits, fingerprint, stream
from harness.tasks.sources import content
from impls.training import Batch

STEPS, LANES = 64, 32
"""Truncation length, and how many places of the text are read side by side."""
EVALUATED = 16_384
"""Characters of each evaluation set that are scored unless the option `evaluated` says more."""
HELD_OUT = 0.05
"""Share of a text of one piece for each of validation, test and tuning: its end, in this order:
tuning, validation, test. A corpus that brings its own parts gives the end of its training text
to tuning."""
SOURCES = ("tinyshakespeare", "ptb")


@dataclass(frozen=True)
class Corpus:
    """A text as numbers: `parts` int32 by set, `alphabet` in order."""

    alphabet: str
    parts: dict[str, np.ndarray]

    @property
    def trained(self) -> bytes:
        """The alphabet, then the training text."""
        alphabet = self.alphabet.encode("utf-32-le", "surrogatepass")
        return alphabet + self.parts["train"].tobytes()


def corpus(pieces: dict[str, str]) -> Corpus:
    """Numbers for characters; the alphabet is that of all parts, so none is unknown anywhere."""
    alphabet = sorted(set().union(*pieces.values()))
    points = np.array([ord(c) for c in alphabet])
    parts = {}
    for part, text in pieces.items():
        codes = np.frombuffer(text.encode("utf-32-le"), np.uint32)
        parts[part] = np.searchsorted(points, codes).astype(np.int32)
    return Corpus("".join(alphabet), parts)


def _cut(text: str) -> dict[str, str]:
    size = int(len(text) * HELD_OUT)
    end = len(text)
    return {
        "train": text[: end - 3 * size],
        "tuning": text[end - 3 * size : end - 2 * size],
        "validation": text[end - 2 * size : end - size],
        "test": text[end - size :],
    }


def ptb_characters(raw: bytes) -> str:
    """Penn Treebank as characters: spaces become "_", each sentence ends with a line end."""
    lines = raw.decode().strip("\n").split("\n")
    return "".join(line.strip().replace(" ", "_") + "\n" for line in lines)


@cache
def known(source: str) -> Corpus:
    """One of `SOURCES`.

    Raises:
        UsageError: it is neither in the local folder nor to be downloaded.
    """
    if source == "tinyshakespeare":
        return corpus(_cut(content("tinyshakespeare").decode()))
    pieces = {part: ptb_characters(content(f"ptb.{part}")) for part in ("train", "valid", "test")}
    last = int(len(pieces["train"]) * HELD_OUT)
    return corpus(
        {
            "train": pieces["train"][:-last],
            "tuning": pieces["train"][-last:],
            "validation": pieces["valid"],
            "test": pieces["test"],
        }
    )


def lanes(symbols: np.ndarray, sequences: int) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets [steps, sequences]: equal consecutive pieces of the text side by side."""
    length = (len(symbols) - 1) // sequences
    inputs = symbols[: length * sequences].reshape(sequences, length).T
    targets = symbols[1 : length * sequences + 1].reshape(sequences, length).T
    return inputs, targets


def _chunks(symbols: np.ndarray, evaluated: int) -> list[Batch]:
    inputs, targets = lanes(symbols[: evaluated + 1] if evaluated else symbols, LANES)
    return [
        Batch(inputs[at : at + STEPS], targets[at : at + STEPS], carry=at > 0)
        for at in range(0, len(inputs) - len(inputs) % STEPS, STEPS)
    ]


@dataclass(frozen=True)
class Reader:
    """Training batches: each epoch starts at an offset of its own, then reads on with the state."""

    run_root: int
    symbols: np.ndarray

    def __call__(self, step: int) -> Batch:
        """The batch of a training step; the first of an epoch starts with a fresh state."""
        per_epoch = (len(self.symbols) - 1 - STEPS) // LANES // STEPS
        epoch, at = divmod(step, per_epoch)
        offset = int(stream(self.run_root, "order", epoch).integers(STEPS))
        inputs, targets = lanes(self.symbols[offset:], LANES)
        here = slice(at * STEPS, (at + 1) * STEPS)
        return Batch(inputs[here], targets[here], carry=at > 0)


def unigram_bits(corpus: Corpus, part: str) -> float:
    """Bits per character of a guess that knows the training text's frequencies only."""
    seen = np.bincount(corpus.parts["train"], minlength=len(corpus.alphabet)) + 1.0
    return float(-np.log2(seen / seen.sum())[corpus.parts[part]].mean())


def _number(options: Options, name: str, default: int) -> int:
    value = options.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise UsageError(f"{name} = {value!r}: give a whole number of characters, 0 for all")
    return value


def _chosen(options: Options) -> Corpus:
    if "file" in options and "source" in options:
        raise UsageError("task 'char_lm': give either file or source, not both")
    if "file" in options:
        return corpus(_cut(textfile.read(options["file"])))
    source = options.get("source", "tinyshakespeare")
    if source not in SOURCES:
        hint = nearest(source, SOURCES)
        raise UsageError(f"source = {source!r}: allowed are {', '.join(SOURCES)}{hint}; or file")
    return known(str(source))


def _data(run_root: int, options: Options) -> TaskData:
    evaluated = _number(options, "evaluated", EVALUATED)
    text = _chosen(options)
    smallest = min(len(symbols) for symbols in text.parts.values())
    if smallest <= LANES * STEPS:
        raise UsageError(
            f"the text is too short: its smallest part has {smallest} characters, "
            f"{LANES * STEPS + 1} are needed (5 % of about 41,000); give a longer text"
        )
    sets = {part: _chunks(text.parts[part], evaluated) for part in ("validation", "test", "tuning")}
    size = len(text.alphabet)
    return TaskData(
        train=Reader(run_root, text.parts["train"]),
        validation=sets["validation"],
        test=sets["test"],
        tuning=sets["tuning"],
        score=bits,
        sha256=fingerprint(task.name, task.version, sets.values(), text.trained),
        net=task.net | {"vocabulary": size, "outputs": size},
        chance=unigram_bits(text, "test"),
        text=lambda symbols: "".join(text.alphabet[s] for s in symbols),
    )


task = Task(
    name="char_lm",
    version=1,
    about="the next character of a text; the state is carried over 64-step truncations",
    metric="bits_per_character",
    higher_is_better=False,
    chance=4.8,
    ceiling=1.0,
    target=2.7,
    good={},
    bad={"kernel_width": 1},
    net={
        "inputs": "tokens", "vocabulary": 65, "outputs": 65, "head": "steps",
        "loss": "cross_entropy",
    },
    batch_size=LANES,
    steps=1000,
    input_size=64,
    make=_data,
    evaluated=EVALUATED,
    options={
        "file": "path of a UTF-8 text to learn instead",
        "source": "known text: tinyshakespeare (default) or ptb, from $QUASIBENCH_DATA or the web",
        "evaluated": f"characters scored per evaluation set (default {EVALUATED}; 0 = all)",
    },
)  # fmt: skip
