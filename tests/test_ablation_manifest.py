"""The manifest keeps every registered plan and the command that makes its rows again."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import impls
from harness.ablation import accuracy, manifest, rows
from harness.ablation import plan as ablation_plan
from harness.ablation.config import load_ablation, parse, source
from harness.ablation.manifest import Call
from harness.machine import identity
from harness.speed.grid import PROTOCOL_VERSION
from harness.store import RunFolder
from tests.ablating import text, use_fakes, written


@pytest.fixture(autouse=True)
def _fakes(monkeypatch):
    use_fakes(monkeypatch)


def described(out, given, call=None):
    """The manifest's part once a plan was registered, as readers get it."""
    plan = ablation_plan.build(parse(given, "small"))
    with RunFolder.open(out, "ablation-small", PROTOCOL_VERSION) as folder:
        manifest.describe(plan, folder, "fake_net", call or Call("small.toml", given))
    return plan.plan_hash, accuracy.load(out)


def test_a_new_plan_is_added_to_the_list_and_an_old_one_never_lost(tmp_path):
    first, study = described(tmp_path, text())
    assert [one["plan_hash"] for one in study.plans] == [first]
    second, study = described(tmp_path, text(steps=41))
    again, _ = described(tmp_path, text())
    assert again == first != second
    study = accuracy.load(tmp_path)
    assert [one["plan_hash"] for one in study.plans] == [first, second]
    assert [one["registered"]["baseline"]["steps"] for one in study.plans] == [40, 41]
    assert study.registered_at == study.plans[0]["registered_at"]


def test_a_plan_of_a_manifest_without_a_list_is_the_first_of_the_list(tmp_path):
    first, _ = described(tmp_path, text())
    file = tmp_path / "manifest.json"
    old = json.loads(file.read_text())
    for key in ("plans", "command", "call"):
        del old["ablation"][key]
    file.write_text(json.dumps(old))
    study = accuracy.load(tmp_path)
    assert (study.plans, study.command, study.registered_at) == ([], None, None)
    second, study = described(tmp_path, text(steps=41))
    assert [one["plan_hash"] for one in study.plans] == [first, second]
    assert study.plans[0]["registered_at"] == old["created_at"]


def test_the_command_of_a_file_names_it_and_what_was_asked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = written(tmp_path)
    call = Call(str(file), source(str(file))[0], seeds=3, only=["arm=k1,k2"], out=tmp_path / "r")
    words = shlex.split(call.command())
    assert words == [
        *"python -m harness ablate small.toml --seeds 3 --only arm=k1,k2 --out r".split()
    ]
    assert load_ablation(words[4]).name == "small"
    _, study = described(tmp_path / "run", text(), call)
    assert study.command == call.command()
    kept = study.planned["call"]
    assert parse(kept["text"], "small") == load_ablation(str(file))
    assert kept["options"] == {"seeds": 3, "only": ["arm=k1,k2"]}


def test_the_command_of_a_profiles_folder_is_its_run():
    assert Call("quick", "", "torch_native", profile="default").command() == (
        "python -m harness run default"
    )


def test_no_folder_outside_the_working_one_is_named(tmp_path, monkeypatch):
    inside = tmp_path / "work"
    inside.mkdir()
    monkeypatch.chdir(inside)
    file = str(tmp_path / "secret" / "text.txt")
    call = Call("claim", "", data=[f"char_lm={file}"], out=tmp_path / "secret" / "run")
    assert "secret" not in call.command() + json.dumps(call.options())
    assert "--data char_lm=text.txt --out run" in call.command()


def test_a_row_goes_stale_with_every_file_that_a_training_runs(monkeypatch):
    monkeypatch.setattr(rows, "digest", lambda parts, digits: parts)
    hashed = rows.stale_key.__wrapped__("fake_net", "counting")[1]
    assert hashed.keys() == {*rows.TRAINING, "harness/tasks/counting.py"}


WEIGHTLESS = {
    "harness/errors.py", "harness/floors.py", "harness/peak.py", "harness/speed/draws.py",
    "harness/speed/grid.py", "harness/speed/modes.py", "harness/tasks/__init__.py",
    "harness/ablation/budgets.py", "harness/ablation/checkpoint.py",
}  # fmt: skip
"""Loaded beside a training, without a say in its result: words, files, plans, memory."""
ORACLES = {
    f"impls/reference/{name}.py" for name in "attention conv lstm ops qrnn stack zoneout".split()
}
"""Loaded with the package of the one file there that trainings use, philox."""
LOADS = """
import sys
import harness.ablation.train, impls
impls.get(sys.argv[1]).core()
for part in ("trainer", "translator"):
    __import__(f"impls.{sys.argv[2]}.{part}")
print(*(m for m in sys.modules if m.startswith(("impls.", "harness."))))
"""


@pytest.mark.parametrize(("impl", "package"), [("torch_eager", "_torch"), ("jax_scan", "_jax")])
def test_no_file_that_a_training_loads_is_missing_from_its_stale_key(impl, package):
    if why := impls.missing(impls.get(impl)):
        pytest.skip(why)
    words = [sys.executable, "-c", LOADS, impl, package]
    told = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    top = Path(rows.__file__).parents[2]
    names = [module.replace(".", "/") for module in told.split()]
    loaded = {f"{name}.py" for name in names if (top / f"{name}.py").is_file()}
    loaded |= {"harness/tasks/__init__.py"}
    covered = {path.relative_to(top).as_posix() for path in identity.source_files(impl)}
    assert loaded - covered - set(rows.TRAINING) - WEIGHTLESS - ORACLES == set()
    assert loaded >= WEIGHTLESS
