"""Which cuDNN algorithm torch.nn.LSTM gets on CUDA: its own rules, from sizes alone.

Source: `get_algo` and the heuristics before it in PyTorch's aten/src/ATen/native/cudnn/RNN.cpp, for
devices of compute capability 8.0, 8.9 and above (8.6 never gets PERSIST_STATIC).
"""

from __future__ import annotations

from impls.contract import ModelSpec, Placement

STANDARD, PERSIST, SMALL = "STANDARD", "PERSIST_STATIC", "PERSIST_STATIC_SMALL_H"
SMALL_FORWARD, SMALL_BACKWARD = 192, 128
"""Most hidden units of the algorithm for few of them, in either pass."""


def choose(
    hidden_size: int, input_size: int, layers: int, directions: int, batch: int, dtype: str,
    packed: bool, forward: bool,
) -> str:  # fmt: skip
    """cuDNN's algorithm for one pass.

    Args:
        dtype: "float16" too, which this project does not time.
        packed: the sequences have lengths of their own.
        forward: False for the backward pass.
    """
    if packed or dtype == "float64":
        return STANDARD
    if hidden_size <= (SMALL_FORWARD if forward else SMALL_BACKWARD):
        return SMALL
    shape = layers == 1 and directions == 1 and hidden_size <= 1024
    whole = hidden_size % 128 == 0 and input_size % 128 == 0 and batch % 8 == 0
    if dtype == "float16" and shape and whole and batch <= 128:
        return PERSIST
    return STANDARD


def of(spec: ModelSpec, placement: Placement, kind: str, batch: int, packed: bool) -> str | None:
    """The words of a row, e.g. "cuDNN STANDARD"; both passes where they differ; None on a CPU."""
    if placement.device != "cuda":
        return None
    sizes = (spec.hidden_size, spec.input_size, spec.layers, len(spec.directions), batch)
    names = [choose(*sizes, placement.dtype, packed, forward) for forward in (True, False)]
    if kind in ("forward", "step") or names[0] == names[1]:
        return f"cuDNN {names[0]}"
    return f"cuDNN {names[0]}, backward {names[1]}"
