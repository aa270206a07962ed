"""A network that owns its parameters as tensors, for every kind of run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from impls._torch.arrays import device_of, dtype_of, state_dtype, to_tensor
from impls._torch.ops import Fused
from impls._torch.stack import Core, Mask, Tensors, places, stack, within
from impls.contract import Arrays, ModelSpec, Placement


class Network(Protocol):
    """A differentiable network that owns its parameters."""

    leaves: dict[str, Tensor]
    """Trained parameters in the network's own layout."""
    lengths_device: torch.device
    """Where the network wants the sequences' lengths."""

    def __call__(
        self, x: Tensor, state: Tensors, lengths: Tensor | None, mask: Mask | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """y [T, B, D*H] and the final states by full name."""

    def canonical(self, tensors: Tensors) -> dict[str, Tensor]:
        """Parameters or gradients in the layout of `leaves`, by canonical name and shape."""


JOINED = ("qrnn", "conv")
"""Families whose gates are kept as one matrix per layer and direction."""
WIDE = ("bias", "scale", "shift")
"""Ends of the names of parameters that are float32 at least."""


class CoreNetwork:
    """A stack of one core."""

    def __init__(self, core: Core, spec: ModelSpec, params: Arrays, placement: Placement) -> None:
        self._core, self._spec = core, spec
        self.lengths_device = device_of(placement)
        dtype = dtype_of(placement)
        self.leaves: dict[str, Tensor] = {}
        for _, _, place in places(spec):
            for name, value in self._layout(params, place).items():
                kept = state_dtype(dtype) if name.endswith(WIDE) else dtype
                leaf = to_tensor(value, kept, self.lengths_device).requires_grad_()
                self.leaves[f"{place}.{name}"] = leaf
        self._layers = self._by_layer(self.leaves)

    def _layout(self, params: Arrays, place: str) -> Arrays:
        if self._spec.family not in JOINED:
            start = f"{place}."
            return {n[len(start) :]: v for n, v in params.items() if n.startswith(start)}
        weights = [params[f"{place}.{gate}.weight"] for gate in self._spec.gates]
        matrices = [weight.reshape(-1, self._spec.hidden_size) for weight in weights]
        biases = [params[f"{place}.{gate}.bias"] for gate in self._spec.gates]
        return {"weight": np.concatenate(matrices, axis=1), "bias": np.concatenate(biases)}

    def _by_layer(self, tensors: Tensors) -> dict[str, Mapping[str, Tensor]]:
        layers: dict[str, Mapping[str, Tensor]] = {}
        for _, _, place in places(self._spec):
            own = within(tensors, place)
            joined = self._spec.family in JOINED
            layers[place] = Fused(self._spec, own["weight"], own["bias"]) if joined else own
        return layers

    def __call__(
        self, x: Tensor, state: Tensors, lengths: Tensor | None, mask: Mask | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        return stack(self._core, self._spec, self._layers, x, state, lengths, mask)

    def canonical(self, tensors: Tensors) -> dict[str, Tensor]:
        layers = self._by_layer(tensors)
        return {f"{at}.{name}": own[name] for at, own in layers.items() for name in own}
