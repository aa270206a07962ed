"""torch.nn.LSTM with canonical parameters and states, time-major, weights kept packed."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from impls._torch.arrays import device_of, dtype_of, state_dtype, to_tensor
from impls._torch.stack import Mask, Tensors, places
from impls.contract import Arrays, ModelSpec, Placement

_LEAVES = {"weight": "weight_ih", "recurrent": "weight_hh", "bias": "bias_ih"}


def _suffix(layer: int, direction: str) -> str:
    return f"_l{layer}" + ("_reverse" if direction == "rev" else "")


class LstmNetwork:
    """nn.LSTM as a `Network`: b_ih is the one bias, b_hh is zero and not trained.

    A bfloat16 batch with lengths computes in float32 on a CPU (inputs, weights and outputs stay
    rounded): packed sequences leave oneDNN there, and ATen's own loop keeps c in bfloat16, which
    puts gradients 1.4e-2 from float64 where 6e-3 is allowed.
    """

    def __init__(self, spec: ModelSpec, params: Arrays, placement: Placement, ragged: bool) -> None:
        """`ragged`: the network will get lengths."""
        self._spec = spec
        self.lengths_device = torch.device("cpu")  # where pack_padded_sequence wants them
        device, dtype = device_of(placement), dtype_of(placement)
        if ragged and device.type == "cpu":
            dtype = state_dtype(dtype)
        self._dtype = dtype
        self._lstm = nn.LSTM(
            spec.input_size,
            spec.hidden_size,
            spec.layers,
            bidirectional=spec.bidirectional,
            device=device,
            dtype=dtype,
        )
        weights = dict(self._lstm.named_parameters())
        self.leaves: dict[str, Tensor] = {}
        with torch.no_grad():
            for layer, direction, place in places(spec):
                suffix = _suffix(layer, direction)
                for name, own in _LEAVES.items():
                    # canonical [features, 4, H] against nn.LSTM's [4 * H, features]
                    value = params[f"{place}.{name}"].reshape(-1, 4 * spec.hidden_size)
                    leaf = weights[own + suffix]
                    leaf.copy_(to_tensor(value, dtype, device).T.reshape(leaf.shape))
                    self.leaves[f"{place}.{name}"] = leaf
                weights["bias_hh" + suffix].requires_grad_(False).zero_()
        self._lstm.flatten_parameters()
        # cuDNN would join the weights in every call and only warn of it.
        warnings.filterwarnings("error", message="RNN module weights are not part of single")

    def __call__(
        self, x: Tensor, state: Tensors, lengths: Tensor | None, mask: Mask | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """y and final states; `mask` is ignored, an LSTM has no zoneout here."""
        steps, io = x.shape[0], x.dtype
        # In training mode cuDNN and oneDNN write what a backward pass would read.
        if self._lstm.training != torch.is_grad_enabled():
            self._lstm.training = torch.is_grad_enabled()
        first = tuple(
            torch.stack([state[f"{place}.{name}"] for _, _, place in places(self._spec)]).to(
                self._dtype
            )
            for name in ("h", "c")
        )
        x = x.to(self._dtype)
        if lengths is None:
            y, last = self._lstm(x, first)
        else:
            packed = pack_padded_sequence(x, lengths, enforce_sorted=False)
            packed, last = self._lstm(packed, first)
            y, _ = pad_packed_sequence(packed, total_length=steps)
        finals = {}
        for name, stacked in zip(("h", "c"), last, strict=True):
            rows = stacked.to(state_dtype(io)).unbind(0)
            for (_, _, place), row in zip(places(self._spec), rows, strict=True):
                finals[f"{place}.{name}"] = row
        return y.to(io), finals

    def canonical(self, tensors: Tensors) -> dict[str, Tensor]:
        """Parameters or gradients of nn.LSTM's layout under canonical names and shapes."""
        hidden = self._spec.hidden_size
        return {
            # [4 * H, features] to [features, 4, H], or a bias [4 * H] to [4, H]
            name: value.unflatten(0, (4, hidden)).movedim(-1, 0)
            if value.ndim == 2
            else value.unflatten(0, (4, hidden))
            for name, value in tensors.items()
        }
