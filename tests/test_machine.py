"""The fingerprint says what the machine is and not whose; keys change when results would."""

import getpass
import json
import os
import platform
import re
import socket
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import impls
from harness.errors import UsageError
from harness.machine import identity, system
from impls.contract import Implementation


@pytest.fixture
def own(tmp_path, monkeypatch):
    """An implementations folder of its own with two small cards, and a function that edits it."""
    home = tmp_path / "impls"
    for path in ("contract.py", "params.py", "_torch/ops.py", "_jax/ops.py", "a/__init__.py",
                 "a/core.py", "b/__init__.py"):  # fmt: skip
        (home / path).parent.mkdir(parents=True, exist_ok=True)
        (home / path).write_text(path)
    monkeypatch.setattr(impls, "__file__", str(home / "__init__.py"))
    requires = {"a": ("torch",), "b": ()}
    monkeypatch.setattr(identity, "_requires", requires.__getitem__)
    monkeypatch.setattr(impls, "origin", lambda name: f"impls.{name}")
    return home


def test_fingerprint_is_plain_json_and_its_hash_stable():
    one, again = identity.fingerprint(1), identity.fingerprint(1)
    assert json.loads(json.dumps(one)) == one
    assert identity.fingerprint_hash(one) == identity.fingerprint_hash(again)
    assert re.fullmatch("[0-9a-f]{12}", identity.fingerprint_hash(one))


def test_hash_covers_the_threads_but_not_the_load():
    one, two = identity.fingerprint(1), identity.fingerprint(2)
    assert identity.fingerprint_hash(one) != identity.fingerprint_hash(two)
    one["recorded"]["load"] = 99.0
    assert identity.fingerprint_hash(one) == identity.fingerprint_hash(identity.fingerprint(1))


def test_hash_covers_inherited_settings_without_their_paths(monkeypatch):
    before = identity.fingerprint_hash(identity.fingerprint(1))
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=/home/someone/x --xla_cpu_fast=true")
    found = identity.fingerprint(1)
    assert identity.fingerprint_hash(found) != before
    shown = found["comparable"]["environment"]["XLA_FLAGS"]
    assert shown == "--xla_dump_to=<path> --xla_cpu_fast=true"


def test_thread_count_variables_of_the_caller_do_not_matter(monkeypatch):
    before = identity.fingerprint_hash(identity.fingerprint(1))
    monkeypatch.setenv("OMP_NUM_THREADS", "17")
    assert identity.fingerprint_hash(identity.fingerprint(1)) == before


def test_fingerprint_names_no_user_host_path_or_address():
    found = identity.fingerprint(1)
    found["comparable"]["cuda_libraries"] = {}  # versions of four numbers
    text = json.dumps(found)
    assert str(Path.home()) not in text
    assert str(Path.cwd()) not in text
    assert not re.search(r"\b\d+\.\d+\.\d+\.\d+\b", text.replace(platform.release(), ""))
    words = re.findall(r'"((?:[^"\\]|\\.)*)"', text)
    assert not [word for word in words if word.startswith("/")]
    for secret in (socket.gethostname(), getpass.getuser()):
        assert secret not in words


def test_host_is_a_hash_of_its_name(monkeypatch):
    before = identity.host_id()
    monkeypatch.setattr(platform, "node", lambda: "another")
    assert identity.host_id() != before
    assert "another" not in identity.host_id()


def test_versions_are_read_without_importing():
    assert identity.framework_version("no_such_module") is None
    assert identity.framework_version("_pytest") == pytest.__version__
    import numpy

    assert identity.framework_version("numpy") == numpy.__version__


def test_source_hash_covers_folder_framework_and_contract(own):
    before = identity.source_hash("a")
    assert re.fullmatch("[0-9a-f]{64}", before)
    seen = {before}
    for path in ("a/core.py", "_torch/ops.py", "contract.py", "params.py"):
        (own / path).write_text("changed")
        seen.add(identity.source_hash("a"))
    assert len(seen) == 5
    (own / "a" / "new.cpp").write_text("x")
    assert identity.source_hash("a") not in seen


def test_source_hash_covers_the_folders_that_a_card_shares(own, monkeypatch):
    shared = own / "kernels" / "pool.h"
    shared.parent.mkdir()
    shared.write_text("one")
    alone = identity.source_hash("a")
    monkeypatch.setattr(identity, "_shares", {"a": ("kernels",), "b": ()}.__getitem__)
    before = identity.source_hash("a"), identity.source_hash("b")
    assert before[0] != alone
    shared.write_text("two")
    assert identity.source_hash("a") != before[0]
    assert identity.source_hash("b") == before[1]


def test_source_hash_covers_what_the_parts_compute_where_a_card_offers_them(own, monkeypatch):
    (own / "parts.py").write_text("one")
    offering = Implementation("a", "", (), lambda *_: None, None, parts={"gemm": None})
    cards = {"a": offering, "b": replace(offering, name="b", parts={})}
    monkeypatch.setattr(identity, "_card", cards.__getitem__)
    before = identity.source_hash("a"), identity.source_hash("b")
    (own / "parts.py").write_text("two")
    assert identity.source_hash("a") != before[0]
    assert identity.source_hash("b") == before[1]


def test_stale_key_moves_when_a_compiler_comes_and_asks_for_it_once(own, monkeypatch):
    asked = []

    def key(reason):
        identity._lacks_tools.cache_clear()
        card = Implementation("a", "", (), lambda *_: None, None)
        card = replace(card, lacking=lambda: asked.append(1) or reason)
        monkeypatch.setattr(identity, "_card", {"a": card}.__getitem__)
        monkeypatch.setattr(identity, "_requires", {"a": ()}.__getitem__)
        return {identity.stale_key("a", "f" * 12, 1) for _ in range(3)}

    without, other, there = key("no g++ in place one"), key("no g++ in place two"), key(None)
    identity._lacks_tools.cache_clear()
    assert len(without) == len(there) == 1
    assert without == other != there
    assert len(asked) == 3, "once for each of three worlds"


def test_source_hash_ignores_others_and_compiled_files(own):
    before = identity.source_hash("a"), identity.source_hash("b")
    (own / "_jax" / "ops.py").write_text("changed")
    (own / "a" / "__pycache__").mkdir()
    (own / "a" / "__pycache__" / "core.cpython-311.pyc").write_text("x")
    assert (identity.source_hash("a"), identity.source_hash("b")) == before
    (own / "a" / "core.py").write_text("changed")
    assert identity.source_hash("a") != before[0]
    assert identity.source_hash("b") == before[1]


def test_source_hash_of_a_foreign_package_is_that_of_its_files(tmp_path, own, monkeypatch):
    package = tmp_path / "foreign_cells"
    package.mkdir()
    (package / "__init__.py").write_text("card = 1")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(impls, "origin", lambda name: "foreign_cells.card")
    before = identity.source_hash("b")
    (package / "core.py").write_text("x")
    assert identity.source_hash("b") != before
    assert "foreign_cells" not in sys.modules


def test_stale_key_moves_with_machine_source_version_absence_and_threads(own, monkeypatch):
    def key(machine_hash="f" * 12, threads=1, version="0.1", absent=False):
        monkeypatch.setattr(identity, "framework_version", lambda name: version)
        monkeypatch.setattr(impls, "absent", lambda name: absent)
        return identity.stale_key("a", machine_hash, threads)

    base = key()
    assert re.fullmatch("[0-9a-f]{16}", base)
    assert key() == base
    others = [key(machine_hash="e" * 12), key(threads=2), key(version="0.2"), key(absent=True)]
    (own / "a" / "core.py").write_text("changed")
    others.append(key())
    assert len({base, *others}) == 6


def test_the_framework_of_another_implementation_does_not_matter(own, monkeypatch):
    before = identity.stale_key("b", "f" * 12, 1)
    monkeypatch.setattr(identity, "framework_version", lambda name: "0.1")
    assert identity.stale_key("b", "f" * 12, 1) == before


def test_all_threads_are_the_cores_of_this_process():
    cores = identity.thread_count("all")
    assert cores >= 1
    assert identity.thread_count(1) == 1
    with pytest.raises(UsageError, match=f"threads = {cores + 1}: .*at most {cores}"):
        identity.thread_count(cores + 1)


@pytest.mark.parametrize(
    ("limit", "cores"), [("max 100000", 8), ("250000 100000", 2), ("50000 100000", 1), (None, 8)]
)
def test_cores_respect_affinity_and_quota(monkeypatch, limit, cores):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr(system, "text", lambda path: limit)
    assert system.cores() == cores


def test_a_system_that_says_nothing_still_has_a_fingerprint(monkeypatch):
    """As on a system without /proc, /sys and the commands that are asked instead."""
    monkeypatch.setattr(system, "text", lambda path: None)
    monkeypatch.setattr(system, "run", lambda *words: "")
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.delattr(os, "getloadavg", raising=False)
    monkeypatch.delattr(os, "sysconf", raising=False)
    system.gpus.cache_clear()
    found = identity.fingerprint(1)
    system.gpus.cache_clear()
    assert found["comparable"]["cores"] >= 1
    assert found["recorded"]["load"] is None
    assert found["recorded"]["memory_bytes"] is None


def test_gpus_are_read_from_nvidia_smi(monkeypatch):
    line = "NVIDIA H100, 81559 MiB, 580.1, 9.0, Disabled, Enabled, Enabled, 700.00 W, 1980 MHz"
    monkeypatch.setattr(system, "run", lambda *words: f"{line}\n{line}\n")
    system.gpus.cache_clear()
    found = system.gpus()
    system.gpus.cache_clear()
    assert len(found) == 2
    assert found[0]["device"]["name"] == "NVIDIA H100"
    assert found[0]["device"]["compute_cap"] == "9.0"
    assert found[0]["settings"]["clocks.max.sm"] == "1980 MHz"


def test_a_process_is_known_by_its_start_time():
    assert system.process_started(os.getpid()) == system.process_started(os.getpid())
    assert system.process_started(os.getpid()) is not None
    assert system.process_started(2**22 + 5) is None
