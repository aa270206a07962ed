"""Ceilings: the best of what was asked, rates from the right amount of work, bounded time."""

import math

import pytest

from harness.machine import ceilings
from harness.machine.ceilings import Ceilings, collect
from harness.process import WorkerFailure

FLOPS = {"float32": 1e11, "float64": 5e10, "bfloat16": 4e11}


class Machine:
    """A fake worker: constant rates, a cost per call, one of two answers twice as slow."""

    def __init__(self, speed=1.0, lacks=(), broken=()):
        self.asked, self.speed, self.lacks, self.broken = [], speed, lacks, broken

    def __call__(self, framework, name, dtype, size):
        self.asked.append((framework, name, dtype, size))
        if name in self.broken:
            raise WorkerFailure("crash", "SIGSEGV", f"{name} died")
        if dtype in self.lacks:
            raise WorkerFailure("unsupported", "NotImplementedError", f"no {dtype}", fatal=False)
        least = 1e-6 if framework == "numpy" else 3e-6
        rates = {"gemm": FLOPS[dtype], "copy": 2e10, "exp": 1e9, "dispatch": math.inf}
        work = {"gemm": 2 * size**3, "copy": 2 * size, "exp": size, "dispatch": 1}
        slow = 2 if name in ("copy", "dispatch") else 1
        busy = 2.0 if self.asked.count(self.asked[-1]) == slow else 1.0
        return busy * (least + work[name] / (self.speed * rates[name]))


def test_rates_are_work_over_the_best_of_two_answers():
    found = collect(Machine(), "torch", ["float32", "bfloat16"], "cpu")
    assert found["gemm_flops"] == pytest.approx({"float32": 1e11, "bfloat16": 4e11}, rel=0.01)
    assert found["copy_bytes"] == pytest.approx(2e10, rel=0.01)
    assert found["exp_rate"] == pytest.approx(1e9, rel=0.02)
    assert found["dispatch_s"] == pytest.approx(3e-6)
    assert found["step_s"] == pytest.approx(1e-6, rel=0.02)
    assert found["remarks"] == []


def test_a_copy_is_larger_than_the_caches():
    machine = Machine()
    collect(machine, "torch", ["float32"], "cpu")
    sizes = {key[3] for key in machine.asked if key[1] == "copy"}
    assert min(sizes) >= 64 << 20


def test_a_slow_machine_is_not_given_the_large_products():
    slow = Machine(speed=0.005)
    collect(slow, "torch", ["float32"], "cpu")
    assert max(key[3] for key in slow.asked if key[1] == "gemm") == 256
    fast = Machine()
    collect(fast, "torch", ["float32"], "cpu")
    assert max(key[3] for key in fast.asked if key[1] == "gemm") == 1024


def test_nothing_is_asked_twice_after_the_time_limit():
    machine = Machine()
    collect(machine, "torch", ["float32"], "cpu", limit_s=0.0)
    assert len(machine.asked) == len(set(machine.asked))


def test_a_dtype_without_products_is_filled_in_and_said_so():
    found = collect(Machine(lacks=("bfloat16",)), "numpy", ["float32", "bfloat16"], "cpu")
    assert found["gemm_flops"]["bfloat16"] == found["gemm_flops"]["float32"]
    assert found["remarks"] == ["bfloat16 not multiplied, taken as the best other"]
    with pytest.raises(WorkerFailure, match="numpy multiplies no dtype"):
        collect(Machine(lacks=("bfloat16",)), "numpy", ["bfloat16"], "cpu")


def test_a_probe_that_dies_is_an_error_and_not_a_slow_machine():
    with pytest.raises(WorkerFailure, match="copy died"):
        collect(Machine(broken=("copy",)), "torch", ["float32"], "cpu")


def test_on_cuda_the_step_is_assumed_and_said_so():
    machine = Machine()
    found = collect(machine, "torch", ["float32"], "cuda")
    assert found["step_s"] == ceilings.CUDA_STEP_S
    assert found["remarks"] == ["time of a dependent step assumed"]
    assert {key[0] for key in machine.asked} == {"torch"}


@pytest.fixture
def brief(monkeypatch):
    """Short probes: this asks whether a real worker answers, not how fast the machine is."""
    monkeypatch.setattr(ceilings, "PROBE_S", 0.002)
    monkeypatch.setattr(ceilings, "GEMM_SIZES", {"cpu": (64, 128)})
    monkeypatch.setattr(ceilings, "COPY_BYTES", {"cpu": (1 << 20, 1 << 20)})


@pytest.mark.parametrize("framework", ["torch", "jax", "numpy"])
def test_a_real_worker_measures_this_machine(framework, brief, monkeypatch, tmp_path):
    pytest.importorskip(framework)
    monkeypatch.setattr(ceilings, "FRAMEWORKS", (framework,))
    found = ceilings.measure(1, ["float32", "float64"], "cpu", tmp_path)
    assert found.source.startswith(f"{framework} ")
    assert "thread budget 1, cpu" in found.source
    assert 1e7 < found.gemm_flops["float64"] < found.gemm_flops["float32"] * 3 < 1e15
    assert 1e7 < found.copy_bytes < 1e13
    assert 1e6 < found.exp_rate < 1e13
    assert 1e-8 < found.dispatch_s < 1e-2
    assert 1e-8 < found.step_s < 1e-3
    assert Ceilings.from_dict(found.to_dict()) == found


def test_the_next_framework_is_asked_where_one_fails(brief, monkeypatch, tmp_path):
    monkeypatch.setattr(ceilings, "FRAMEWORKS", ("json", "numpy"))
    found = ceilings.measure(1, ["float32"], "cpu", tmp_path)
    assert found.source.startswith("numpy ")
    monkeypatch.setattr(ceilings, "FRAMEWORKS", ("json",))
    with pytest.raises(WorkerFailure, match="json"):
        ceilings.measure(1, ["float32"], "cpu", tmp_path)
    monkeypatch.setattr(ceilings, "FRAMEWORKS", ("no_such_framework",))
    with pytest.raises(WorkerFailure, match="nothing here can measure 'cpu'"):
        ceilings.measure(1, ["float32"], "cpu", tmp_path)
