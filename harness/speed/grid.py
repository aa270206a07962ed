"""Grid points and cells: what a profile asks for, with ids that last; pure."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from harness.errors import UsageError, nearest
from harness.speed.draws import params_of, work_of
from harness.speed.modes import named
from impls.contract import ADDED_LATER, PARTS, Kind, ModelSpec, Placement, spec_fields

if TYPE_CHECKING:
    from harness.config import Profile

__all__ = [
    "AXES", "FILTERS", "PROTOCOL_VERSION", "Contender", "Point", "cell_id", "params_of",
    "parse_only", "points", "select", "work_of",
]  # fmt: skip

PROTOCOL_VERSION = 1
"""Raised whenever the same point would be measured differently; part of every id."""

SPEC_AXES = tuple(name for name in spec_fields() if name != "family")
PLACEMENT_AXES = tuple(f.name for f in fields(Placement))
AXES = ("kind", *PLACEMENT_AXES, "batch", "steps", "ragged", *SPEC_AXES)
"""Keys of a [[grid]] table. `family` is none: every contender brings its own."""
FILTERS = (*AXES, "repeat")
"""Fields that `--only` can choose points by."""


@dataclass(frozen=True)
class Point:
    """One grid point: everything that all contenders of one sitting share.

    `spec` describes the QRNN; a contender of another family gets the same sizes with its own
    `family`. `steps` is T, `batch` is B, `ragged` draws lengths in ceil(T/2)..T.
    """

    kind: Kind
    spec: ModelSpec
    placement: Placement
    batch: int
    steps: int
    ragged: bool = False
    repeat: int = 0
    threads: int = 1

    def fields(self) -> dict[str, Any]:
        """The point as one flat mapping: the columns of a row."""
        out: dict[str, Any] = {"kind": self.kind, **asdict(self.placement)}
        out |= {"batch": self.batch, "steps": self.steps, "ragged": self.ragged}
        out |= {"repeat": self.repeat, "threads": self.threads, **asdict(self.spec)}
        return out | {"zoneout": float(self.spec.zoneout)}

    def identity(self) -> dict[str, Any]:
        """What the ids are made of: the fields, without those added later where they are as usual.

        So a point that was there before a field was has the id that it had.
        """
        usual = ModelSpec()
        same = {name for name in ADDED_LATER if getattr(self.spec, name) == getattr(usual, name)}
        own = {name: value for name, value in self.fields().items() if name not in same}
        return {"protocol_version": PROTOCOL_VERSION, **own}

    @property
    def point_id(self) -> str:
        """12 hexadecimal digits that stay the same as long as the point does."""
        return _digest(self.identity(), 12)

    def label(self) -> str:
        """Short words for one line of a terminal, e.g. "forward float32 8 x 128, fo K=2 320"."""
        spec = self.spec
        words = f"{self.kind} {self.placement.dtype} {self.batch} x {self.steps}, {spec.pooling}"
        words += f" K={spec.kernel_width} {spec.input_size}->{spec.hidden_size}"
        usual = ModelSpec()
        extra = [
            name if value is True else f"{name}={value}"
            for name in ("layers", "zoneout", "dense", "bidirectional", "dilated", "heads")
            if (value := getattr(spec, name)) != getattr(usual, name)
        ]
        extra += ["ragged"] * self.ragged
        extra += [self.placement.device] * (self.placement.device != "cpu")
        extra += [f"repeat {self.repeat + 1}"] * bool(self.repeat)
        return " ".join([words, *extra])


@dataclass(frozen=True)
class Contender:
    """One arm of a sitting: an implementation, or its A/A twin.

    Attributes:
        mode: how or which part of it is timed; "default" is the whole layer as it is called.
    """

    impl: str
    twin: bool = False
    mode: str = "default"

    @property
    def name(self) -> str:
        """E.g. "torch_native", "torch_native:gemm"; a twin's ends in "#twin"."""
        return named(self.impl, self.mode) + "#twin" * self.twin

    @property
    def is_part(self) -> bool:
        """True for a part of a layer: it is compared with its own layer only, never an LSTM."""
        return self.mode in PARTS

    @property
    def original(self) -> Contender:
        """The contender that this one is the twin of, else itself."""
        return replace(self, twin=False)


def _digest(value: Mapping[str, Any], digits: int) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:digits]


def cell_id(point: Point, contender: Contender) -> str:
    """16 hexadecimal digits of one contender at one point."""
    what = {"record": "speed", "impl": contender.impl, "twin": contender.twin}
    what["mode"] = contender.mode
    return _digest({**what, **point.identity()}, 16)


def points(profile: Profile, threads: int | None = None) -> list[Point]:
    """Every point of the profile: all of repeat 0, then all of repeat 1, in the file's order.

    `threads` replaces the profile's thread budget, which is looked up on this machine otherwise.

    Raises:
        UsageError: two equal points, a `step` of more than one time step, or a value that
            names nothing.
    """
    if threads is None:
        from harness.machine.identity import thread_count

        threads = thread_count(profile.threads)
    once: dict[Point, int] = {}
    for number, axes in enumerate(profile.grids, 1):
        for values in itertools.product(*axes.values()):
            point = _point(dict(zip(axes, values, strict=True)), threads)
            if point.kind == "step" and point.steps != 1:
                raise UsageError(
                    f"[[grid]] {number}: kind 'step' has steps = {point.steps}, it takes one time "
                    "step: give steps = 1 in a [[grid]] of its own"
                )
            if point in once:
                raise UsageError(
                    f"[[grid]] {number}: point {point.label()!r} is already in [[grid]] "
                    f"{once[point]}: remove one of them"
                )
            once[point] = number
    return [replace(point, repeat=n) for n in range(profile.repeats) for point in once]


def _point(values: Mapping[str, Any], threads: int) -> Point:
    """One point of axis values; what is not given is ModelSpec's and Placement's default."""
    spec = {name: values[name] for name in SPEC_AXES if name in values}
    if "zoneout" in spec:
        spec["zoneout"] = float(spec["zoneout"])
    placement = {name: values[name] for name in PLACEMENT_AXES if name in values}
    return Point(
        kind=values["kind"],
        spec=ModelSpec(**spec),
        placement=Placement(**placement),
        batch=values["batch"],
        steps=values["steps"],
        ragged=values.get("ragged", False),
        threads=threads,
    )


def parse_only(filters: Sequence[str]) -> dict[str, str]:
    """Filters "field=value" or "field=value,value" as a mapping; a field once only.

    Raises:
        UsageError: no "=", an unknown field, the same field twice.
    """
    out: dict[str, str] = {}
    for text in filters:
        key, equals, value = (part.strip() for part in text.partition("="))
        if not equals or not value:
            raise UsageError(f"--only {text!r}: give field=value, e.g. batch=8 or steps=32,128")
        if key not in FILTERS:
            raise UsageError(
                f"--only {text!r}: unknown field {key!r}{nearest(key, FILTERS)} (allowed: "
                f"{', '.join(FILTERS)})"
            )
        if key in out:
            raise UsageError(f"--only: {key!r} is given twice: join the values, {key}=a,b")
        out[key] = value
    return out


def select(candidates: Sequence[Point], only: Mapping[str, Any]) -> list[Point]:
    """The points whose fields have one of the wanted values, in their order.

    Raises:
        UsageError: an unknown field, or a value that no point has.
    """
    chosen = list(candidates)
    for key, given in parse_only([f"{key}={value}" for key, value in only.items()]).items():
        present = {_word(point.fields()[key]): None for point in candidates}
        wanted = [_word(_number(word.strip())) for word in given.split(",")]
        for word in wanted:
            if word not in present:
                raise UsageError(
                    f"--only {key}={word}: no point has it (this profile has: {', '.join(present)})"
                )
        chosen = [point for point in chosen if _word(point.fields()[key]) in wanted]
    return chosen


def _word(value: Any) -> str:
    """A field's value as it is typed: true, 8, 0.1, fo."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _number(word: str) -> float | str:
    """A number where the word is one, so that 0.10 is found as 0.1; other words in lower case."""
    try:
        return int(word)
    except ValueError:
        pass
    try:
        return float(word)
    except ValueError:
        return word.lower()
