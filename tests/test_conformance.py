"""The implementations of this project keep every claim of the conformance suite.

The second half tests the suite itself: what it collects, what its messages and rows say.
"""

import math
from dataclasses import replace

import numpy as np
import pytest

import impls
from harness.conformance import (
    CHECKS,
    ConformanceError,
    check_values_equal_oracle,
    covering_set,
    for_family,
    full_product,
    parametrize_with_checks,
    quick_set,
    run_checks,
)
from harness.conformance.check import relative_error, worst
from harness.conformance.tolerances import GRADIENTS, VALUES
from impls.contract import Implementation, ModelSpec, Placement
from tests.mutants.base import Net, card
from tests.mutants.wrong import MUTANTS

OWN = (
    *("jax_associative", "jax_native", "jax_scan", "lstm_jax", "lstm_torch", "torch_eager"),
    *("attention_torch", "conv_torch", "torch_native"),
)
COMPILED_ANEW = ("attention_jax", "conv_jax")
"""Every case is a program of its own here: a minute for the covering set, seconds for these two."""
FLOAT32 = Placement("cpu", "float32")


@parametrize_with_checks(OWN)
def test_conformance(check):
    check()


@parametrize_with_checks(OWN, cases=quick_set(), dtypes=("bfloat16",))
def test_conformance_in_bfloat16(check):
    check()


@parametrize_with_checks(COMPILED_ANEW, cases=quick_set()[:3])
def test_conformance_where_it_costs_much(check):
    check()


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("name", COMPILED_ANEW)
def test_conformance_on_the_covering_set(name, dtype):
    pytest.importorskip("jax")
    rows = run_checks(impls.get(name), (dtype,), covering_set())
    assert [row["message"] for row in rows if row["status"] not in ("passed", "unsupported")] == []


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", OWN)
def test_conformance_on_the_full_product(name, dtype):
    """One test for hundreds of cases: as parameters they would slow down every collection."""
    implementation = impls.get(name)
    for module in implementation.requires:
        pytest.importorskip(module)
    rows = run_checks(implementation, (dtype,), full_product())
    assert [row["message"] for row in rows if row["status"] not in ("passed", "unsupported")] == []


def test_every_check_is_made_somewhere_and_exists():
    made = {name for case in covering_set() for name in case.checks}
    assert made == set(CHECKS)
    assert {name for case in quick_set() for name in case.checks} <= set(CHECKS)


def test_case_names_are_unique():
    for cases in (quick_set(), covering_set(), tuple(full_product())):
        assert len({case.name for case in cases}) == len(cases)


def test_the_full_product_names_each_spec_and_shape_once():
    cases = list(full_product())
    assert len({replace(case, name="") for case in cases}) == len(cases) == 3 * 4 * 3 * 2 * 5 * 2


def test_the_tables_are_those_of_the_definitions():
    for table in (VALUES, GRADIENTS):
        assert dict(table) == {"float32": 2e-6, "bfloat16": 6e-3, "float64": 1e-12}
        with pytest.raises(TypeError):
            table["float32"] = 1.0


def test_an_lstm_is_asked_each_distinct_case_once():
    cases = for_family(covering_set(), "lstm")
    assert len({replace(case, name="", checks=()) for case in cases}) == len(cases)
    assert len(cases) < len(covering_set())


def test_the_message_names_implementation_claim_quantity_dtype_and_case():
    case = covering_set()[0]
    wrong = card(MUTANTS["forget_polarity_flipped"][1], "flipped")
    with pytest.raises(ConformanceError) as caught:
        check_values_equal_oracle(wrong, FLOAT32, case)
    for part in ("flipped", "the output y equals the oracle's", "y is off by", "2e-06", "float32"):
        assert part in str(caught.value)
    assert case.label() in str(caught.value)
    assert caught.value.measured.quantity == "y"


def test_a_missing_a_surplus_and_a_misshapen_result_are_named():
    one = {"y": np.ones((2, 3))}
    assert worst({}, one, 1.0).note == "y is missing"
    assert worst({**one, "extra": one["y"]}, one, 1.0).note.startswith("extra is not a name")
    assert worst({"y": np.ones((3, 2))}, one, 1.0).note == "y has shape (3, 2), it must be (2, 3)"
    assert not worst({"y": np.full((2, 3), np.nan)}, one, 1.0).passed
    assert not worst({}, {}, 1.0).passed


def test_the_error_is_relative_and_absolute_against_zeros():
    assert relative_error(np.array([2.0, 0.0]), np.array([1.0, 0.0])) == 1.0
    assert relative_error(np.array([0.0, 3.0]), np.zeros(2)) == 3.0
    assert relative_error(np.array([np.nan]), np.ones(1)) == math.inf


def test_a_crash_is_a_failed_row_with_its_message():
    class Crash(Net):
        def prepare(self, work):
            raise RuntimeError("the device is on fire")

    rows = list(run_checks(card(Crash, "crash"), ("float32",), quick_set()))
    assert {row["status"] for row in rows} == {"failed"}
    assert all("RuntimeError: the device is on fire" in row["message"] for row in rows)
    assert all(row["error"] is None for row in rows)


def test_rows_of_a_missing_framework_and_of_an_unsupported_dtype():
    absent = Implementation("absent", "", ("no_such_module",), lambda *_: None, Net)
    (row,) = run_checks(absent, ("float32",), quick_set())
    assert row["status"] == "missing"
    assert "no_such_module" in row["message"]
    rows = list(run_checks(card(), ("bfloat16",), quick_set()))
    assert {(row["status"], row["message"]) for row in rows} == {
        ("unsupported", "float32 and float64 only")
    }


def params_of(decorator):
    return decorator.args[1]


def test_only_supported_pairs_are_collected():
    collected = params_of(parametrize_with_checks([card()], dtypes=("float32", "bfloat16")))
    assert collected
    assert all("float32" in param.id for param in collected)
    assert not any(param.values[0].case.spec.dense for param in collected)
    only_forward = params_of(parametrize_with_checks([card()], kinds=("forward",)))
    assert {kind for p in only_forward for kind in p.values[0].check.kinds} == {"forward"}


def test_a_missing_framework_is_one_skip_with_the_reason():
    absent = Implementation("absent", "", ("no_such_module",), lambda *_: None, Net)
    (param,) = params_of(parametrize_with_checks([absent]))
    (mark,) = param.marks
    assert (param.id, mark.name) == ("absent-missing", "skip")
    assert "no_such_module not installed" in mark.kwargs["reason"]


def test_known_gaps_are_strict_and_must_match_something():
    gaps = {"base-float32-*-causality": "a reason"}
    collected = params_of(parametrize_with_checks([card()], expected_failures=gaps))
    marked = [param for param in collected if param.marks]
    assert marked
    for param in marked:
        assert param.values[0].check.name == "causality"
        assert param.marks[0].kwargs == {"strict": True, "reason": "a reason"}
    with pytest.raises(ValueError, match="matches no check"):
        parametrize_with_checks([card()], expected_failures={"base-*-nonsense": "x"})


def test_all_registered_implementations_are_collected_by_default():
    ids = [p.id for p in params_of(parametrize_with_checks(cases=quick_set()[:1]))]
    cards = {name: impls.get(name) for name in impls.names()}
    elsewhere = {  # here, but for another device
        name
        for name, card in cards.items()
        if not impls.missing(card) and card.unsupported(ModelSpec(family=card.family), Placement())
    }
    assert elsewhere <= {"jax_pallas", "jax_cupy", "torch_cupy"}
    assert {identity.split("-")[0] for identity in ids} == set(cards) - elsewhere


def test_what_a_family_does_not_read_makes_no_case_of_its_own():
    for family, unread in (("conv", "pooling"), ("attention", "kernel_width")):
        cases = for_family(covering_set(), family)
        assert len({replace(case, name="", checks=()) for case in cases}) == len(cases)
        assert {getattr(case.spec, unread) for case in cases} == {getattr(ModelSpec, unread)}
        assert {case.spec.zoneout for case in cases} == {0.0}
    assert {case.spec.dilated for case in for_family(covering_set(), "conv")} == {False, True}


def test_checks_that_need_a_carried_state_are_unsupported_for_attention_and_say_why():
    pytest.importorskip("torch")
    asked = [case for case in covering_set() if case.name in ("fo-2", "long")]
    rows = list(run_checks(impls.get("attention_torch"), ("float32",), asked))
    absent = {row["check"]: row["message"] for row in rows if row["status"] == "unsupported"}
    assert set(absent) == {
        *("states_equal_oracle", "stream_equals_sequence", "steps_equal_sequence"),
        "long_stream_equals_sequence",
    }
    assert all("carries no state" in message for message in absent.values())
    assert {row["status"] for row in rows} == {"unsupported", "passed"}


def test_a_foreign_family_starts_from_zero_states():
    assert not any(case.carried for case in for_family(covering_set(), "minigru"))
    assert {case.spec.family for case in for_family(covering_set(), "minigru")} == {"minigru"}
