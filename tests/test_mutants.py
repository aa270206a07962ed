"""Every mistake that public ports made is caught by the check that names it."""

import pytest

import impls
from harness.conformance import (
    CHECKS,
    NETWORK_CHECKS,
    ConformanceError,
    check_finite_differences,
    covering_set,
    run_checks,
)
from impls.contract import Placement
from tests.mutants.base import card
from tests.mutants.networks import NETWORK_MUTANTS, living
from tests.mutants.wrong import MUTANTS

MISTAKES = {1, 2, 3, 4, 5, 7, 8, 9, 10, 11, 12, 13, 14, 15, 19, 20, 21, 22}
NETWORK_MISTAKES = {6, 23, 25}
FLOAT32 = Placement("cpu", "float32")


def failures(implementation, name):
    """What one check says about an implementation, over the covering set."""
    found = []
    for case in covering_set():
        if name in case.checks and CHECKS[name].suits(case.spec, "float32"):
            if implementation.unsupported(case.spec, FLOAT32):
                continue
            try:
                CHECKS[name](implementation, FLOAT32, case)
            except ConformanceError as error:
                found.append(error)
    return found


def assert_caught(implementation, name, words):
    found = failures(implementation, name)
    assert found, f"{implementation.name} is not caught by {name}"
    for error in found:
        assert name == error.check
        assert words in error.claim
        assert words in str(error)
        assert implementation.name in str(error)


def test_every_mistake_of_the_list_has_a_mutant():
    assert {mistake for mistake, *_ in MUTANTS.values()} == MISTAKES
    assert {mistake for mistake, *_ in NETWORK_MUTANTS.values()} - {None} == NETWORK_MISTAKES


def test_the_base_passes_every_check():
    rows = list(run_checks(card(), ("float32", "float64"), covering_set()))
    assert [row["message"] for row in rows if row["status"] == "failed"] == []
    passed = {row["check"] for row in rows if row["status"] == "passed"}
    assert passed == set(CHECKS) - {"finite_differences"}


@pytest.mark.parametrize("name", MUTANTS)
def test_mutant_is_caught_by_name(name):
    _, net, check, words = MUTANTS[name]
    assert_caught(card(net, name), check, words)


@pytest.mark.parametrize("name", MUTANTS)
def test_the_row_of_a_mutant_names_the_claim(name):
    _, net, check, words = MUTANTS[name]
    cases = [case for case in covering_set() if check in case.checks]
    rows = [r for r in run_checks(card(net, name), ("float32",), cases) if r["check"] == check]
    failed = [row for row in rows if row["status"] == "failed"]
    assert failed
    assert all(words in row["claim"] and words in row["message"] for row in failed)


NETWORKS = (
    "torch_eager",
    pytest.param("jax_scan", marks=pytest.mark.slow),
)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("wrong", NETWORK_MUTANTS)
def test_a_wrong_network_is_caught_by_name(name, wrong, monkeypatch):
    implementation = impls.get(name)
    pytest.importorskip(implementation.requires[0])
    *_, check, words = NETWORK_MUTANTS[wrong]
    placement = Placement("cpu", "float64")
    with living(wrong, implementation, monkeypatch) as mutated:
        with pytest.raises(ConformanceError) as found:
            NETWORK_CHECKS[check](mutated, placement)
        assert found.value.check == check
        assert words in found.value.claim
        assert name in str(found.value)
    assert NETWORK_CHECKS[check](implementation, placement).passed


def test_a_mutant_that_is_correct_by_accident_is_noticed():
    _, _, check, words = MUTANTS["taps_reversed"]
    with pytest.raises(AssertionError, match="is not caught by taps_are_in_order"):
        assert_caught(card(name="taps_reversed"), check, words)


def test_finite_differences_see_shifted_gradients_without_an_oracle():
    case = next(case for case in covering_set() if "finite_differences" in case.checks)
    for dtype in ("float32", "float64"):
        placement = Placement("cpu", dtype)
        assert check_finite_differences(card(), placement, case).passed
        wrong = card(MUTANTS["gradients_shifted_by_one_step"][1], "shifted")
        with pytest.raises(ConformanceError, match="central differences"):
            check_finite_differences(wrong, placement, case)
