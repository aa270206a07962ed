"""torch_cupy's operator for tests: its arguments, on any device, and its code on the CPU."""

from functools import cache


@cache
def offered_on_cpu():
    """Registers the CUDA kernels' host code for the CPU too, for the rest of the process."""
    import torch

    from impls.torch_cupy import library

    cpu = torch.library.Library(library.NAMESPACE, "FRAGMENT")
    cpu.impl("pool", library.pool, "CPU")
    cpu.impl("pool_backward", library.pool_backward, "CPU")
    return cpu


def arguments(pooling="fo", dtype="float32", steps=6, batch=2, hidden=4, device="cpu", **changes):
    """Arguments of the operator, which exists afterwards; all tensors are recorded."""
    import torch

    from impls.torch_cupy import library

    assert library.NAMESPACE == "quasibench_cuda"
    torch.manual_seed(1)
    gates = {"f": 2, "fo": 3, "ifo": 4}.get(pooling, 3)
    pre = torch.randn(steps, batch, gates * hidden, device=device, dtype=getattr(torch, dtype))
    bias = torch.randn(gates * hidden, device=device)
    c0 = torch.randn(batch, hidden, device=device)
    words = {
        "lengths": None,
        "seed": None,
        "rows": None,
        "t0": None,
        "pooling": pooling,
        "zone": "none",
        "keeps_state": True,
        "zoneout": 0.0,
        "layer": 0,
        "reverse": False,
        "decoder": False,
    }
    tensors = {"pre": pre.requires_grad_(), "bias": bias.requires_grad_(),
               "c0": c0.requires_grad_()}  # fmt: skip
    return tuple((tensors | words | changes).values())


def pool(*args):
    """y, the final c and the checkpoints."""
    import torch

    return torch.ops.quasibench_cuda.pool(*args)
