"""What the registry of implementations says when something is unknown, broken or not installed."""

import importlib
import sys
from dataclasses import replace
from importlib.metadata import EntryPoint

import pytest

import impls
from impls.contract import Implementation


def card(name="mine", requires=()):
    def never(*_):
        raise AssertionError("looking at a card must not run it")

    return Implementation(name, "a test", requires, never, never)


@pytest.fixture
def foreign(monkeypatch):
    """Makes the registry see one entry point."""

    def see(name, value):
        point = EntryPoint(name, value, impls.GROUP)
        monkeypatch.setattr(impls, "_foreign", lambda: {name: point})

    return see


def test_the_oracle_and_private_folders_are_no_implementations():
    assert not [name for name in impls.names() if name == "reference" or name.startswith("_")]


def test_an_unknown_name_offers_the_nearest(foreign):
    foreign("lstm_foreign", "nowhere:card")
    with pytest.raises(impls.UnknownImplementation, match=r"did you mean .*lstm_foreign") as error:
        impls.get("lstm_foregin")
    assert str(error.value).startswith("unknown implementation 'lstm_foregin'; ")
    assert "(known: " in str(error.value)
    with pytest.raises(impls.UnknownImplementation) as error:
        impls.get("qqqqqqqq")
    assert "did you mean" not in str(error.value)


def test_an_entry_point_that_cannot_be_imported_says_which_and_why(foreign):
    foreign("broken", "no_such_module:card")
    with pytest.raises(
        impls.BrokenImplementation,
        match=r"'broken' cannot be loaded from no_such_module: ModuleNotFoundError: No module",
    ):
        impls.get("broken")


def test_an_entry_point_that_raises_or_is_no_card_is_broken(foreign, monkeypatch, tmp_path):
    (tmp_path / "quasibench_raises.py").write_text("card = 1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    foreign("raises", "quasibench_raises:card")
    with pytest.raises(impls.BrokenImplementation, match="ZeroDivisionError: division by zero"):
        impls.get("raises")
    foreign("no_card", "math:pi")
    with pytest.raises(impls.BrokenImplementation, match=r"math must offer .* named 'no_card', it"):
        impls.get("no_card")


def test_a_card_under_another_name_is_refused_and_its_own_is_found(foreign, monkeypatch):
    monkeypatch.setitem(sys.modules, "quasibench_fine", type(sys)("quasibench_fine"))
    sys.modules["quasibench_fine"].card = card("mine")
    foreign("yours", "quasibench_fine:card")
    with pytest.raises(impls.BrokenImplementation, match="named 'yours'"):
        impls.get("yours")
    foreign("mine", "quasibench_fine:card")
    assert impls.get("mine").name == "mine"
    assert impls.origin("mine") == "quasibench_fine"
    assert "mine" in impls.names()


def test_a_blocked_framework_is_missing_with_the_way_to_get_it(monkeypatch):
    for blocked in ("torch", "jax"):
        monkeypatch.setitem(sys.modules, blocked, None)  # any import of it now fails
    assert impls.missing(card(requires=("torch",))) == (
        "torch not installed: pip install 'quasibench[torch]'"
    )
    both = impls.missing(card(requires=("torch", "jax", "numpy")))
    assert both.startswith("torch, jax not installed: ")
    assert "'quasibench[torch]'" in both
    assert "'quasibench[jax]'" in both
    assert impls.missing(card(requires=("quasibench_not_there",))) == (
        "quasibench_not_there not installed: pip install quasibench_not_there"
    )


def test_nothing_is_missing_where_all_is_there_and_looking_imports_nothing(monkeypatch, tmp_path):
    (tmp_path / "quasibench_lazy.py").write_text("raise RuntimeError('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    assert impls.missing(card(requires=("numpy", "quasibench_lazy"))) is None
    assert "quasibench_lazy" not in sys.modules


def test_a_card_may_lack_something_that_is_no_module():
    lacking = replace(card(), lacking=lambda: "no compiler: install one")
    assert impls.missing(lacking) == "no compiler: install one"
    assert impls.missing(replace(lacking, lacking=lambda: None)) is None
    absent = impls.missing(replace(lacking, requires=("no_such_module",)))
    assert "no_such_module not installed" in absent
