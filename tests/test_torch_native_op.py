"""How the operator of torch_native behaves inside PyTorch: registration, strides, memory."""

import subprocess
import sys

import pytest

import impls

torch = pytest.importorskip("torch")
if reason := impls.missing(impls.get("torch_native")):
    pytest.skip(reason, allow_module_level=True)

from impls.torch_native import memory, plan  # noqa: E402
from impls.torch_native.op import qrnn_layer  # noqa: E402

NAME = "torch_native"
FO = plan.How(1, 0, 1, 0, 0, 0, 0, 0)


def arguments(steps=5, batch=2, features=3, hidden=4, taps=2, dtype=torch.float32, grad=True):
    """x, weight, bias, c, window of a small fo layer."""
    torch.manual_seed(0)
    wide = plan.STATE_OF[dtype]
    shapes = (
        ((steps, batch, features), dtype),
        ((taps * features, 3 * hidden), dtype),
        ((3 * hidden,), wide),
        ((batch, hidden), wide),
        ((taps - 1, batch, features), dtype),
    )
    given = [torch.randn(shape).to(kind).requires_grad_(grad) for shape, kind in shapes]
    return given if taps > 1 else [*given[:4], None]


def layer(*given, how=FO, save=True):
    return qrnn_layer(*given, None, None, None, list(how), 0.0, save)


def gradients(given, dy=None):
    y = layer(*given)[0]
    wanted = [tensor for tensor in given if tensor is not None]
    return torch.autograd.grad(y, wanted, torch.ones_like(y) if dy is None else dy)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("taps", [1, 3])
def test_opcheck_passes(taps, dtype):
    given = arguments(taps=taps, dtype=dtype)
    torch.library.opcheck(qrnn_layer, (*given, None, None, None, list(FO), 0.0, True))
    detached = [None if t is None else t.detach() for t in given]
    lengths = torch.tensor([5, 2])
    numbers = torch.arange(2)
    held = plan.How(1, 1, 1, 1, 30000, -5, 0, 1)
    torch.library.opcheck(
        qrnn_layer, (*detached, lengths, numbers, numbers, list(held), 0.4, False)
    )


@pytest.mark.parametrize("taps", [1, 2])
def test_gradients_equal_central_differences(taps):
    given = [t for t in arguments(dtype=torch.float64, taps=taps) if t is not None]

    def outputs(*tensors):
        return layer(*tensors, *([None] if taps == 1 else []))[:3]

    assert torch.autograd.gradcheck(outputs, given)


def test_a_broadcast_gradient_is_read_by_its_strides():
    """`y.sum().backward()` hands down a gradient whose strides are all zero."""
    given = arguments(steps=40, batch=3, hidden=33)
    dense = gradients(given)
    y = layer(*given)[0]
    seen = []
    y.register_hook(lambda g: seen.append(g.stride()))
    broadcast = torch.autograd.grad(y.sum(), given)
    assert seen == [(0, 0, 0)]
    for one, other in zip(broadcast, dense, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    "view",
    [
        lambda t: t.transpose(0, 1).contiguous().transpose(0, 1),
        lambda t: torch.stack([t, t], dim=3)[..., 1],
        lambda t: torch.cat([t, t], dim=2)[..., : t.shape[2]],
    ],
    ids=["batch first", "every second channel", "half of the channels"],
)
@pytest.mark.parametrize("taps", [1, 2])
def test_inputs_and_gradients_of_any_strides_give_the_same_bits(taps, view):
    given = arguments(steps=20, taps=taps)
    dy = torch.randn(20, 2, 4)
    dense = gradients(given, dy)
    viewed = [view(given[0]), *given[1:]]
    assert torch.equal(layer(*viewed)[0], layer(*given)[0])
    for one, other in zip(gradients(given, view(dy)), dense, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_threads_change_no_bit(dtype, monkeypatch):
    monkeypatch.setattr(plan, "BY_TORCH", frozenset())
    given = arguments(90, 9, 40, 97, 3, dtype)

    def bits(threads):
        torch.set_num_threads(threads)
        return *layer(*given), *gradients(given)

    before = torch.get_num_threads()
    try:
        one = bits(1)
        for threads in (2, 3, 8):
            many = bits(threads)
            assert all(torch.equal(*pair) for pair in zip(one, many, strict=True))
    finally:
        torch.set_num_threads(before)


def test_a_weight_of_any_strides_gives_the_same_bits():
    given = arguments(steps=300, features=40, hidden=33)
    dense = layer(*given)[0], *gradients(given)
    for view in (
        lambda t: t.t().contiguous().t(),
        lambda t: torch.cat([t, t], dim=1)[:, : t.shape[1]],
        lambda t: torch.stack([t, t], dim=2)[..., 1],
    ):
        viewed = [given[0], view(given[1]).detach().requires_grad_(), *given[2:]]
        for one, other in zip((layer(*viewed)[0], *gradients(viewed)), dense, strict=True):
            assert torch.equal(one, other)


def test_backward_twice_over_a_kept_graph_gives_equal_gradients():
    given = arguments()
    y = layer(*given)[0]
    first = torch.autograd.grad(y.sum(), given, retain_graph=True)
    again = torch.autograd.grad(y.sum(), given)
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))


def test_a_second_derivative_raises():
    given = arguments()
    (dx,) = torch.autograd.grad(layer(*given)[0].square().sum(), given[:1], create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative: use torch_eager"):
        dx.sum().backward()


def test_a_pass_that_saved_nothing_refuses_its_backward():
    given = arguments()
    with pytest.raises(RuntimeError, match="call it with save=True"):
        layer(*given, save=False)[0].sum().backward()


@pytest.mark.parametrize(
    ("at", "change", "message"),
    [
        (0, lambda t: t.half(), "x has dtype torch.float16: allowed are float32"),
        (0, lambda t: t.int(), "x has dtype torch.int32"),
        (1, lambda t: t.double(), "weight has dtype torch.float64: give torch.float32"),
        (2, lambda t: t.bfloat16(), "bias has dtype torch.bfloat16: give torch.float32"),
        (3, lambda t: t.double(), "c has dtype torch.float64"),
        (3, lambda t: t[:1], r"c has shape \[1, 4\]: give \[2, 4\]"),
        (1, lambda t: t[:5], r"weight has shape \[5, 12\]: give \[K \* 3, 3 \* H\]"),
        (4, lambda t: t[:0], r"window has shape \[0, 2, 3\]: give \[1, 2, 3\]"),
        (4, lambda t: None, "window is missing"),
    ],
)
def test_an_argument_that_does_not_fit_is_refused(at, change, message):
    given = arguments(grad=False)
    given[at] = change(given[at])
    with pytest.raises((TypeError, ValueError), match=message):
        layer(*given)


def test_zoneout_without_rows_is_refused():
    with pytest.raises(ValueError, match="rows is missing"):
        layer(*arguments(grad=False), how=FO._replace(zone=1))


def test_autocast_computes_in_bfloat16_with_wide_states():
    given = arguments(steps=30, features=16, hidden=24)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, c, window, *_ = layer(*given)
    assert (y.dtype, c.dtype, window.dtype) == (torch.bfloat16, torch.float32, torch.bfloat16)
    x, weight, bias, first, before = given
    rounded = [x.bfloat16(), weight.bfloat16(), bias, first, before.bfloat16()]
    wanted = layer(*rounded)
    assert all(torch.equal(*pair) for pair in zip((y, c, window), wanted, strict=False))
    loss, other = y.float().sum() + c.sum(), wanted[0].float().sum() + wanted[1].sum()
    pairs = zip(torch.autograd.grad(loss, given), torch.autograd.grad(other, given), strict=True)
    for tensor, (found, expected) in zip(given, pairs, strict=True):
        assert found.dtype == tensor.dtype
        assert torch.equal(found, expected)


@pytest.mark.slow
def test_compile_sees_one_graph_and_computes_the_same():
    import torch._dynamo as dynamo

    given = arguments(steps=20)

    def network(x, *rest):
        return (layer(2 * x, *rest)[0] * 3).sum()

    assert dynamo.explain(network)(*given).graph_break_count == 0
    dynamo.reset()
    expected = torch.autograd.grad(network(*given), given)
    found = torch.autograd.grad(torch.compile(network, fullgraph=True)(*given), given)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


@pytest.fixture
def fresh(monkeypatch):
    """No memory of earlier calls."""
    monkeypatch.setattr(memory, "_kept", [])


def test_a_result_that_is_held_is_never_overwritten_and_its_memory_comes_back(fresh):
    first = memory.result((1 << 18,), torch.float32).fill_(1.0)
    address = first.data_ptr()
    second = memory.result((1 << 18,), torch.float32).fill_(2.0)
    view = first[:10]
    del first
    third = memory.result((1 << 18,), torch.float32).fill_(3.0)
    assert view.eq(1.0).all()
    assert second.eq(2.0).all()
    del view
    fourth = memory.result((1 << 18,), torch.float32)
    assert fourth.data_ptr() == address
    assert third.eq(3.0).all()


def test_no_more_memory_is_kept_than_agreed_and_the_rest_still_serves(fresh, monkeypatch):
    monkeypatch.setattr(memory, "MOST_KEPT", 3 << 20)
    held = [memory.result((1 << 18,), torch.float32).fill_(i) for i in range(5)]
    assert len(memory._kept) == 3
    assert all(tensor.eq(i).all() for i, tensor in enumerate(held))
    held.clear()
    larger = memory.result((3 << 18,), torch.float32)
    assert [kept.nbytes for kept in memory._kept] == [larger.nbytes]


def test_workspaces_made_in_inference_mode_serve_training():
    with torch.inference_mode():
        layer(*arguments(grad=False, steps=70), save=False)
    gradients(arguments(steps=70))


def test_the_direct_call_and_the_operator_give_the_same_bits():
    from impls.torch_native import op

    given = arguments(steps=40)
    dy = torch.randn(40, 2, 4)
    x, weight, bias, c, window = given
    inputs = plan.Inputs(x, weight, bias, window, None, None, None, FO, 0.0)
    direct = op.layer(inputs, c)
    assert all(torch.equal(*pair) for pair in zip(direct, layer(*given), strict=False))
    found = torch.autograd.grad(direct[0], given, dy)
    for one, other in zip(found, gradients(given, dy), strict=True):
        assert torch.equal(one, other)
    (dx,) = torch.autograd.grad(op.layer(inputs, c)[0].square().sum(), given[:1], create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        dx.sum().backward()


LONG = """
import resource, sys, torch
from impls.torch_native.op import layer
from impls.torch_native.plan import How, Inputs
steps = int(sys.argv[1])
x, weight = torch.ones(steps, 8, 64), torch.ones(128, 3 * 320)
bias, c, window = torch.zeros(3 * 320), torch.zeros(8, 320), torch.zeros(1, 8, 64)
rest = (window, None, None, None, How(1, 0, 1, 0, 0, 0, 0, 0), 0.0)
def call(n):
    with torch.inference_mode():
        return layer(Inputs(x[:n], weight, bias, *rest), c)[0]
call(1024)
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before = peak()
y = call(steps)
print(peak() - before - y.nbytes)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kilobytes on Linux")
def test_memory_beyond_inputs_and_outputs_does_not_grow_with_the_steps():
    def extra(steps):
        command = [sys.executable, "-c", LONG, str(steps)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return int(done.stdout)

    # all gate sums of 16384 steps would be 503 MB, twice those of 8192
    assert extra(16384) < 8 << 20
    assert extra(8192) < 8 << 20
