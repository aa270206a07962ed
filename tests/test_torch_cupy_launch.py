"""torch_cupy's launches: what is refused, which stream, and compiling before a capture."""

import sys
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import numpy as np
import pytest

from tests.cuda_shim.arguments import arguments, offered_on_cpu, pool

torch = pytest.importorskip("torch")

WRONG = [
    ({"pre": torch.zeros(6, 2, 12, dtype=torch.float64)}, TypeError, "pre is torch.float64: give"),
    ({"pre": torch.zeros(6, 2, 24)[..., ::2]}, ValueError, "channels must be adjacent"),
    ({"pre": torch.zeros(6, 2, 13)}, ValueError, "pre has 13 channels: give 3 gates"),
    ({"pre": torch.zeros(6, 24)}, ValueError, r"pre has shape \(6, 24\)"),
    ({"bias": torch.zeros(11)}, ValueError, r"bias has shape \(11,\): give \(12,\)"),
    ({"c0": torch.zeros(2, 4, dtype=torch.bfloat16)}, TypeError, "c0 is torch.bfloat16: give"),
    ({"c0": torch.zeros(4, 2).T}, ValueError, "c0 has strides .* give it contiguous"),
    ({"lengths": torch.ones(2, dtype=torch.int32)}, TypeError, "lengths is torch.int32: give"),
    ({"lengths": torch.ones(3, dtype=torch.int64)}, ValueError, r"lengths has shape \(3,\)"),
    ({"pooling": "fifo"}, ValueError, "pooling 'fifo' .* allowed are f, fo, ifo"),
    ({"zone": "hold"}, ValueError, "zoneout 'hold' needs rows"),
]


@pytest.mark.parametrize(("change", "error", "message"), WRONG)
def test_wrong_arguments_are_refused_before_the_launch(monkeypatch, change, error, message):
    from impls.torch_cupy import launch

    offered_on_cpu()
    monkeypatch.setattr(launch, "launch", lambda *_: pytest.fail("launched"))
    with torch.no_grad(), pytest.raises(error, match=message):
        pool(*arguments(**change))


class FakeCupy:
    """Remembers on which stream, with what and how often kernels are compiled and launched."""

    def __init__(self):
        self.compiled, self.launched, self.current = [], [], None
        stream = SimpleNamespace(from_external=self.enter)
        self.cuda = SimpleNamespace(Stream=stream)

    @contextmanager
    def enter(self, stream):
        self.current = stream
        yield
        self.current = None

    def RawModule(self, code, options, name_expressions):  # noqa: N802 - CuPy's name
        self.compiled += name_expressions
        return SimpleNamespace(get_function=lambda name: self.launch)

    def launch(self, grid, block, args, shared_mem):
        self.launched.append((self.current, grid, block, args, shared_mem))


@pytest.fixture
def fake_cupy(monkeypatch):
    from impls.torch_cupy import launch

    offered_on_cpu()
    fake, streams = FakeCupy(), iter(("first", "second", "third"))
    monkeypatch.setitem(sys.modules, "cupy", fake)
    monkeypatch.setattr(launch, "_functions", {})
    monkeypatch.setattr(torch.cuda, "device", lambda _: nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: next(streams))
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    return fake


def test_each_launch_looks_up_the_stream_and_only_the_first_compiles(fake_cupy):
    args = arguments()
    with torch.no_grad():
        pool(*args)
        pool(*args)
    assert [launched[0] for launched in fake_cupy.launched] == ["first", "second"]
    assert fake_cupy.compiled == ["qb::pool_forward<float, 1, 0, true, 1, 32, 4, 8>"]
    _, grid, block, values, shared_mem = fake_cupy.launched[0]
    assert (grid, block, shared_mem) == ((2,), (128,), 4 * 4 * 128)
    assert values[0] == args[0].data_ptr()
    # A plain int travels as 8 bytes, everything else says how many it has.
    assert [type(value) for value in values] == [
        *[int] * 12, *[np.int32] * 3, int, int, np.uint32, np.float32, *[np.int32] * 3
    ]  # fmt: skip


def test_an_uncompiled_kernel_is_refused_while_a_graph_is_captured(fake_cupy, monkeypatch):
    args = arguments()
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    with torch.no_grad(), pytest.raises(RuntimeError, match="make the same call once before"):
        pool(*args)
    assert not fake_cupy.compiled
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    with torch.no_grad():
        pool(*args)
        monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
        pool(*args)
    assert len(fake_cupy.launched) == 2
