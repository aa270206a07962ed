"""Profiles: the TOML files that say which grid to measure, in how much time."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from harness import checked
from harness.checked import known_keys, parse_duration
from harness.errors import UsageError, nearest
from harness.speed import grid
from harness.speed.axes import axes_of, memory_of
from harness.speed.modes import WHOLE
from impls.contract import DTYPES, PARTS, SpecError

OVERHEAD_S = {"worker start": 6.0, "ceilings": 7.0, "equivalence checks": 18.0, "report": 16.0}
"""Seconds that are kept for what is not a sitting, where a profile gives no `overhead`."""
MIN_ROUNDS = 7
FEWEST_ROUNDS = 3
"""Rounds below which a point is dropped rather than measured with a wide interval."""
DROPS = ("dearest", "last")


@dataclass(frozen=True)
class Profile:
    """One validated profile; the words are those of its TOML file.

    Attributes:
        budget_s: seconds for everything, equivalence checks and report included.
        threads: thread budget of every contender, or "all" cores.
        baseline: "auto" (the fastest LSTM of the cell) or an implementation's name.
        contenders: "all" (without those that compile for minutes, see `compile`) or names of
            implementations, which are measured whether they compile or not.
        without: implementations that "all" leaves out too.
        up_to: implementation -> tokens (batch * steps) above which it is not a contender.
        twins: who gets an A/A twin, the "baseline" or "all".
        repeats: sittings per grid point.
        compile: whether `contenders = "all"` has the implementations too that take minutes to
            prepare (`Implementation.compiles`); the checks then end after `overhead_s`.
        grids: axis name -> values; a grid is the product of its axes.
        target_halfwidth: a sitting may stop when the 95 % interval of every log ratio is
            narrower than this on each side.
        parts: parts of a layer that are timed alone beside it, where an implementation offers
            them; `parts_from`: only at points of at least so many tokens (batch * steps).
        memory: axes like `grids`: points whose memory is measured, apart from all timing.
        checks: dtypes of the equivalence checks; empty means those of the grid.
        overhead_s: the part of the budget that is not measuring: worker starts, ceilings,
            equivalence checks, report.
        modes: how contenders are timed; with "graph" (CUDA alone) those whose card can capture
            their launches are timed as CUDA-graph replays too.
        drop: what goes where the budget does not hold all points: the "dearest" ones, or the
            "last" of the file, whose order is then that of importance; "last" also makes the
            budget a hard end, and plans again with the measured times while some is left.
        ablation: the ablation that `quasibench run` trains after all timing, None = none.
        device_tests_s: time limit of `pytest -m gpu` and of the equivalence checks beside it,
            which come first; None = no such tests.
    """

    name: str
    about: str
    budget_s: float
    threads: int | Literal["all"]
    baseline: str
    contenders: tuple[str, ...] | Literal["all"]
    twins: Literal["baseline", "all"]
    repeats: int
    compile: bool
    grids: tuple[dict[str, list[Any]], ...]
    min_rounds: int = MIN_ROUNDS
    target_halfwidth: float = 0.01
    max_rounds: int = 300
    seed: int = 1
    parts: tuple[str, ...] = ()
    parts_from: int = 1
    memory: tuple[dict[str, list[Any]], ...] = ()
    checks: tuple[str, ...] = ()
    overhead_s: float = sum(OVERHEAD_S.values())
    modes: tuple[str, ...] = ("default",)
    drop: str = "dearest"
    without: tuple[str, ...] = ()
    up_to: Mapping[str, int] = field(default_factory=dict)
    ablation: str | None = None
    device_tests_s: float | None = None

    @property
    def device(self) -> str:
        """Where all points run; a profile has one device."""
        return str(self.grids[0].get("device", ["cpu"])[0]) if self.grids else "cpu"

    def overhead_of(self, *parts: str) -> float:
        """Seconds of `overhead_s` that are kept for some of its parts, the keys of OVERHEAD_S."""
        whole = sum(OVERHEAD_S.values())
        return self.overhead_s * sum(OVERHEAD_S[part] for part in parts) / whole


def profile_names() -> list[str]:
    """Names of the profiles that come with the package, sorted."""
    folder = files("harness").joinpath("configs")
    return sorted(item.name[:-5] for item in folder.iterdir() if item.name.endswith(".toml"))


def load_profile(name_or_path: str) -> Profile:
    """A validated profile, by the name of a packaged one or by the path of a .toml file.

    Raises:
        UsageError: no such profile, or anything in it that is not understood.
    """
    given = str(name_or_path)
    if given.endswith(".toml"):
        path = Path(given)
        if path.stem in profile_names():
            raise UsageError(
                f"{given}: {path.stem!r} is a packaged profile, whose rows yours would join: "
                "give your file another name"
            )
        text, name = _read(path, given), path.stem
    elif given in profile_names():
        text = files("harness").joinpath("configs", f"{given}.toml").read_text(encoding="utf-8")
        name, given = given, f"{given}.toml"
    else:
        raise UsageError(
            f"unknown profile {given!r}{nearest(given, profile_names())} (known: "
            f"{', '.join(profile_names())}; or the path of a .toml file)"
        )
    try:
        return parse(text, name)
    except UsageError as error:
        raise UsageError(f"{given}: {error}") from None


def parse(text: str, name: str) -> Profile:
    """The profile of a TOML text.

    Raises:
        UsageError: a syntax error (with its line), an unknown key or value, two equal points.
    """
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"not valid TOML: {error}") from None
    known_keys(table, ("profile", "grid", "memory"), "file", "tables")
    head, grids = table.get("profile"), table.get("grid")
    if not isinstance(head, dict):
        raise UsageError("no [profile] table: give one with at least `budget`")
    if not isinstance(grids, list) or not grids or not all(isinstance(g, dict) for g in grids):
        raise UsageError("no [[grid]] table (two brackets): give at least one")
    found = tuple(axes_of(axes, f"[[grid]] {n}") for n, axes in enumerate(grids, 1))
    profile = Profile(name=name, grids=found, memory=memory_of(table), **_head(head))
    if profile.memory and profile.drop == "last":
        raise UsageError(
            '[[memory]]: no time is kept for it where drop = "last" makes the budget a hard end: '
            "give it a profile of its own"
        )
    try:
        asked = grid.points(profile, threads=1)
        asked += grid.points(replace(profile, grids=profile.memory), threads=1)
    except SpecError as error:
        raise UsageError(str(error)) from None
    devices = sorted({point.placement.device for point in asked})
    if len(devices) > 1:
        raise UsageError(
            f"device = {devices}: give one device per profile, whose ceilings and checks those are"
        )
    if devices != ["cuda"] and ("graph" in profile.modes or profile.device_tests_s):
        raise UsageError(
            '[profile] modes "graph" and device_tests are for CUDA: add device = "cuda" to '
            "every [[grid]], or leave them out"
        )
    return profile


def _read(path: Path, given: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        known = ", ".join(profile_names())
        raise UsageError(f"{given}: no such file (packaged profiles: {known})") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{given}: not UTF-8 text, see byte {error.start}") from None
    except OSError as error:
        raise UsageError(f"{given}: cannot be read: {error.strerror}") from None


def _head(table: Mapping[str, Any]) -> dict[str, Any]:
    """The [profile] table as arguments of Profile; keys not given keep their defaults."""
    known_keys(table, tuple(_HEAD), "[profile]", "keys")
    if "budget" not in table:
        raise UsageError('[profile]: no `budget`: give one such as "4.5m"')
    try:
        return _fitting(_DEFAULTS | {key: _HEAD[key](key, table[key]) for key in table})
    except UsageError as error:
        raise UsageError(f"[profile] {error}") from None


def _fitting(head: dict[str, Any]) -> dict[str, Any]:
    """What one key must know of another one."""
    chosen, baseline = head["contenders"], head["baseline"]
    if chosen != "all" and baseline != "auto" and baseline not in chosen:
        raise UsageError(f"baseline = {baseline!r} is not among the contenders: add it there")
    if "without" in head and chosen != "all":
        raise UsageError('without: only contenders = "all" leaves something out: remove it')
    if baseline in head.get("without", ()):
        raise UsageError(f"baseline = {baseline!r} is left out by `without`: remove it there")
    if head.get("max_rounds", Profile.max_rounds) < head.get("min_rounds", MIN_ROUNDS):
        raise UsageError(f"max_rounds = {head['max_rounds']}: less than min_rounds")
    head["budget_s"] = head.pop("budget")
    for key in ("overhead", "device_tests"):
        if key in head:
            head[f"{key}_s"] = head.pop(key)
    return head


_HEAD: dict[str, Callable[[str, Any], Any]] = {
    "about": checked.line,
    "budget": lambda key, value: parse_duration(value, key),
    "overhead": lambda key, value: parse_duration(value, key),
    "threads": checked.threads,
    "baseline": lambda key, value: checked.implementation(key, value, ("auto",)),
    "contenders": checked.contenders,
    "without": checked.implementations,
    "up_to": checked.token_limits,
    "twins": lambda key, value: checked.one_of(key, value, ("baseline", "all")),
    "repeats": checked.whole,
    "compile": checked.flag,
    "min_rounds": lambda key, value: checked.whole(key, value, MIN_ROUNDS),
    "max_rounds": lambda key, value: checked.whole(key, value, MIN_ROUNDS),
    "target_halfwidth": lambda key, value: checked.fraction(key, value, zero=False),
    "checks": lambda key, value: tuple(checked.words(key, value, DTYPES)),
    "parts": lambda key, value: tuple(checked.words(key, value, PARTS)),
    "parts_from": checked.whole,
    "seed": lambda key, value: checked.whole(key, value, 0),
    "modes": lambda key, value: checked.modes(key, value, WHOLE),
    "drop": lambda key, value: checked.one_of(key, value, DROPS),
    "ablation": checked.line,
    "device_tests": lambda key, value: parse_duration(value, key),
}
_DEFAULTS = {
    "about": "",
    "threads": "all",
    "baseline": "auto",
    "contenders": "all",
    "twins": "baseline",
    "repeats": 1,
    "compile": False,
}
