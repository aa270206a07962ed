"""Worker processes: their budget, their pipes, their pauses and every way in which they end."""

import json
import os
import select
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from harness.process import Worker, WorkerFailure, worker_cpus
from harness.worker import failure
from tests.measuring import TOP, point, use_fakes

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="signals and /proc are Linux's")
WAIT_S = 60


@pytest.fixture(scope="module")
def spawn(tmp_path_factory):
    """Gives the module's worker; a new one where the last test killed it."""
    logs, started = tmp_path_factory.mktemp("run") / "logs", []

    def living():
        if not started or not started[-1].alive:
            started.append(Worker("lstm_torch#twin", 1, logs))
        return started[-1]

    with pytest.MonkeyPatch.context() as patch:
        use_fakes(patch)
        yield living
    for worker in started:
        worker.kill()


@pytest.fixture
def worker(spawn):
    return spawn()


def state(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def prepare(worker, impl, timeout=WAIT_S, **changes):
    cache = str(worker.log.parent / "oracle")
    fields = asdict(point(**changes))
    return worker.call("prepare", timeout, point=fields, impl=impl, seed=1, cache=cache)


def test_a_worker_has_the_cpus_and_threads_of_its_budget(worker):
    hello = worker.call("hello", WAIT_S, modules=["numpy"])
    assert hello["cpus"] == 1
    assert hello["tasks"] == 1, "NumPy's pool must follow the budget"
    assert hello["versions"]["numpy"]


def test_the_slots_of_a_budget_do_not_overlap_and_wrap_around():
    cpus = sorted(os.sched_getaffinity(0), reverse=True)
    assert [worker_cpus(1, slot) for slot in range(len(cpus))] == [[cpu] for cpu in cpus]
    assert worker_cpus(1, len(cpus)) == worker_cpus(1)
    assert worker_cpus(len(cpus), 3) == cpus


def test_binding_moves_the_worker_to_where_everybody_is_measured(worker):
    assert worker.call("bind", WAIT_S, cpus=worker_cpus(1))["cpus"] == 1
    assert os.sched_getaffinity(worker.pid) == set(worker_cpus(1))


def test_a_worker_is_stopped_whenever_it_has_answered(worker):
    for _ in range(2):
        worker.call("hello", WAIT_S, modules=[])
        assert state(worker.pid) in "Tt"


def test_a_prepared_fake_gives_samples_and_a_final_check(worker):
    found = prepare(worker, "fake_good")
    assert found["gate_error"] <= found["gate_tolerance"]
    assert found["first_call_s"] > 0
    assert found["tokens"] == 24
    block = worker.call("block", WAIT_S, samples=3, inner=2, burn=1)
    assert len(block["wall_ns"]) == len(block["cpu_ns"]) == 3
    assert len(block["burn_ns"]) == 1
    assert worker.call("finish", WAIT_S) == {}


@pytest.mark.parametrize("kind", ["forward", "backward", "train_step", "step"])
def test_every_kind_passes_the_gate(worker, kind):
    found = prepare(worker, "fake_good", kind=kind, steps=1 if kind == "step" else 6)
    assert found["gate_sequences"] == 4


def test_a_worker_survives_what_is_no_fault_of_its_process(worker):
    for impl, status in [
        ("fake_wrong", "mismatch"),
        ("fake_nan", "nonfinite"),
        ("fake_refuses", "unsupported"),
        ("fake_mixer", "mismatch"),
    ]:
        with pytest.raises(WorkerFailure) as caught:
            prepare(worker, impl)
        assert caught.value.status == status
        assert not caught.value.fatal
    assert prepare(worker, "fake_good")["gate_error"] is not None


def test_a_crash_tells_its_signal_and_the_end_of_its_log(worker):
    with pytest.raises(WorkerFailure) as caught:
        prepare(worker, "fake_abort")
    assert (caught.value.status, caught.value.error_type) == ("crash", "SIGABRT")
    assert "last words of the fake" in caught.value.reason
    assert "logs/lstm_torch-twin.log" in caught.value.reason


def test_a_hanging_call_is_killed_at_its_time_limit(worker):
    worker.call("hello", WAIT_S, modules=["numpy"])
    with pytest.raises(WorkerFailure) as caught:
        prepare(worker, "fake_hang", timeout=2)
    assert caught.value.status == "timeout"
    assert not worker.alive


def test_a_worker_killed_from_outside_is_a_crash_and_not_out_of_memory(worker):
    worker.call("hello", WAIT_S, modules=[])
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(WorkerFailure) as caught:
        worker.call("hello", WAIT_S, modules=[])
    assert (caught.value.status, caught.value.error_type) == ("crash", "SIGKILL")


def test_a_kernel_kill_for_memory_is_oom_host(worker, monkeypatch):
    monkeypatch.setattr("harness.process.oom_kills", lambda: worker._oom_before + 1)
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(WorkerFailure) as caught:
        worker.call("hello", WAIT_S, modules=[])
    assert caught.value.status == "oom_host"


class OutOfMemoryError(RuntimeError):
    """Named like torch's."""


@pytest.mark.parametrize(
    ("error", "device", "status", "fatal"),
    [
        (NotImplementedError("no"), "cpu", "unsupported", False),
        (MemoryError(), "cuda", "oom_host", True),
        (OutOfMemoryError("CUDA out of memory"), "cuda", "oom_device", True),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory"), "cuda", "oom_device", True),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory"), "cpu", "oom_host", True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "cpu", "oom_host", True),
        (ValueError("x" * 900), "cpu", "crash", True),
    ],
)
def test_errors_become_status_words(error, device, status, fatal):
    reply = failure(error, device)
    assert (reply["status"], reply["fatal"]) == (status, fatal)
    assert 0 < len(reply["reason"]) <= 500


@pytest.mark.parametrize("name", ["gemm", "copy", "dispatch", "exp"])
def test_numpy_probes_give_a_best_time_per_call(worker, name):
    ask = {"framework": "numpy", "device": "cpu", "dtype": "float32", "seconds": 0.02}
    small = worker.call("probe", WAIT_S, name=name, size=64, **ask)
    assert 0 < small["best_ns"] <= small["median_ns"]
    with pytest.raises(WorkerFailure, match="bfloat16"):
        worker.call("probe", WAIT_S, name=name, size=64, **ask | {"dtype": "bfloat16"})


COORDINATOR = """
import sys, time
from pathlib import Path
from harness.process import Worker
workers = [Worker(f"w{n}", 1, Path(sys.argv[1])) for n in range(2)]
for worker in workers:
    worker.call("hello", 60, modules=[])
print(*[worker.pid for worker in workers], flush=True)
workers[0].call("hello", 600, modules=["never_ending"])
"""


def test_no_worker_outlives_a_killed_coordinator(tmp_path):
    (tmp_path / "never_ending.py").write_text("import threading; threading.Event().wait()\n")
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(TOP), str(tmp_path)])}
    command = [sys.executable, "-c", COORDINATOR, str(tmp_path / "logs")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=env) as coordinator:
        pids = [int(word) for word in coordinator.stdout.readline().split()]
        handles = [os.pidfd_open(pid) for pid in pids]
        waiting = state(pids[1])
        coordinator.kill()
    assert waiting in "Tt", "the second one was not stopped"
    for handle in handles:
        assert select.select([handle], [], [], WAIT_S)[0], "a worker is still there"
        os.close(handle)


def test_the_worker_module_imports_nothing_heavy_before_it_is_settled():
    code = "import harness.worker, sys, json; print(json.dumps(sorted(sys.modules)))"
    loaded = json.loads(subprocess.check_output([sys.executable, "-c", code], cwd=TOP))
    assert "numpy" not in loaded
    assert "impls" not in loaded
