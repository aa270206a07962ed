"""torch_compile and torch_compile_loop: what they compute, and that nothing compiles in a clock."""

import sys
from dataclasses import replace

import pytest

import impls
from harness.conformance import covering_set, run_checks
from impls.contract import ModelSpec, Placement
from tests.torch_works import TOLERANCE, check_against_oracle, load, parameters, run, work

torch = pytest.importorskip("torch")
NAMES = ("torch_compile", "torch_compile_loop")
for name in NAMES:
    if reason := impls.missing(impls.get(name)):
        pytest.skip(reason, allow_module_level=True)

from impls._torch import compiled, toolchain  # noqa: E402

LAYER = ModelSpec(input_size=5, hidden_size=7)
STACK = replace(LAYER, pooling="ifo", kernel_width=3, layers=2, dense=True, bidirectional=True)


@pytest.fixture
def quick(monkeypatch):
    """Traced as always, but the graph is run as it is instead of compiled."""
    monkeypatch.setattr(compiled, "compile_fx", lambda graph, examples, **_: graph.forward)


def graphs():
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


def test_the_compiled_operator_gives_the_oracles_values_states_and_gradients():
    spec = replace(LAYER, zoneout=0.4, kernel_width=3)
    check_against_oracle("torch_compile", spec, seed=(1 << 63) + 5)


@pytest.mark.slow  # the C++ compiler takes half a minute; the traced loop is checked below
def test_the_compiled_loop_gives_the_oracles_values_and_states():
    """Its C++ takes seconds to compile; gradients and longer loops are slow tests."""
    check_against_oracle("torch_compile_loop", LAYER, kind="forward", steps=3)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("kind", ["forward", "backward", "train_step"])
@pytest.mark.parametrize("name", NAMES)
def test_every_kind_of_work_equals_the_oracle(quick, name, kind, dtype):
    check_against_oracle(name, replace(LAYER, zoneout=0.2), dtype, kind=kind, seed=11)


@pytest.mark.parametrize("kind", ["forward", "backward", "train_step", "step"])
@pytest.mark.parametrize("name", NAMES)
def test_prepare_makes_one_graph_and_no_call_makes_another(quick, name, kind):
    before = graphs()
    given = work(LAYER, kind, steps=1 if kind == "step" else 6, seed=3)
    prepared = load(name, LAYER, parameters(LAYER)).prepare(given)
    assert graphs() == before + 1
    for _ in range(3):
        prepared()
    prepared.result()
    assert graphs() == before + 1


@pytest.mark.parametrize("name", NAMES)
def test_a_call_that_would_compile_again_raises(quick, name):
    prepared = load(name, LAYER, parameters(LAYER)).prepare(work(LAYER, "forward"))
    prepared._inputs = replace(prepared._inputs, x=prepared._inputs.x[:5].clone())
    with pytest.raises(RuntimeError, match="would compile again while this work runs"):
        prepared()


def test_more_works_than_torch_compile_allows_recompilations_keep_their_graphs(quick):
    session = load("torch_compile", LAYER, parameters(LAYER))
    runs = [session.prepare(work(LAYER, "forward", steps=n)) for n in range(2, 14)]
    before = graphs()
    for steps, prepared in enumerate(runs, 2):
        prepared()
        assert len(prepared.result()["y"]) == steps
    assert len(runs) > torch._dynamo.config.recompile_limit
    assert graphs() == before


def test_a_pass_that_breaks_the_graph_is_refused_instead_of_run_in_part(quick, monkeypatch):
    from impls.torch_eager import core

    def broken(*args):
        torch._dynamo.graph_break()
        return pool(*args)

    pool = core.pool
    monkeypatch.setattr(core, "pool", broken)
    with pytest.raises(torch._dynamo.exc.Unsupported):
        run(load("torch_compile_loop", LAYER, parameters(LAYER)), work(LAYER, "forward"))


def test_where_torch_compile_is_switched_off_nothing_is_timed_eagerly():
    with torch._dynamo.config.patch(disable=True):
        session = load("torch_compile", LAYER, parameters(LAYER))
        with pytest.raises(RuntimeError, match=r"compiled nothing|found no compiled frames"):
            session.prepare(work(LAYER, "forward"))


def test_a_loop_of_too_many_steps_is_unsupported():
    spec = replace(LAYER, layers=2)
    session = load("torch_compile_loop", spec, parameters(spec))
    with pytest.raises(NotImplementedError, match=r"258 steps .* at most 256; use torch_compile"):
        session.prepare(work(spec, "forward", steps=129))


def test_what_is_missing_is_said_in_one_line(monkeypatch, tmp_path):
    card = impls.get("torch_compile_loop")
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert "CXX names 'no-such-compiler'" in impls.missing(card)
    monkeypatch.setenv("CXX", f"{sys.executable} -m cc")
    assert "torch.compile takes one program without arguments" in impls.missing(card)
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "no C++ compiler found" in impls.missing(card)
    monkeypatch.undo()
    monkeypatch.setattr(toolchain.sysconfig, "get_paths", lambda: {"include": str(tmp_path)})
    assert "apt-get install python3-dev" in impls.missing(card)


@pytest.mark.parametrize("name", NAMES)
def test_the_cards_say_what_they_do_not_compute(name):
    card = impls.get(name)
    assert card.compiles
    assert "'lstm'" in card.unsupported(ModelSpec(family="lstm"), Placement())
    assert card.unsupported(STACK, Placement(dtype="bfloat16")) is None


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", NAMES)
def test_conformance(name, dtype):
    rows = list(run_checks(impls.get(name), (dtype,), covering_set()))
    wrong = [row for row in rows if row["status"] not in ("passed", "unsupported")]
    assert [row["message"] for row in wrong] == []
    unrolled = {row["case"] for row in rows if row["status"] == "unsupported"}
    assert unrolled <= ({"long"} if name == "torch_compile_loop" else set())
