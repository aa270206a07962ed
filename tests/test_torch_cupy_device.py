"""torch_cupy on a CUDA device: values, masks, streams, graphs, large offsets."""

from dataclasses import replace

import numpy as np
import pytest

from impls.contract import POOLINGS, ModelSpec
from tests.cuda_shim.arguments import arguments, pool
from tests.torch_works import check_against_oracle

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.gpu

NAME = "torch_cupy"
DTYPES = ("float32", "bfloat16")
LAYER = ModelSpec(input_size=12, hidden_size=20)
RAGGED = (9, 1, 4)


def device():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    pytest.importorskip("cupy")
    return "cuda"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("pooling", POOLINGS)
def test_cuda_equals_the_oracle(pooling, dtype):
    spec = replace(LAYER, bidirectional=True, zoneout=0.2, pooling=pooling)
    for changes in ({"lengths": RAGGED, "seed": 3}, {}, {"kind": "train_step", "seed": 4}):
        check_against_oracle(NAME, spec, dtype, device(), **changes)
    wide = replace(LAYER, hidden_size=322, pooling=pooling)
    check_against_oracle(NAME, wide, dtype, device(), batch=40, steps=150)


def test_cuda_mask_equals_the_oracles_bit_for_bit():
    from impls.reference import hold_mask

    spec = ModelSpec(hidden_size=40, pooling="f", zoneout=0.5)
    rows, t0 = torch.tensor([3, 7], device=device()), torch.tensor([0, 13], device="cuda")
    args = arguments("f", steps=50, hidden=40, device="cuda", zone="hold", zoneout=0.5, rows=rows,
                     t0=t0, seed=torch.tensor([99], device="cuda"), layer=2)  # fmt: skip
    with torch.no_grad():
        args[0].zero_()  # z = 0 and f = 1/2: c is held or halved, exactly
        args[1].zero_()
        cells = torch.cat([args[2][None], pool(*args)[0]]).cpu()
    held = hold_mask(spec, 99, rows.cpu().numpy(), t0.cpu().numpy(), 50, 2, "fwd")
    np.testing.assert_array_equal(cells[1:] == cells[:-1], held)


def test_a_launch_is_ordered_on_the_current_stream():
    args = arguments(steps=64, batch=64, hidden=256, device=device())
    with torch.no_grad():
        expected = pool(*args)[0]
        late, stream = torch.zeros_like(args[0]), torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            torch.cuda._sleep(100_000_000)
            late.copy_(args[0])
            found = pool(late, *args[1:])[0]
        stream.synchronize()
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_captured_graph_replays_new_inputs_and_a_new_seed(dtype):
    where, seed = device(), torch.tensor([1], device="cuda")
    batch = torch.arange(2, device=where)
    args = arguments(dtype=dtype, device=where, zone="hold", zoneout=0.5, seed=seed, rows=batch,
                     t0=batch)  # fmt: skip
    with torch.no_grad():
        pool(*args)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            y, c, _ = pool(*args)
        args[0].normal_()
        seed.fill_(2)
        graph.replay()
        torch.testing.assert_close((y, c), pool(*args)[:2], rtol=0, atol=0)


def test_capturing_an_uncompiled_kernel_says_what_to_do(monkeypatch):
    from impls.torch_cupy import launch

    args = arguments(device=device())
    monkeypatch.setattr(launch, "_functions", {})
    with pytest.raises(RuntimeError, match="make the same call once before the capture"):  # noqa: SIM117
        with torch.no_grad(), torch.cuda.graph(torch.cuda.CUDAGraph()):
            pool(*args)


def test_more_than_two_to_the_31_elements_are_addressed():
    steps, hidden = 70_000, 4096  # 70,000 * 2 * 4 * 4096 gates in bfloat16: 4.6 GB, 2.3e9 elements
    if torch.cuda.mem_get_info(device())[0] < 16 << 30:
        pytest.skip("less than 16 GiB of device memory are free")
    pre = torch.randn(steps, 2, 4 * hidden, device="cuda", dtype=torch.bfloat16)
    bias, c0 = torch.zeros(4 * hidden, device="cuda"), torch.zeros(2, hidden, device="cuda")
    words = (None, None, None, None, "ifo", "none", True, 0.0, 0, False)
    y, c, _ = pool(pre, bias, c0, *words)
    half, state, _ = pool(pre[: steps // 2], bias, c0, *words)
    rest, end, _ = pool(pre[steps // 2 :], bias, state, *words)
    torch.testing.assert_close(torch.cat([half, rest])[-100:], y[-100:])
    torch.testing.assert_close(end, c)
