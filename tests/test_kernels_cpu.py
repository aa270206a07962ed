"""The compiled pooling kernels against the float64 oracle, their edges, and how they are built."""

import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from impls.contract import POOLINGS, ModelSpec
from impls.kernels import build, native
from tests.pooling import compiled, draw, expected
from tests.torch_works import distance

pytestmark = pytest.mark.skipif(
    native.lacking() is not None, reason=f"no working C++ compiler: {native.lacking()}"
)

EXACT = {"float32": 1e-6, "bfloat16": 1e-6, "float64": 1e-12}
"""Carried state and bias gradients, given the same gate sums."""
STORED = {"float32": 1e-6, "bfloat16": 3e-3, "float64": 1e-12}
"""What is written in the I/O format: one rounding to bfloat16 is at most 2e-3."""
ZONES = {
    "none": ({}, False),
    "held": ({"zoneout": 0.4}, True),
    "held_literal": ({"zoneout": 0.4, "zoneout_mode": "literal"}, True),
    "expected": ({"zoneout": 0.4, "zoneout_eval": "expectation"}, False),
    "expected_literal": (
        {"zoneout": 0.4, "zoneout_eval": "expectation", "zoneout_mode": "literal"},
        False,
    ),
}
# batch, steps, hidden, spacing
SHAPES = [(8, 1, 6, 1), (9, 4, 1, 2), (3, 9, 7, 4), (2, 21, 33, 5), (1, 40, 97, 16)]


def layer(pooling, hidden, **more):
    return ModelSpec(input_size=1, hidden_size=hidden, kernel_width=1, pooling=pooling, **more)


def lengths_of(batch, steps):
    return np.maximum(1, steps * np.arange(batch, 0, -1) // (batch + 1))


def check(case, **how):
    given, wanted = compiled(case, **how), expected(case)
    for name in ("c", "dc", "dbias"):
        assert distance(given[name], wanted[name]) <= EXACT[case.dtype], name
    for name in ("y", "dpre"):
        assert distance(given[name], wanted[name]) <= STORED[case.dtype], name


@pytest.mark.parametrize("dtype", EXACT)
@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("pooling", POOLINGS)
def test_values_and_gradients_equal_the_oracle(pooling, zone, dtype):
    more, training = ZONES[zone]
    for batch, steps, hidden, spacing in SHAPES:
        spec = layer(pooling, hidden, **more)
        for reverse in (False, True):
            for lengths in (None, lengths_of(batch, steps)):
                case = draw(
                    spec, dtype, batch, steps, lengths=lengths, reverse=reverse, training=training
                )
                check(case, spacing=spacing, chunk=2 * spacing, ragged=lengths is not None)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("lengths", [None, [50, 3, 23]])
def test_chunks_give_the_bits_of_one_pass(reverse, lengths):
    spec = layer("ifo", 40, zoneout=0.3)
    case = draw(spec, "float32", 3, 50, lengths=lengths, reverse=reverse, training=True)
    whole, parts = (compiled(case, chunk=chunk, spacing=8) for chunk in (None, 8))
    for name in ("y", "c", "dpre", "dc"):
        np.testing.assert_array_equal(parts[name], whole[name], err_msg=name)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("hidden", [320, 97])
def test_one_to_eight_threads_give_equal_bits(hidden, dtype):
    if sys.platform == "linux":
        assert native._fork() is not None, "no OpenMP runtime found: the threads are not tested"
    spec = layer("ifo", hidden, zoneout=0.2)
    case = draw(spec, dtype, 5, 64, training=True)
    one = compiled(case, chunk=32, spacing=16, threads=1)
    for threads in range(2, 9):
        many = compiled(case, chunk=32, spacing=16, threads=threads)
        for name, value in one.items():
            np.testing.assert_array_equal(many[name], value, err_msg=f"{name} {threads}")


def special(values, pooling="ifo", dtype="float32"):
    """A case of one step whose gate sums are all combinations of `values`, without bias."""
    gates = len(layer(pooling, 1).gates)
    grid = np.stack(np.meshgrid(*[values] * gates), -1).reshape(-1, len(values), gates)
    # A unit per value, the rest over the batch: the oracle's weights grow with the units' square.
    case = draw(layer(pooling, len(values)), dtype, len(grid), 1)
    case.bias[:] = 0
    case.pre[0] = grid.transpose(0, 2, 1).reshape(len(grid), -1)
    return case


@pytest.mark.parametrize("pooling", POOLINGS)
def test_huge_and_infinite_gate_sums_saturate_as_in_the_oracle(pooling):
    case = special([0.0, 1e30, -1e30, np.inf, -np.inf, 89.0, -89.0, 1e-30], pooling)
    given, wanted = compiled(case), expected_of_special(case)
    for name in ("y", "c"):
        np.testing.assert_allclose(given[name], wanted[name], rtol=1e-6, atol=1e-37, err_msg=name)
    assert np.isfinite(given["dpre"]).all()


def expected_of_special(case):
    # The oracle multiplies gate sums by weights of 0 and 1: an infinity there would give NaN.
    case.pre = np.clip(case.pre, -1e35, 1e35)
    return expected(case)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_nan_stays_in_its_own_channel_and_reaches_every_later_step(dtype):
    case = draw(layer("fo", 40), dtype, 2, 12)
    for gate in range(3):
        poisoned = draw(layer("fo", 40), dtype, 2, 12)
        poisoned.pre[5, 1, gate * 40 + 17] = np.nan
        given, clean = compiled(poisoned), compiled(case)
        wrong = np.isnan(given["y"])
        assert wrong[5, 1, 17]
        assert wrong[6:, 1, 17].all() == (gate < 2)  # o acts on its own step only
        wrong[5:, 1, 17] = False
        assert not wrong.any()
        given["y"][5:, 1, 17] = clean["y"][5:, 1, 17]
        np.testing.assert_array_equal(given["y"], clean["y"])


def test_denormal_states_and_sums_are_kept():
    case = special([1e-40, -1e-40])
    case.c[:] = 3e-40
    given = compiled(case)
    np.testing.assert_allclose(given["c"], expected(case)["c"], rtol=1e-2)
    assert (given["c"] != 0).all()


def test_small_gate_sums_keep_their_digits():
    case = special([1e-5, -3e-4, 2e-3])
    case.c[:] = 0
    np.testing.assert_allclose(compiled(case)["c"], expected(case)["c"], rtol=1e-6)


def test_held_units_keep_their_state_to_the_bit():
    case = draw(layer("fo", 200, zoneout=0.5), "float32", 2, 1, training=True)
    from impls import reference
    from tests.pooling import SEED

    held = reference.hold_mask(case.spec, SEED, case.rows, case.t0, 1, 2, "fwd")[0]
    assert held.any()
    assert (~held).any()
    after = compiled(case)["c"]
    np.testing.assert_array_equal(after[held], case.c[held])
    assert (after != case.c)[~held].all()


def test_loading_and_running_change_no_floating_point_mode():
    code = (
        "import numpy as np; from impls.contract import ModelSpec\n"
        "from tests.pooling import compiled, draw\n"
        "small = np.float32(1e-38)\n"
        "assert small * np.float32(1e-3) != 0\n"
        "compiled(draw(ModelSpec(input_size=1, hidden_size=300), 'float32', 4, 30), threads=2)\n"
        "assert small * np.float32(1e-3) != 0, 'denormals are flushed'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


FAKE = """#!/bin/sh
case "$*" in *--version*) echo "fake 1.0"; exit 0;; esac
sleep {seconds}
{body}
"""
COPY = 'while [ "$1" != -o ]; do source=$1; shift; done; cp "$source" "$2"'


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Puts a compiler of one's own into CXX and the cache into an empty folder."""
    monkeypatch.setenv("QUASIBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(build.tempfile, "tempdir", str(tmp_path))

    def make(body=COPY, seconds=0, name="compiler"):
        path = tmp_path / name
        path.write_text(FAKE.format(body=body, seconds=seconds))
        path.chmod(0o755)
        monkeypatch.setenv("CXX", str(path))
        return path

    return make


def test_no_compiler_is_one_line_that_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(build.CompilerMissing, match=r"no C\+\+ compiler found.*install") as caught:
        build.shared_object()
    assert "\n" not in str(caught.value)
    native.lacking.cache_clear()
    assert native.lacking() == str(caught.value)
    native.lacking.cache_clear()


def test_a_compiler_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler -O1")
    with pytest.raises(build.CompilerMissing, match=r"no-such-compiler.*unset it"):
        build.shared_object()


def test_a_broken_compiler_is_named_with_its_own_words(fake, tmp_path):
    fake('echo "x: note" >&2; echo "fatal error: no headers" >&2; exit 1')
    with pytest.raises(build.CompilerMissing, match=r"fatal error: no headers.*install"):
        build.shared_object()
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_flag_that_the_compiler_does_not_know_is_left_out(fake):
    fake('case "$*" in *-march*|*-mcpu*) exit 1;; esac; ' + COPY)
    assert build.shared_object().exists()


def test_an_object_is_built_once_and_found_again(fake, tmp_path):
    fake(COPY + f"; echo x >> {tmp_path}/log")
    assert build.shared_object() == build.shared_object()
    assert (tmp_path / "log").read_text() == "x\n"


def test_a_half_written_object_is_not_loaded_but_made_again(fake):
    fake()
    path = build.shared_object()
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert build.shared_object().read_bytes() == whole


def test_another_compiler_makes_another_object(fake):
    fake(name="one")
    first = build.shared_object()
    fake(name="two")
    assert build.shared_object() != first


def test_two_processes_that_build_at_once_both_get_a_whole_object(fake, tmp_path):
    fake(seconds=0.3)
    code = "from impls.kernels import build; print(build.shared_object())"
    running = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=os.environ)
        for _ in range(2)
    ]
    paths = {process.communicate()[0].decode().strip() for process in running}
    assert [process.returncode for process in running] == [0, 0]
    (path,) = paths
    assert [found.name for found in (tmp_path / "cache").iterdir()] == [os.path.basename(path)]


def test_threads_that_build_at_once_get_the_same_object(fake):
    fake(seconds=0.1)
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(build.shared_object())) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3
    assert len(set(found)) == 1


def test_a_cache_that_cannot_be_written_is_replaced_by_a_temporary_one(fake, tmp_path, monkeypatch):
    fake()
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("QUASIBENCH_CACHE", str(tmp_path / "file" / "cache"))
    path = build.shared_object()
    assert path.parent.parent == tmp_path
    assert path.parent.name.startswith("quasibench-")


def test_an_object_in_a_read_only_cache_is_used(fake, monkeypatch):
    fake()
    path = build.shared_object()

    def refused(*args, **more):
        raise PermissionError("read-only")

    monkeypatch.setattr(build.tempfile, "mkstemp", refused)
    assert build.shared_object() == path
    path.unlink()
    with pytest.raises(build.CompilerMissing, match="set QUASIBENCH_CACHE"):
        build.shared_object()


def test_an_object_with_another_interface_is_refused(fake, monkeypatch):
    fake('echo "not an object" > /dev/null; ' + COPY)
    native.kernels.cache_clear()
    with pytest.raises(build.CompilerMissing, match="cannot be loaded"):
        native.kernels()
    native.kernels.cache_clear()
