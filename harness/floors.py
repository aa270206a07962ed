"""The least time a piece of work can take on a machine: analytic FLOPs and bytes over ceilings.

Formulas: README.md here, "Floors", with M = B*T positions, C inputs, H hidden units, K taps, G
gates (f 2, fo 3, ifo 4, a gated convolution 2), e bytes per element. Timing tools'
own FLOP counters are of no use here: they report 0 for nn.LSTM and ignore a scan's length.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from impls import params
from impls.contract import KINDS, ModelSpec

ITEM_BYTES = {"float32": 4, "float64": 8, "bfloat16": 2}
MASTER_BYTES = 4
"""A train_step keeps its parameters in float32 at least."""
LSTM_TRANSCENDENTALS = 5
"""Per unit and step: the gates i f g o, and tanh of the cell."""

Stage = tuple[str, int, int]


@dataclass(frozen=True)
class Cost:
    """What one call of a piece of work must do, whoever does it.

    Attributes:
        flops: of the matrix products, 2 per multiply-add; element-wise work is not counted.
        bytes: that must cross the memory bus if gates and states never leave the chip.
        transcendentals: activations, each one exponential.
        calls: calls of the framework, one for each layer and direction, twice that in training.
        staged: (name, flops, bytes) of separate kernels that hand their results over in memory.
        serial_steps: dependent steps, one after the other (an LSTM's; 0 for every other).
    """

    flops: int
    bytes: int
    transcendentals: int
    calls: int
    staged: tuple[Stage, ...]
    serial_steps: int = 0


@dataclass(frozen=True)
class Ceilings:
    """What a machine reaches at best, in the thread budget of the run.

    Attributes:
        gemm_flops: FLOP/s of a square matrix product by dtype.
        copy_bytes: bytes/s of a copy beyond the caches, read + written.
        dispatch_s: seconds of the framework's smallest call.
        exp_rate: exponentials/s in float32.
        step_s: seconds of one dependent step of an LSTM, at its smallest.
        source: where the numbers come from, e.g. "torch 2.13.0, thread budget 2, cpu" or "nominal".
    """

    gemm_flops: dict[str, float]
    copy_bytes: float
    dispatch_s: float
    exp_rate: float
    step_s: float
    source: str

    @classmethod
    def nominal(cls, device: str = "cpu") -> Ceilings:
        """One slow desktop core or a data-centre GPU, to plan with before anything was measured."""
        if device == "cuda":
            return cls(
                gemm_flops={"float32": 3e13, "float64": 3e13, "bfloat16": 4e14},
                copy_bytes=2.5e12,
                dispatch_s=5e-6,
                exp_rate=2e12,
                step_s=1e-6,
                source="nominal",
            )
        return cls(
            gemm_flops={"float32": 5e10, "float64": 2.5e10, "bfloat16": 5e10},
            copy_bytes=1e10,
            dispatch_s=5e-6,
            exp_rate=2e8,
            step_s=5e-6,
            source="nominal",
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for the manifest of a run folder."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Ceilings:
        """The inverse of `to_dict`; further keys are ignored.

        Raises:
            ValueError: a key is missing.
        """
        names = tuple(cls.__dataclass_fields__)
        missing = [name for name in names if name not in data]
        if missing:
            raise ValueError(f"ceilings lack {', '.join(missing)}: measure them again")
        kept = {name: data[name] for name in names}
        return cls(**{**kept, "gemm_flops": dict(data["gemm_flops"])})


def cost(spec: ModelSpec, kind: str, batch: int, steps: int, dtype: str) -> Cost | None:
    """Cost of one call, or None where no formula is known for the family.

    Bytes: x + weights + y, and in training also x + dy + grad.x +
    2 weights. They count the network's own x and y: what flows between layers may stay in the
    cache. A `train_step` asks for no gradient of x, so the product and the bytes of the first
    layer's grad.x are left out; its target stands for dy, its weights count as float32 at least.
    A `step` is one time step whatever `steps` says.

    Raises:
        ValueError: an unknown kind or dtype.
    """
    if kind not in KINDS:
        raise ValueError(f"kind = {kind!r}: allowed are {', '.join(KINDS)}")
    if dtype not in ITEM_BYTES:
        raise ValueError(f"dtype = {dtype!r}: allowed are {', '.join(ITEM_BYTES)}")
    if spec.family not in _STAGES:
        return None
    steps = 1 if kind == "step" else steps
    item, positions = ITEM_BYTES[dtype], batch * steps
    staged = [
        (f"layers.{layer}.{direction}.{name}", flops, elements * item)
        for layer in range(spec.layers)
        for direction in spec.directions
        for name, flops, elements in _STAGES[spec.family](spec, kind, layer, positions, steps)
    ]
    training = kind in ("backward", "train_step")
    outputs, weights = positions * spec.output_size, params.count(spec)
    if kind == "train_step":
        kept = max(item, MASTER_BYTES)
        staged += [("loss", 0, 3 * outputs * item), ("sgd", 0, 3 * weights * kept)]
    return Cost(
        flops=sum(flops for _, flops, _ in staged),
        bytes=_fused_bytes(kind, positions * spec.input_size, outputs, weights, item),
        transcendentals=_transcendentals(spec, positions, steps),
        calls=spec.layers * len(spec.directions) * (2 if training else 1),
        staged=tuple(staged),
        serial_steps=_serial_steps(spec, steps) * (2 if training else 1),
    )


def pooling_bytes(spec: ModelSpec, kind: str, positions: int, dtype: str) -> int:
    """Bytes that the pooling of one layer must move, gate sums from and to memory.

    Forward: gate sums in, y out. Backward: that, then gate sums and dy in, their gradients out.
    `positions` are steps times sequences.
    """
    stages = _qrnn_stages(spec, kind, 0, positions, 1)
    return sum(size for name, _, size in stages if name.startswith("pool")) * ITEM_BYTES[dtype]


def floor_s(cost: Cost, ceilings: Ceilings, dtype: str) -> float:
    """Seconds below which no implementation can go, if the data come from memory.

    The largest of FLOP / matrix rate, bytes / bandwidth, exponentials / their rate, calls times
    the smallest call, and dependent steps times one step. Weights that stay in the cache from
    call to call can beat the bandwidth term.

    Raises:
        ValueError: the ceilings do not know the dtype.
    """
    return max(
        cost.flops / _gemm_rate(ceilings, dtype),
        cost.bytes / ceilings.copy_bytes,
        cost.transcendentals / ceilings.exp_rate,
        cost.calls * ceilings.dispatch_s,
        cost.serial_steps * ceilings.step_s,
    )


def staged_floor_s(cost: Cost, ceilings: Ceilings, dtype: str) -> float:
    """Seconds that separate kernels need at least ("no-fusion floor"); never below `floor_s`.

    Raises:
        ValueError: the ceilings do not know the dtype.
    """
    rate = _gemm_rate(ceilings, dtype)
    stages = sum(max(flops / rate, moved / ceilings.copy_bytes) for _, flops, moved in cost.staged)
    return max(stages, floor_s(cost, ceilings, dtype))


def _gemm_rate(ceilings: Ceilings, dtype: str) -> float:
    if dtype not in ceilings.gemm_flops:
        known = ", ".join(ceilings.gemm_flops) or "none"
        raise ValueError(f"no matrix rate for {dtype!r} (known: {known}): measure the ceilings")
    return ceilings.gemm_flops[dtype]


def _qrnn_stages(spec: ModelSpec, kind: str, layer: int, positions: int, steps: int) -> list[Stage]:
    """Stages of one direction of one layer, bytes in elements.

    A gated convolution has the same: its gates are joined where a QRNN's are pooled.
    """
    inputs, hidden, gates = spec.layer_input_size(layer), spec.hidden_size, len(spec.gates)
    weights = spec.kernel_width * inputs * gates * hidden
    flops = 2 * positions * weights
    conv = positions * inputs + weights + positions * gates * hidden
    stages = [("conv", flops, conv), ("pool", 0, (gates + 1) * positions * hidden)]
    if kind in ("backward", "train_step"):
        stages.append(("pool_backward", 0, (2 * gates + 1) * positions * hidden))
        stages.append(("grad_weight", flops, conv))
        if kind == "backward" or layer > 0:
            stages.append(("grad_x", flops, conv))
    return stages


def _lstm_stages(spec: ModelSpec, kind: str, layer: int, positions: int, steps: int) -> list[Stage]:
    """Stages of one direction of one layer, bytes in elements; the weights are read once."""
    inputs, hidden = spec.layer_input_size(layer), spec.hidden_size
    gates, own = 4 * positions * hidden, 4 * hidden * hidden
    input_flops, own_flops = 2 * positions * inputs * 4 * hidden, 2 * positions * own
    conv = positions * inputs + 4 * inputs * hidden + gates
    states = positions * hidden
    stages = [("input", input_flops, conv)]
    if kind in ("forward", "step"):
        return [*stages, ("recurrence", own_flops, gates + own + states)]
    stages += [
        ("recurrence", own_flops, gates + own + states + 5 * states),
        ("recurrence_backward", own_flops, states + 5 * states + gates + own),
        ("grad_weight", input_flops, conv),
        ("grad_recurrent", own_flops, gates + states + own),
    ]
    if kind == "backward" or layer > 0:
        stages.append(("grad_x", input_flops, conv))
    return stages


def _pairs(positions: int, steps: int) -> int:
    """(step, earlier or same step) pairs of a causal layer: M (T + 1) / 2."""
    return positions * (steps + 1) // 2


def _attention_stages(
    spec: ModelSpec, kind: str, layer: int, positions: int, steps: int
) -> list[Stage]:
    """Stages of one Transformer layer, bytes in elements; norms and positions move with products.

    A pair of steps costs 2 H multiply-adds forward (score, weighted value) and 4 H backward; the
    weights of the pairs never meet the memory.
    """
    inputs, hidden = spec.layer_input_size(layer), spec.hidden_size
    wide, training = params.INNER * hidden, kind in ("backward", "train_step")
    own = [("qkv", hidden, 3 * hidden), ("out", hidden, hidden)]
    own += [("up", hidden, wide), ("down", wide, hidden)]
    products = [("input", inputs, hidden)] * (inputs != hidden) + own
    stages = []
    for name, entering, leaving in products:
        size = 2 * positions * entering * leaving
        moved = positions * entering + entering * leaving + positions * leaving
        stages.append((name, size, moved))
        if training:
            stages.append((f"{name}_grad_weight", size, moved))
        # The norm before a product needs its gradient even where nobody asks for that of x.
        if kind == "backward" or (training and (layer > 0 or name != "input")):
            stages.append((f"{name}_grad_x", size, moved))
    pairs, states = _pairs(positions, steps), positions * hidden
    stages.append(("attend", 4 * pairs * hidden, 4 * states))
    if training:
        stages.append(("attend_backward", 8 * pairs * hidden, 8 * states))
    return stages


_STAGES = {
    "qrnn": _qrnn_stages,
    "conv": _qrnn_stages,
    "lstm": _lstm_stages,
    "attention": _attention_stages,
}


def _transcendentals(spec: ModelSpec, positions: int, steps: int) -> int:
    """Activations of the forward pass, which the backward pass can use again."""
    if spec.family == "attention":
        inner = params.INNER * spec.hidden_size * positions
        return spec.layers * (inner + spec.heads * _pairs(positions, steps))
    each = LSTM_TRANSCENDENTALS if spec.family == "lstm" else len(spec.gates)
    return positions * spec.layers * spec.output_size * each


def _fused_bytes(kind: str, inputs: int, outputs: int, weights: int, item: int) -> int:
    """Bytes that must move; the first three sizes in elements."""
    if kind in ("forward", "step"):
        return (inputs + weights + outputs) * item
    if kind == "backward":
        return (3 * inputs + 2 * outputs + 3 * weights) * item
    return (2 * inputs + 2 * outputs) * item + 3 * weights * max(item, MASTER_BYTES)


def _serial_steps(spec: ModelSpec, steps: int) -> int:
    """Dependent steps of one pass: layers overlap like a wave front unless they need both ends."""
    if spec.family != "lstm":
        return 0
    return spec.layers * steps if spec.bidirectional else steps + spec.layers - 1
