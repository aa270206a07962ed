"""The clock: what is inside a sample, how long it is, when a contender counts as warm."""

import gc
import hashlib
import threading
import time

import numpy as np
import pytest

from harness.speed import clock


class Recorder:
    """A Run that writes down what happens to it."""

    def __init__(self):
        self.events = []

    def __call__(self):
        self.events.append("call")

    def wait(self):
        self.events.append("wait")

    def reset(self):
        self.events.append("reset")

    def result(self):
        return {}


def test_a_sample_is_inner_calls_and_one_wait_with_reset_before_it():
    run = Recorder()
    got = clock.block(run, samples=2, inner=3, burn=1)
    sample = ["reset", "call", "call", "call", "wait"]
    assert run.events == ["call", "wait", *sample, *sample]
    assert (len(got["wall_ns"]), len(got["cpu_ns"]), len(got["burn_ns"])) == (2, 2, 1)


def test_waiting_is_inside_the_clock_and_times_are_per_call():
    class Enqueues(Recorder):
        def wait(self):
            time.sleep(0.02)

    got = clock.block(Enqueues(), samples=1, inner=4, burn=0)
    assert 0.02e9 / 4 <= got["wall_ns"][0] < 0.02e9


def test_resetting_is_outside_the_clock():
    class SlowReset(Recorder):
        def reset(self):
            time.sleep(0.05)

    assert clock.block(SlowReset(), samples=1, inner=1, burn=0)["wall_ns"][0] < 0.04e9


def test_cpu_time_counts_all_threads_of_the_process():
    class Threaded(Recorder):
        def __call__(self):
            def work():
                hashlib.pbkdf2_hmac("sha256", b"x", b"y", 60_000)

            thread = threading.Thread(target=work)
            thread.start()
            thread.join()

    before = time.thread_time_ns()
    got = clock.block(Threaded(), samples=1, inner=1, burn=0)
    assert got["cpu_ns"][0] > 3 * (time.thread_time_ns() - before)


def test_garbage_collection_stays_out_of_a_block_and_comes_back_after_an_error():
    seen = []

    class Fails(Recorder):
        def __call__(self):
            seen.append(gc.isenabled())
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        clock.block(Fails(), 1, 1, 0)
    assert seen == [False]
    assert gc.isenabled()


@pytest.mark.parametrize("call_ns", [40.0, 900.0, 77e3, 0.4e6, 0.7e6, 0.999e6])
def test_a_short_call_is_repeated_to_between_1_and_2_ms(call_ns):
    assert 1e6 <= clock.inner_calls(call_ns) * call_ns < 2e6


@pytest.mark.parametrize("call_ns", [1e6, 1.5e6, 2e9])
def test_a_long_call_is_a_sample_by_itself(call_ns):
    assert clock.inner_calls(call_ns) == 1


@pytest.mark.parametrize(("call_ns", "samples"), [(1e3, 5), (1e6, 5), (4e6, 2), (9e6, 1), (1e9, 1)])
def test_a_turn_is_1_to_5_samples_of_about_10_ms_together(call_ns, samples):
    assert clock.samples_per_block(call_ns) == samples


def noise(count, seed=0):
    return 1e6 * (1 + 0.005 * np.random.default_rng(seed).standard_normal(count))


def test_steady_after_two_windows_without_drift():
    flat = np.tile([1e6, 1.001e6], 10)
    assert clock.steady(list(flat))
    assert clock.steady([5e6, 4e6, *flat])


def test_noise_alone_is_mostly_steady():
    assert sum(clock.steady(list(noise(20, seed))) for seed in range(100)) >= 85


@pytest.mark.parametrize(
    "samples",
    [
        [],
        [1e6] * 19,
        list(noise(20) * np.linspace(1.4, 1.0, 20)),
        [1.1e6] * 10 + [1e6] * 10,
        list(noise(20) * np.linspace(1.03, 1.0, 20)),
    ],
    ids=["nothing", "too few", "falling", "a step", "a slow drift within 2 %"],
)
def test_not_steady(samples):
    assert not clock.steady(samples)


def test_long_calls_need_two_windows_of_three():
    assert clock.steady([1e9, 1.001e9, 0.999e9, 1e9, 1.001e9, 0.999e9])
    assert not clock.steady([1e9] * 5)
