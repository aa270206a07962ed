"""The pieces of a QRNN layer around its recurrence: taps, gates, padding, reversal.

Definitions: arXiv 1611.01576v2, section 2. Shapes: T steps, B sequences, C input features, H
hidden units, K kernel width, G gates. "Processing order" is natural time, or for the reverse
direction the sequence's valid steps from last to first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from impls.contract import ModelSpec


class Fused(Mapping[str, Tensor]):
    """Parameters of one layer and direction kept as one matrix, seen gate by gate.

    A core that multiplies all gates at once takes `weight` [K*C, G*H] and `bias` [G*H] without
    a copy; any other reads the canonical names ("z.weight" [K, C, H], "z.bias" [H], ...), which
    are views.
    """

    def __init__(self, spec: ModelSpec, weight: Tensor, bias: Tensor) -> None:
        self.weight, self.bias = weight, bias
        self._spec = spec

    def __getitem__(self, name: str) -> Tensor:
        gate, _, what = name.partition(".")
        if gate not in self._spec.gates or what not in ("weight", "bias"):
            raise KeyError(name)
        at = self._spec.gates.index(gate) * self._spec.hidden_size
        if what == "bias":
            return self.bias[at : at + self._spec.hidden_size]
        columns = self.weight[:, at : at + self._spec.hidden_size]
        return columns.unflatten(0, (self._spec.kernel_width, -1))

    def __iter__(self) -> Iterator[str]:
        return (f"{gate}.{what}" for gate in self._spec.gates for what in ("weight", "bias"))

    def __len__(self) -> int:
        return 2 * len(self._spec.gates)


def fuse(spec: ModelSpec, params: Mapping[str, Tensor]) -> Fused:
    """The parameters of one layer and direction as one matrix; no copy if they are already."""
    if isinstance(params, Fused):
        return params
    weights = [params[f"{gate}.weight"].flatten(0, 1) for gate in spec.gates]
    biases = [params[f"{gate}.bias"] for gate in spec.gates]
    return Fused(spec, torch.cat(weights, dim=1), torch.cat(biases))


def valid_steps(lengths: Tensor, steps: int) -> Tensor:
    """bool [T, B, 1]: True on the steps before each sequence's end."""
    time = torch.arange(steps, device=lengths.device)
    return (time[:, None] < lengths)[..., None]


def reverse_valid(x: Tensor, lengths: Tensor | None) -> Tensor:
    """[T, B, C] with each sequence's valid steps reversed, padding left in place; own inverse."""
    if lengths is None:
        return x.flip(0)
    time = torch.arange(x.shape[0], device=x.device)[:, None]
    source = torch.where(time < lengths, lengths - 1 - time, time)
    return x.gather(0, source[..., None].expand_as(x))


def window_of(x: Tensor, window: Tensor | None) -> Tensor:
    """The inputs that the taps see, [W+T, B, C]: the carried window of W inputs, then x."""
    return x if window is None else torch.cat([window, x])


def unfold(line: Tensor, kernel_width: int, dilation: int = 1) -> Tensor:
    """[T, B, K*C] from `window_of`: for every step its K inputs side by side, oldest first.

    The inputs of one step lie `dilation` steps apart.
    """
    if kernel_width == 1:
        return line
    starts = range(0, kernel_width * dilation, dilation)
    steps = line.shape[0] - starts[-1]
    return torch.cat([line[start : start + steps] for start in starts], dim=2)


def final_window(
    line: Tensor, kernel_width: int, lengths: Tensor | None, dilation: int = 1
) -> Tensor:
    """[(K-1) * dilation, B, C]: the last inputs before each sequence's own end (K > 1)."""
    size = (kernel_width - 1) * dilation
    if lengths is None:
        return line[line.shape[0] - size :]
    source = lengths + torch.arange(size, device=line.device)[:, None]
    return line.gather(0, source[..., None].expand(-1, -1, line.shape[2]))


def pre_activations(
    spec: ModelSpec, params: Mapping[str, Tensor], line: Tensor, dilation: int = 1
) -> Tensor:
    """The masked convolution, [T, B, G*H], one product over all taps and gates.

    With bfloat16 weights the product is rounded once and the bias is added in float32.
    """
    layer = fuse(spec, params)
    taps = unfold(line, spec.kernel_width, dilation)
    rows = taps.flatten(0, 1)
    if layer.weight.dtype == layer.bias.dtype:
        flat = torch.addmm(layer.bias, rows, layer.weight)
    else:
        flat = rows @ layer.weight + layer.bias
    return flat.unflatten(0, taps.shape[:2])


def gate_terms(
    spec: ModelSpec, pre: Tensor, held: Tensor | None, valid: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Activated gates with zoneout and padding applied, for all steps at once.

    Args:
        pre: [T, B, G*H], processing order.
        held: bool [T, B, H], the zoneout mask; None in evaluation.
        valid: bool [T, B, 1], or None where every step is valid.

    Returns:
        f [T, B, H], which keeps the past; the input term, z for f- and fo-pooling (to be
        weighted by 1 - f), i * z for ifo-pooling; and o, or None for f-pooling.
    """
    z, f, *others = pre.chunk(len(spec.gates), dim=-1)
    z, f = torch.tanh(z), torch.sigmoid(f)
    o = torch.sigmoid(others[0]) if others else None
    i = torch.sigmoid(others[1]) if spec.pooling == "ifo" else None
    keeps_state = spec.zoneout_mode == "keep"
    if held is not None:
        f = f.masked_fill(held, 1.0)
        i = i.masked_fill(held, 0.0) if i is not None and keeps_state else i
    elif spec.zoneout_eval == "expectation" and spec.zoneout > 0:
        f = spec.zoneout + (1 - spec.zoneout) * f
        i = (1 - spec.zoneout) * i if i is not None and keeps_state else i
    term = z if i is None else i * z
    if valid is not None:
        f = f.masked_fill(~valid, 1.0)
        term = term if i is None else term.masked_fill(~valid, 0.0)
    return f, term, o


def gated_output(
    cells: Tensor, o: Tensor | None, valid: Tensor | None, dtype: torch.dtype
) -> Tensor:
    """y [T, B, H] in the I/O dtype: o * c, or c for f-pooling; 0 on padded steps."""
    y = (cells if o is None else o * cells).to(dtype)
    return y if valid is None else y.masked_fill(~valid, 0.0)
