"""CUDA-graph Runs: what a replay computes, what is refused, which cuDNN algorithm an LSTM gets."""

from dataclasses import replace

import numpy as np
import pytest

import impls
from impls import reference
from impls.contract import ModelSpec, Placement
from tests.torch_works import TOLERANCE, distance, load, parameters, work

torch = pytest.importorskip("torch")

from impls._torch import graph  # noqa: E402
from impls._torch.arrays import precision_of  # noqa: E402
from impls._torch.runs import TrainRun  # noqa: E402
from impls.lstm_torch import algorithm  # noqa: E402

LAYER = ModelSpec(input_size=5, hidden_size=6)
KINDS = ("forward", "backward", "train_step")


class Replayed:
    """A captured graph on the CPU: a replay does the work again, into the same memory."""

    def __init__(self, run):
        self.run, self.work = run, run.step if isinstance(run, TrainRun) else run

    def replay(self):
        before = self.run.written()
        fields = dict(vars(self.run))
        self.work()
        for old, new in zip(before, self.run.written(), strict=True):
            with torch.inference_mode():
                old.copy_(new)
        vars(self.run).update({name: fields[name] for name in fields if name != "_calls"})


class Unwritten(Replayed):
    def replay(self):
        pass


def captured(kind):
    def capture(run):
        for _ in range(graph.WARM_CALLS):
            run.step() if isinstance(run, TrainRun) else run()
        if isinstance(run, TrainRun):
            run.restore()
        return kind(run)

    return capture


def results(session, given, calls=1):
    run = session.prepare(given)
    for _ in range(calls):
        run()
    run.wait()
    found = run.result()
    if given.kind == "train_step":
        found |= {f"param.{key}": value for key, value in session.export().items()}
    return found


def check(name, kind, dtype="float32", device="cpu", calls=2):
    spec = replace(LAYER, family=impls.get(name).family)
    params, given = parameters(spec, dtype), work(spec, kind, dtype)
    session = impls.get(name).capture(load(name, spec, params, dtype, device))
    found = results(session, given, calls)
    for key, value in reference.run(spec, params, given).items():
        assert distance(found[key], value) <= TOLERANCE[dtype], key


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["torch_eager", "lstm_torch"])
def test_a_replay_gives_the_oracles_results_from_the_first_parameters_on(name, kind, monkeypatch):
    monkeypatch.setattr(graph, "_capture", captured(Replayed))
    check(name, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_a_graph_that_writes_nothing_is_refused(kind, monkeypatch):
    monkeypatch.setattr(graph, "_capture", captured(Unwritten))
    with pytest.raises(RuntimeError, match="leaves outputs unwritten"):
        check("torch_eager", kind)


def test_outputs_are_poisoned_before_the_call_that_the_gate_sees(monkeypatch):
    monkeypatch.setattr(graph, "_capture", captured(Replayed))
    session = graph.capture(load("torch_eager", LAYER, parameters(LAYER)))
    run = session.prepare(work(LAYER, "forward"))
    assert np.isnan(run.result()["y"]).all()
    run()
    assert np.isfinite(run.result()["y"]).all()


def test_training_replays_are_counted_and_their_parameters_restored(monkeypatch):
    monkeypatch.setattr(graph, "_capture", captured(Replayed))
    session = graph.capture(load("torch_eager", LAYER, parameters(LAYER)))
    run = session.prepare(work(LAYER, "train_step"))
    inner = run._run
    first = {name: value.clone() for name, value in inner._masters.items()}
    for _ in range(100):
        run()
    changed = [not torch.equal(first[name], now) for name, now in inner._masters.items()]
    assert any(changed)
    run.reset()
    assert all(torch.equal(first[name], now) for name, now in inner._masters.items())


def test_lengths_and_foreign_sessions_have_no_graph():
    session = graph.capture(load("torch_eager", LAYER, parameters(LAYER)))
    with pytest.raises(NotImplementedError, match="equal length"):
        session.prepare(work(LAYER, lengths=(9, 1, 4)))
    with pytest.raises(TypeError, match="no session of"):
        graph.capture(object())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["torch_eager", "lstm_torch", "torch_cupy"])
def test_a_captured_graph_on_a_device_equals_the_oracle(name, dtype, kind):
    if impls.missing(impls.get(name)):
        pytest.skip(impls.missing(impls.get(name)))
    check(name, kind, dtype, "cuda")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_an_empty_capture_is_refused_on_a_device():
    session = load("torch_eager", LAYER, parameters(LAYER), device="cuda")
    run = session.prepare(work(LAYER, "forward"))
    run()
    run.__class__ = type("Idle", (type(run),), {"__call__": lambda self: None})
    with pytest.raises((RuntimeError, Warning), match=r"empty|unwritten"):
        graph.GraphRun(run)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_float32_products_are_ieee_on_a_device():
    assert load("torch_eager", LAYER, parameters(LAYER), device="cuda").precision == "ieee"


def test_precision_is_named_for_float32_on_cuda_alone():
    settings = torch.backends.cuda.matmul, torch.backends.cudnn.rnn
    before = [setting.fp32_precision for setting in settings]
    try:
        for setting, word in zip(settings, ("ieee", "tf32"), strict=True):
            setting.fp32_precision = word
        assert precision_of(Placement("cuda", "float32")) == "ieee+tf32"
    finally:
        for setting, word in zip(settings, before, strict=True):
            setting.fp32_precision = word
    assert precision_of(Placement("cuda", "bfloat16")) is None
    assert precision_of(Placement("cpu", "float32")) is None


STANDARD, PERSIST, SMALL = "STANDARD", "PERSIST_STATIC", "PERSIST_STATIC_SMALL_H"


@pytest.mark.parametrize(
    ("sizes", "dtype", "packed", "expected"),
    [
        # hidden, input, layers, directions, batch
        ((320, 320, 1, 1, 8), "float32", False, (STANDARD, STANDARD)),
        ((320, 320, 1, 1, 8), "bfloat16", False, (STANDARD, STANDARD)),
        ((192, 320, 1, 1, 3), "float32", False, (SMALL, STANDARD)),
        ((128, 320, 2, 2, 3), "bfloat16", False, (SMALL, SMALL)),
        ((128, 128, 1, 1, 8), "float32", True, (STANDARD, STANDARD)),
        ((128, 128, 1, 1, 8), "float64", False, (STANDARD, STANDARD)),
        ((512, 512, 1, 1, 8), "float16", False, (PERSIST, PERSIST)),
        ((512, 512, 1, 1, 8), "bfloat16", False, (STANDARD, STANDARD)),
        ((512, 512, 1, 1, 136), "float16", False, (STANDARD, STANDARD)),
        ((512, 512, 1, 1, 12), "float16", False, (STANDARD, STANDARD)),
        ((512, 512, 2, 1, 8), "float16", False, (STANDARD, STANDARD)),
        ((512, 512, 1, 2, 8), "float16", False, (STANDARD, STANDARD)),
        ((512, 320, 1, 1, 8), "float16", False, (STANDARD, STANDARD)),
        ((1152, 512, 1, 1, 8), "float16", False, (STANDARD, STANDARD)),
    ],
)
def test_torchs_rules_for_the_cudnn_algorithm(sizes, dtype, packed, expected):
    found = tuple(algorithm.choose(*sizes, dtype, packed, forward) for forward in (True, False))
    assert found == expected


def test_a_row_names_the_algorithm_of_both_passes_where_they_differ():
    spec = ModelSpec(family="lstm", input_size=64, hidden_size=160)
    card = impls.get("lstm_torch")
    both = "cuDNN PERSIST_STATIC_SMALL_H, backward STANDARD"
    assert card.algorithm(spec, Placement("cuda"), work(spec)) == both
    forward = card.algorithm(spec, Placement("cuda"), work(spec, "forward"))
    assert forward == "cuDNN PERSIST_STATIC_SMALL_H"
    assert card.algorithm(spec, Placement("cpu"), work(spec)) is None
    other = impls.get("lstm_jax").algorithm
    assert other(spec, Placement("cuda"), work(spec)) == "cuDNN STANDARD"
    assert other(spec, Placement("cuda", "bfloat16"), work(spec)) == "lax.scan"
