"""Between NumPy arrays and tensors: devices, dtypes, transfers, all outside the clock."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from impls.contract import Placement

DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "bfloat16": torch.bfloat16,
}


def device_of(placement: Placement) -> torch.device:
    """The torch device of a placement; on CUDA, products are set to sum in full float32.

    float32 factors are multiplied as such (IEEE, no TF32), and sums of bfloat16 products that are
    split over blocks are not joined in bfloat16. Only torch's newer setting is used: it refuses to
    be mixed with `allow_tf32`.

    Raises:
        RuntimeError: CUDA was asked for and this torch sees no CUDA device.
    """
    if placement.device == "cuda":
        if not torch.cuda.is_available():
            raise RuntimeError(
                f"device 'cuda' was asked for, but torch {torch.__version__} sees no CUDA device: "
                "install a CUDA build of torch on a machine with a GPU, or use device 'cpu'"
            )
        torch.backends.cuda.matmul.fp32_precision = "ieee"
        torch.backends.cudnn.rnn.fp32_precision = "ieee"
        torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    return torch.device(placement.device)


def precision_of(placement: Placement) -> str | None:
    """How torch multiplies float32 on CUDA now, read back from it; None elsewhere."""
    if placement.device != "cuda" or placement.dtype != "float32":
        return None
    backends = torch.backends
    found = {backends.cuda.matmul.fp32_precision, backends.cudnn.rnn.fp32_precision}
    return "+".join(sorted(found))


def dtype_of(placement: Placement) -> torch.dtype:
    """Number format of inputs, weights and outputs."""
    return DTYPES[placement.dtype]


def state_dtype(dtype: torch.dtype) -> torch.dtype:
    """Number format of the recurrent state and of biases: float32, or float64 for float64."""
    return torch.promote_types(dtype, torch.float32)


def to_tensor(array: np.ndarray, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A copy of the array on the device, whatever its strides."""
    # A dense copy first: torch takes no negative strides, and the caller may change its array.
    return torch.from_numpy(np.array(array, order="C")).to(device, dtype)


def to_numpy(tensor: Tensor) -> np.ndarray:
    """float32 or float64 array; bfloat16 is widened."""
    array: np.ndarray = tensor.detach().to("cpu", state_dtype(tensor.dtype)).numpy()
    return array


def synchronize(device: torch.device) -> None:
    """Return when everything enqueued on the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
