"""The compiled kernels are built once, whole, by any compiler; without one, a line says so."""

import os
import subprocess
import sys
import threading

import pytest

from impls.kernels import build, native

pytestmark = pytest.mark.skipif(
    native.lacking() is not None, reason=f"no working C++ compiler: {native.lacking()}"
)

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
