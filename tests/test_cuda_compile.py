"""The CUDA kernels through NVRTC without a device, and the choice of their geometry."""

from itertools import product

import pytest

from impls.contract import POOLINGS
from impls.kernels import cuda

nvrtc = pytest.mark.skipif(cuda.nvrtc_library() is None, reason="nvidia-cuda-nvrtc not installed")


def chosen(
    which=cuda.FORWARD, dtype="float32", batch=32, steps=512, hidden=320, pairs=True, **more
):
    words = {"pooling": "fo", "zone": "none", "keeps_state": True, "multiprocessors": 132} | more
    return cuda.choose(which, dtype, batch=batch, steps=steps, hidden=hidden, pairs=pairs, **words)


def test_few_channels_get_narrower_blocks_and_every_block_fits_a_multiprocessor():
    for batch, steps, hidden, dtype, pairs, pooling in product(
        [1, 8, 32, 256],
        [1, 32, 105, 512, 8192],
        [1, 320, 1024],
        ("float32", "bfloat16"),
        [False, True],
        POOLINGS,
    ):
        sizes = {"dtype": dtype, "batch": batch, "steps": steps, "hidden": hidden}
        forward, backward, other = (
            chosen(which, **sizes, pairs=may, pooling=pooling)
            for which, may in (
                (cuda.FORWARD, pairs),
                (cuda.BACKWARD, pairs),
                (cuda.BACKWARD, False),
            )
        )
        assert forward.tile == backward.tile == other.tile
        assert max(forward.threads, backward.threads) <= 512
        assert max(forward.shared_bytes, backward.shared_bytes) <= 48 * 1024
        assert forward.blocks(batch, hidden) * forward.lanes * forward.packed >= batch * hidden
    assert chosen(batch=256).lanes == 32
    assert chosen(batch=8).lanes < 32
    assert chosen(dtype="bfloat16", batch=256).packed == 2


def every_kernel():
    """All poolings, dtypes, zones and packings, each in the geometry for much work."""
    for dtype, packed in (("float32", 1), ("bfloat16", 1), ("bfloat16", 2)):
        for pooling, zone in product(POOLINGS, cuda.ZONES):
            for keeps in (True, False) if pooling == "ifo" and zone != "none" else (True,):
                kind = (dtype, pooling, zone, keeps, packed, 32)
                yield cuda.Kernel(cuda.FORWARD, *kind, 4, 8)
                yield cuda.Kernel(cuda.BACKWARD, *kind, *((4, 8) if packed == 1 else (8, 4)))


def wide_kernels():
    """The geometries for little work, without zoneout and with it."""
    for which, pooling, zone in product((cuda.FORWARD, cuda.BACKWARD), POOLINGS, ("none", "hold")):
        for geometry in ((32, 8, 8), (8, 32, 8)):
            yield cuda.Kernel(which, "float32", pooling, zone, True, 1, *geometry)


def most_registers(kernel):
    """What lets 20 warps run on a multiprocessor; 16 where a block, a mask or ifo needs more."""
    small, hold = kernel.threads < 256, kernel.zone == "hold"
    if kernel.which == cuda.BACKWARD:
        return 168 if kernel.zone == "expect" else 96 if small else 128
    if kernel.packed == 2:
        return 128 if hold or kernel.pooling == "ifo" else 96
    return 64 if small and not hold else 80


@nvrtc
@pytest.mark.parametrize("kernels", [every_kernel, wide_kernels])
@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
def test_nvrtc_compiles_every_kernel_without_spills_within_its_registers(architecture, kernels):
    made = {kernel.expression: kernel for kernel in kernels()}
    built = cuda.compile_kernels(list(made), architecture)
    assert built.cubin[:4] == b"\x7fELF"
    assert set(built.registers) == set(made)
    assert {name: n for name, n in built.spilled.items() if n} == {}
    over = {n: used for n, used in built.registers.items() if used > most_registers(made[n])}
    assert over == {}


@nvrtc
def test_nvrtc_names_the_error_and_the_architecture():
    with pytest.raises(cuda.NvrtcError, match=r"(?s)for sm_90:.*undefined_thing"):
        cuda.compile_kernels([], "sm_90", "__global__ void k() { undefined_thing(); }")
