"""Labelled texts: a local JSONL or TSV file, or a known set, cut into parts that never overlap."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from harness.errors import UsageError
from harness.tasks import textfile
from harness.tasks.sources import content, is_local


class Example(NamedTuple):
    """A text and its label."""

    text: str
    label: str


Parts = dict[str, list[Example]]
SHARES = {"test": 15, "validation": 10, "tuning": 5}
"""Percent of a file for each set, by a hash of the text; the rest trains."""


def _bucket(text: str) -> int:
    digest = hashlib.sha256(b"labelled" + text.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "little")


def _cut(examples: list[Example], shares: dict[str, int]) -> Parts:
    out: Parts = {part: [] for part in ("train", *shares)}
    for example in examples:
        at, chosen = _bucket(example.text) % 100, "train"
        for part, share in shares.items():
            if 0 <= at < share:
                chosen = part
            at -= share
        out[chosen].append(example)
    return out


def apart(parts: Parts) -> Parts:
    """Parts without common texts: of two sets, the one that is reported keeps a text.

    The order is that of a hash of the text, whatever order the owner's file has.
    """
    seen: set[str] = set()
    out: Parts = {}
    for part in ("test", "validation", "tuning", "train"):
        kept = [example for example in parts[part] if example.text not in seen]
        seen |= {example.text for example in parts[part]}
        out[part] = sorted(kept, key=lambda example: _bucket(example.text))
    return out


def _line(path: str, number: int, wrong: str) -> UsageError:
    return UsageError(
        f"file {path!r}, line {number}: {wrong}; give "
        + (
            '{"text": ..., "label": ...}'
            if path.endswith(".jsonl")
            else "a label, a tab and a text"
        )
    )


def _of_json(path: str, number: int, line: str) -> Example:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise _line(path, number, f"not JSON ({error.msg})") from None
    if not isinstance(row, dict):
        raise _line(path, number, "not a JSON object")
    text, label = row.get("text"), row.get("label")
    if not isinstance(text, str) or not text.strip():
        raise _line(path, number, f"text = {text!r}")
    if isinstance(label, bool) or not isinstance(label, (str, int)) or not str(label).strip():
        raise _line(path, number, f"label = {label!r}")
    return Example(text, str(label))


def _of_tabs(path: str, number: int, line: str) -> Example:
    label, tab, text = line.partition("\t")
    if not tab:
        raise _line(path, number, "no tab")
    if not label.strip() or not text.strip():
        raise _line(path, number, "an empty label or text")
    return Example(text.strip(), label.strip())


READERS: dict[str, Callable[[str, int, str], Example]] = {".jsonl": _of_json, ".tsv": _of_tabs}


def of_file(path: object) -> Parts:
    """The parts of somebody's own file, .jsonl or .tsv (label first, no header).

    Raises:
        UsageError: it cannot be read, a line is not an example, or there is nothing to tell apart.
    """
    ending = Path(str(path)).suffix.lower()
    if ending not in READERS:
        raise UsageError(f"file = {str(path)!r}: its name must end in {' or '.join(READERS)}")
    lines = enumerate(textfile.read(path).split("\n"), 1)
    examples = [READERS[ending](str(path), n, line) for n, line in lines if line.strip()]
    parts = apart(_cut(examples, SHARES))
    trained = {example.label for example in parts["train"]}
    if len({example.label for example in examples}) < 2:
        raise UsageError(f"file {str(path)!r}: every label is {examples[0].label!r}; give two")
    for part, chosen in parts.items():
        if not chosen:
            raise UsageError(
                f"file {str(path)!r}: {len(examples)} examples leave none for {part}; give more"
            )
        if unknown := sorted({example.label for example in chosen} - trained):
            raise UsageError(
                f"file {str(path)!r}: label {unknown[0]!r} is too rare, no training example has "
                "it; give more of it or leave it out"
            )
    return parts


def _snips() -> Parts:
    def pairs(part: str) -> list[Example]:
        texts = content(f"snips.{part}.text").decode().splitlines()
        labels = content(f"snips.{part}.label").decode().splitlines()
        return [Example(t.strip(), n.strip()) for t, n in zip(texts, labels, strict=True)]

    train = _cut(pairs("train"), {"tuning": SHARES["tuning"]})
    return train | {"validation": pairs("valid"), "test": pairs("test")}


def _imdb_archive(raw: bytes, part: str) -> Iterator[Example]:
    with tarfile.open(fileobj=io.BytesIO(raw), mode="r:gz") as archive:
        for member in archive:
            at = member.name.split("/")
            if len(at) == 4 and at[1] == part and at[2] in ("neg", "pos"):
                file = archive.extractfile(member)
                if file is not None:
                    yield Example(file.read().decode(), at[2])


def _imdb_lines(raw: bytes) -> list[Example]:
    rows = (json.loads(line) for line in raw.decode().split("\n") if line)
    return [Example(row["text"], row["label"]) for row in rows]


def _imdb() -> Parts:
    if is_local("imdb.train") and is_local("imdb.test"):
        given = {part: _imdb_lines(content(f"imdb.{part}")) for part in ("train", "test")}
    else:
        raw = content("imdb.archive")
        given = {part: list(_imdb_archive(raw, part)) for part in ("train", "test")}
    held_out = {part: SHARES[part] for part in ("validation", "tuning")}
    return _cut(given["train"], held_out) | {"test": given["test"]}


KNOWN: dict[str, Callable[[], Parts]] = {"snips": _snips, "imdb": _imdb}


@cache
def known(name: str) -> Parts:
    """The parts of one of `KNOWN`: published test sets stay whole, texts they share train nowhere.

    Raises:
        UsageError: its files are neither in the local folder nor to be downloaded.
    """
    return apart(KNOWN[name]())
