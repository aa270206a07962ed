"""All parameters of a network in one flat tensor: one optimiser call, one norm, few leaves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from impls._torch.arrays import device_of, dtype_of, state_dtype, to_tensor
from impls._torch.ops import Fused
from impls._torch.stack import places, within
from impls.contract import Arrays, Placement
from impls.net_params import check, shapes
from impls.nets import NetSpec
from impls.params import Shapes

WIDE = ("bias", "scale", "shift")
"""Last words of the names of parameters that stay float32 at least."""


class FlatParameters:
    """The parameters of one network, as leaves that are views of one master tensor.

    The gates of a QRNN layer are one leaf, side by side in their fused order:
    `layers.0.fwd.weight` [K*C, G*H], `.bias` [G*H] and, of a decoder, `.projection` [D*H, G*H].
    A leaf whose format is narrower than the master's is a rounded copy, made anew by `spread`.
    """

    def __init__(self, net: NetSpec, params: Arrays, placement: Placement) -> None:
        """Raises SpecError where `params` are those of another network."""
        check(net, dict(params))
        self._net, self.device, self.dtype = net, device_of(placement), dtype_of(placement)
        self._shapes = shapes(net)
        self._groups = _groups(net, self._shapes)
        whole = {leaf: _fused_shape(self._shapes, own) for leaf, own in self._groups.items()}
        self._sizes = [math.prod(shape) for shape in whole.values()]
        self._whole = whole
        self.master = self.flatten(params)
        self.leaves = {name: self._leaf(name, part) for name, part in self._split(self.master)}
        self._rounded = [
            (leaf, part)
            for (name, part) in self._split(self.master)
            if (leaf := self.leaves[name]).dtype != part.dtype
        ]
        self.layers: dict[str, Mapping[str, Tensor]] = {}
        for _, _, place in places(net.core):
            own = within(self.leaves, place)
            qrnn = net.core.family == "qrnn"
            self.layers[place] = Fused(net.core, own["weight"], own["bias"]) if qrnn else own

    def flatten(self, arrays: Arrays) -> Tensor:
        """[N] from arrays by canonical name."""
        wide = state_dtype(self.dtype)
        parts = []
        for own in self._groups.values():
            columns = [np.reshape(arrays[name], (-1, self._shapes[name][-1])) for name in own]
            parts.append(np.concatenate(columns, axis=1).ravel())
        return to_tensor(np.concatenate(parts), wide, self.device)

    def canonical(self, flat: Tensor) -> dict[str, Tensor]:
        """The parts of a tensor [N] by canonical name, in canonical order, in their own shapes."""
        out: dict[str, Tensor] = {}
        for leaf, part in self._split(flat):
            own = self._groups[leaf]
            widths = [self._shapes[name][-1] for name in own]
            for name, columns in zip(own, part.split(widths, dim=-1), strict=True):
                out[name] = columns.reshape(self._shapes[name])
        return {name: out[name] for name in self._shapes}

    def gradient(self, loss: Tensor) -> Tensor:
        """[N], the gradient of a scalar by all parameters."""
        found = torch.autograd.grad(loss, list(self.leaves.values()))
        return torch.cat([part.reshape(-1).to(self.master.dtype) for part in found])

    def spread(self) -> None:
        """Round the master into the leaves that are not views of it."""
        with torch.no_grad():
            for leaf, part in self._rounded:
                leaf.copy_(part)

    def _split(self, flat: Tensor) -> list[tuple[str, Tensor]]:
        parts = flat.split(self._sizes)
        pairs = zip(self._whole.items(), parts, strict=True)
        return [(name, part.view(shape)) for (name, shape), part in pairs]

    def _leaf(self, name: str, part: Tensor) -> Tensor:
        wide = name.rpartition(".")[2] in WIDE
        return (part if wide else part.to(self.dtype)).requires_grad_()


def _groups(net: NetSpec, all_shapes: Shapes) -> dict[str, list[str]]:
    """Canonical names by the leaf that holds them."""
    out: dict[str, list[str]] = {}
    for name in all_shapes:
        place, _, rest = name.partition(".fwd.") if ".fwd." in name else name.partition(".rev.")
        gate, _, what = rest.partition(".")
        fused = net.core.family == "qrnn" and gate in net.core.gates and bool(what)
        leaf = f"{name[: len(place) + 4]}.{what}" if fused else name
        out.setdefault(leaf, []).append(name)
    return out


def _fused_shape(all_shapes: Shapes, names: Sequence[str]) -> tuple[int, ...]:
    """Of parameters side by side along their last axis, the axes before it made one."""
    first = all_shapes[names[0]]
    if len(names) == 1:
        return first
    width = sum(all_shapes[name][-1] for name in names)
    return (width,) if len(first) == 1 else (math.prod(first[:-1]), width)
