"""The streams of one seed: what is random in a run, named, so that no arm can shift another's.

run_root = first 64 bits of SeedSequence([plan's root, seed]); every stream is
SeedSequence([run_root, crc32(name), index]). Data, order and evaluation sets are drawn by the
tasks from run_root; initial values come from it and a parameter's name.
"""

from __future__ import annotations

from zlib import crc32

import numpy as np

from impls.training import Seeds

TUNING = 1_000_000
"""Tuning seeds begin here, so that no final seed is ever one of them."""


def run_root(plan_root: int, seed: int) -> int:
    """The 64-bit root of everything random in the runs of one seed."""
    return _first(np.random.SeedSequence([plan_root, seed]))


def of(root: int, name: str, index: int = 0) -> int:
    """The first 64 bits of a named stream of one run."""
    return _first(np.random.SeedSequence([root, crc32(name.encode()), index]))


def masks(root: int, step: int) -> Seeds:
    """Seeds of the random masks of training step `step`, counted from 0."""
    return Seeds(dropout=of(root, "dropout", step), zoneout=of(root, "zoneout", step))


def _first(sequence: np.random.SeedSequence) -> int:
    return int(sequence.generate_state(1, np.uint64)[0])
