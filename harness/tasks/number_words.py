"""Translating German number words into English ones, character by character (num2words)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache

import numpy as np

from harness.errors import UsageError
from harness.tasks import Options, Task, TaskData
from harness.tasks.draws import exact_match, fingerprint, stream
from impls.beam import END
from impls.training import Batch

NUMBERS = 1_000_000
BUCKETS = 1000
HELD_OUT = {"test": range(3), "validation": range(3, 4), "tuning": range(4, 5)}
"""Hash buckets of each evaluation set, about 1,000 integers each; the others train."""
FIRST = END + 1
"""Letters follow the padding 0 and the end mark 1."""
GERMAN = "abcdefghilnrstuvwzßöü"
ENGLISH = " ,-adefghilnorstuvwxyz"
LONGEST = {"de": 65, "en": 73}
ROUND = 16
"""Evaluation batches are as long as their longest sequence, rounded up to this."""


def hashed(numbers: np.ndarray) -> np.ndarray:
    """Bucket of each integer: SplitMix64's finaliser of n + 0x9e3779b97f4a7c15, modulo 1000."""
    with np.errstate(over="ignore"):
        x = numbers.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return ((x ^ (x >> np.uint64(31))) % np.uint64(BUCKETS)).astype(np.int64)


@cache
def parts() -> dict[str, np.ndarray]:
    """The integers of each set: "train", "validation", "test", "tuning", ascending."""
    numbers = np.arange(NUMBERS)
    buckets = hashed(numbers)
    out = {part: numbers[np.isin(buckets, list(mine))] for part, mine in HELD_OUT.items()}
    return {"train": numbers[buckets >= 5], **out}


@cache
def _library(number: int, language: str) -> str:
    try:
        from num2words import num2words
    except ImportError:
        raise UsageError(
            "task 'number_words' needs num2words: pip install 'quasibench[tasks]'"
        ) from None
    return str(num2words(number, lang=language))


def words(number: int, language: str) -> str:
    """What num2words gives, composed of its words for the thousands and for the rest.

    Both languages only join the two (English with " and " before a rest below 100, else ", "), so
    2,000 calls of the library serve a million integers; a test compares with the library.
    """
    thousands, rest = divmod(number, 1000)
    if thousands == 0 or rest == 0:
        return _library(number, language)
    joint = "" if language == "de" else " and " if rest < 100 else ", "
    return _library(thousands * 1000, language) + joint + _library(rest, language)


def encode(texts: Sequence[str], alphabet: str, steps: int, end: bool) -> np.ndarray:
    """Symbols int32 [steps, B], zero-padded, with the end mark 1 after each where asked."""
    number = {letter: FIRST + i for i, letter in enumerate(alphabet)}
    out = np.zeros((steps, len(texts)), np.int32)
    for column, line in enumerate(texts):
        symbols = [number[letter] for letter in line] + [END] * end
        out[: len(symbols), column] = symbols
    return out


def text(symbols: Sequence[int]) -> str:
    """English letters of output symbols; padding and end mark are left out."""
    return "".join(ENGLISH[s - FIRST] for s in symbols if s >= FIRST)


def batch(numbers: Iterable[int], source_steps: int = 0, target_steps: int = 0) -> Batch:
    """German words of these integers as inputs [T, B], English ones with end mark as targets.

    T and U are at least the steps given.
    """
    chosen = [int(number) for number in numbers]
    german = [words(number, "de") for number in chosen]
    english = [words(number, "en") for number in chosen]
    lengths = np.array([len(line) for line in german], np.int64)
    ends = np.array([len(line) + 1 for line in english], np.int64)
    return Batch(
        encode(german, GERMAN, max(source_steps, int(lengths.max())), end=False),
        encode(english, ENGLISH, max(target_steps, int(ends.max())), end=True),
        lengths=lengths,
        target_lengths=ends,
    )


def _rounded(steps: int) -> int:
    return -(-steps // ROUND) * ROUND


@cache
def _evaluation(part: str) -> tuple[Batch, ...]:
    numbers = sorted(parts()[part].tolist(), key=lambda n: (len(words(n, "de")), n))
    out = []
    for at in range(0, len(numbers), 128):
        chosen = numbers[at : at + 128]
        source = max(len(words(number, "de")) for number in chosen)
        target = max(len(words(number, "en")) for number in chosen) + 1
        out.append(batch(chosen, _rounded(source), _rounded(target)))
    return tuple(out)


def chrf(decoded: Sequence[str], references: Sequence[str]) -> float:
    """Character F-score of the corpus, 0 to 100, by sacrebleu's chrF2.

    Raises:
        UsageError: sacrebleu is not installed.
    """
    try:
        from sacrebleu.metrics import CHRF
    except ImportError:
        raise UsageError("chrF needs sacrebleu: pip install 'quasibench[tasks]'") from None
    return float(CHRF().corpus_score(list(decoded), [list(references)]).score)


def references(batches: Sequence[Batch]) -> list[str]:
    """The English texts of these batches' targets, in order."""
    return [text(column) for one in batches for column in one.targets.T.tolist()]


def _data(run_root: int, _options: Options) -> TaskData:
    rows = parts()["train"]
    sets = {part: list(_evaluation(part)) for part in HELD_OUT}

    def train(step: int) -> Batch:
        drawn = stream(run_root, "data", step).integers(0, len(rows), task.batch_size)
        return batch(rows[drawn], LONGEST["de"], LONGEST["en"] + 1)

    return TaskData(
        train=train,
        validation=sets["validation"],
        test=sets["test"],
        tuning=sets["tuning"],
        score=exact_match,
        sha256=fingerprint(task.name, task.version, sets.values()),
        net=dict(task.net),
        chance=task.chance,
        text=text,
    )


task = Task(
    name="number_words",
    version=2,
    about="German number words below a million to English ones, character by character",
    metric="exact_match",
    higher_is_better=True,
    chance=0.0,
    ceiling=1.0,
    target=0.99,
    good={},
    bad={"hidden_size": 8},
    net={
        "inputs": "tokens", "vocabulary": FIRST + len(GERMAN), "outputs": FIRST + len(ENGLISH),
        "head": "seq2seq", "loss": "cross_entropy",
    },
    batch_size=32,
    steps=1200,
    input_size=64,
    make=_data,
    evaluated=0,
    recipe={
        "core": {"hidden_size": 128, "layers": 2, "kernel_width": 3, "pooling": "fo"},
        "net": {"reversed_source": True},
        "optimiser": {
            "algorithm": "adam", "learning_rate": 4e-3, "schedule": "cosine",
            "warmup_steps": 50, "total_steps": 1200,
        },
    },
)  # fmt: skip
