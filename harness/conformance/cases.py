"""The specs and shapes on which implementations are checked: quick, covering, full product."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import product

from impls.contract import ModelSpec
from impls.params import stream_hindrance

BASIC = ("values_equal_oracle", "states_equal_oracle", "gradients_equal_oracle")
ZONEOUT = (
    "zoneout_mask_equals_oracle",
    "zoneout_evaluation_is_deterministic",
    "zoneout_evaluation_follows_its_policy",
    "zoneout_evaluation_has_gradients",
    "zoneout_keeps_state",
    "zoneout_mask_follows_its_row",
)
GATES = ("output_gate_scales_the_output", "state_is_not_gated", "forget_gate_keeps_the_past")
SEQUENCE = (
    "stream_equals_sequence",
    "steps_equal_sequence",
    "causality",
    "batch_independence",
    "repeatability",
)
LONG = ("long_sequences_stay_accurate", "long_stream_equals_sequence")
TRAIN = ("train_step_equals_oracle",)
PADDED = ("padded_equals_per_sequence", "padded_gradients_equal_per_sequence")
DIRECTIONS = ("reverse_is_flipped_back", "directions_have_their_own_weights")
KNOWS = {
    "qrnn": ("pooling", "kernel_width", "zoneout", "zoneout_mode", "zoneout_eval"),
    "lstm": (),
    "conv": ("kernel_width", "dilated"),
    "attention": ("heads",),
}
"""Fields beside the sizes, `dense` and `bidirectional` that a family reads."""
CASE_HEADS, CASE_WIDER = 2, 4
"""Heads of the attention cases, and how many times as wide as other families' they are.

A normalisation over 8 features divides by what is now and then nearly zero: of 75 random layers,
most of them 8 wide, some had gradients 4e-6 off in plain float32, of 120 with 28 or 32 features none beyond
1e-6.
"""


@dataclass(frozen=True)
class Case:
    """A spec, a shape and the checks to make there.

    Attributes:
        name: readable and unique within a set; it also seeds the data.
        spec: what is computed.
        checks: names of checks; those that do not suit the spec or dtype are left out.
        batch, steps: B and T.
        ragged: the sequences have different lengths, and NaN after their ends.
        carried: the run starts from a random state in the middle of a stream.
        training: the runs have a zoneout seed.
    """

    name: str
    spec: ModelSpec
    checks: tuple[str, ...]
    batch: int = 3
    steps: int = 9
    ragged: bool = False
    carried: bool = False
    training: bool = False

    def label(self) -> str:
        """The case in short words, e.g. "fo K=2 L=1 C=5 H=7 B=3 T=9 ragged"."""
        spec = self.spec
        knows = KNOWS.get(spec.family, KNOWS["qrnn"])
        words = [spec.pooling] if "pooling" in knows else [spec.family]
        words += [f"K={spec.kernel_width}"] if "kernel_width" in knows else []
        words += ["dilated"] * spec.dilated
        words += [f"heads={spec.heads}"] if "heads" in knows else []
        words += [f"L={spec.layers}", f"C={spec.input_size}", f"H={spec.hidden_size}"]
        words += [f"B={self.batch}", f"T={self.steps}"]
        words += ["dense"] if spec.dense else []
        words += ["bidirectional"] if spec.bidirectional else []
        if spec.zoneout:
            words.append(f"zoneout={spec.zoneout:g} {spec.zoneout_mode} {spec.zoneout_eval}")
        flags = ("ragged", "carried", "training")
        return " ".join(words + [flag for flag in flags if getattr(self, flag)])


def _case(name: str, checks: tuple[str, ...], **values: object) -> Case:
    own = {key: values.pop(key) for key in tuple(values) if key in Case.__dataclass_fields__}
    sizes: dict[str, object] = {"input_size": 5, "hidden_size": 7}
    return Case(name, ModelSpec(**(sizes | values)), checks, **own)  # type: ignore[arg-type]


def quick_set() -> tuple[Case, ...]:
    """A few cases, seconds per implementation: the equivalence rows of every benchmark run."""
    brief = ("stream_equals_sequence", "causality", "repeatability", "finite_differences")
    stack = {"pooling": "ifo", "kernel_width": 3, "layers": 2, "ragged": True, "carried": True}
    return (
        _case("plain", (*BASIC, *brief)),
        _case("stack", BASIC[2:], **stack),
        _case("padded", PADDED[:1], batch=2, pooling="f"),
        _case("held", ZONEOUT[:1], pooling="ifo", zoneout=0.4, training=True),
        _case("long", LONG[:1], input_size=4, hidden_size=8, batch=2, steps=4096),
    )


def covering_set() -> tuple[Case, ...]:
    """Every check, and every pair of spec values that interact, on small shapes.

    The specs vary pooling, K, layers, dense connections, directions, zoneout mode and policy; the
    runs vary lengths, initial state and training.
    """
    return (*_specs(), *_properties(), *_edges())


def _specs() -> Iterator[Case]:
    gradients = BASIC[2:]
    held = {"zoneout": 0.4, "training": True}
    yield _case("f-1", BASIC, pooling="f", kernel_width=1, carried=True)
    yield _case("f-2-both", BASIC, pooling="f", layers=2, bidirectional=True, ragged=True)
    yield _case("f-3-dense", gradients, pooling="f", kernel_width=3, layers=2, dense=True)
    yield _case("fo-3-ragged", BASIC, kernel_width=3, layers=2, ragged=True, carried=True)
    both = {"bidirectional": True, "carried": True}
    yield _case("fo-2-dense-both", gradients, layers=2, dense=True, **both)
    yield _case("ifo-1-both", BASIC[:2], pooling="ifo", kernel_width=1, bidirectional=True, **held)
    ifo = {"pooling": "ifo", "kernel_width": 3}
    yield _case("ifo-3-both", BASIC, ragged=True, zoneout_mode="literal", **ifo, **both, **held)
    expected = {"zoneout_eval": "expectation", **held}
    yield _case("keep-ifo", ZONEOUT, pooling="ifo", carried=True, **expected)
    stack = {"layers": 2, "dense": True, "ragged": True, "carried": True}
    yield _case("keep-fo", ZONEOUT[:3:2], kernel_width=1, **stack, **held)
    literal = {"pooling": "ifo", "zoneout_mode": "literal"}
    yield _case("literal-ifo", (ZONEOUT[0], ZONEOUT[3]), **literal, **expected)


def _properties() -> Iterator[Case]:
    once = ("dtype_is_honest", "any_layout_is_read_rightly", "gradient_repeatability")
    yield _case("fo-2", (*BASIC, *SEQUENCE, *once, *GATES[:2], "finite_differences"), carried=True)
    held = {"zoneout": 0.4, "training": True}
    ifo = {"pooling": "ifo", "kernel_width": 3}
    yield _case("ifo-3", ("taps_are_in_order", GATES[2], "causality"), carried=True, **ifo)
    yield _case("ifo-3-held", SEQUENCE[:1], carried=True, **ifo, **held)
    yield _case("two-layers", (*SEQUENCE[:1], *TRAIN), layers=2)
    yield _case("padded", PADDED, batch=2, kernel_width=3, carried=True)
    yield _case("both", (*DIRECTIONS, *TRAIN), bidirectional=True, ragged=True)
    yield _case("long", LONG, input_size=4, hidden_size=8, batch=2, steps=4096)


def _edges() -> Iterator[Case]:
    edge = ("edge_shapes_equal_oracle",)
    yield _case("one-step", edge, steps=1, kernel_width=3, carried=True)
    yield _case("one-sequence", edge, batch=1, steps=5, bidirectional=True)
    yield _case("one-of-everything", edge, batch=1, steps=1, kernel_width=1)
    yield _case("one-feature", BASIC[:2], input_size=1, hidden_size=1)
    yield _case("wider-than-long", edge, pooling="ifo", kernel_width=6, steps=4, ragged=True)
    yield _case("odd-sizes", edge, input_size=17, hidden_size=45, steps=5)


def full_product() -> Iterator[Case]:
    """Every combination of the spec's fields, with and without lengths and an initial state."""
    stacks = ({"layers": 1}, {"layers": 2}, {"layers": 2, "dense": True})
    holds: tuple[dict[str, object], ...] = (
        {},
        {"zoneout": 0.4, "zoneout_mode": "keep", "training": True},
        {"zoneout": 0.4, "zoneout_mode": "literal", "training": True},
        {"zoneout": 0.4, "zoneout_mode": "keep", "zoneout_eval": "expectation"},
        {"zoneout": 0.4, "zoneout_mode": "literal", "zoneout_eval": "expectation"},
    )
    axes = (("f", "fo", "ifo"), (1, 2, 3, 6), stacks, (False, True), holds, (False, True))
    for number, (pooling, width, stack, both, hold, ragged) in enumerate(product(*axes)):
        yield _case(
            f"product-{number}",
            BASIC,
            pooling=pooling,
            kernel_width=width,
            bidirectional=both,
            ragged=ragged,
            carried=ragged,
            **stack,
            **hold,
        )


def for_family(cases: Iterable[Case], family: str) -> list[Case]:
    """The cases as another family sees them.

    An LSTM knows no pooling, kernel width or zoneout; cases that differ in these alone become one
    with the checks of all. A convolution is dilated where it has several layers, attention has two
    heads and is four times as wide; neither sees zoneout. A family that `impls.params` does not
    know starts from zero states only: nobody but itself can say which others there are.
    """
    merged: dict[object, Case] = {}
    for case in cases:
        case = _seen_by(family, case)
        key = replace(case, name="", checks=())
        if key in merged:
            checks = dict.fromkeys((*merged[key].checks, *case.checks))
            case = replace(merged[key], checks=tuple(checks))
        merged[key] = case
    return list(merged.values())


def _seen_by(family: str, case: Case) -> Case:
    if family not in KNOWS:
        return replace(case, spec=replace(case.spec, family=family), carried=False)
    if family == "qrnn":
        return replace(case, spec=replace(case.spec, family=family))
    plain = ModelSpec()
    ignored = {name: getattr(plain, name) for name in KNOWS["qrnn"] if name not in KNOWS[family]}
    spec = replace(case.spec, family=family, **ignored)
    if family == "conv":
        spec = replace(spec, dilated=spec.layers > 1)
    if family == "attention":
        spec = replace(spec, hidden_size=CASE_WIDER * spec.hidden_size, heads=CASE_HEADS)
    carried = case.carried and stream_hindrance(spec) is None
    return replace(case, spec=spec, training=False, carried=carried)
