"""A package from outside is listed, checked and judged like this project's own implementations."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import impls
from harness.conformance import CHECKS, covering_set, parametrize_with_checks, run_checks
from impls.contract import Implementation

FOREIGN = Path(__file__).parent / "foreign"


@pytest.fixture
def foreign(monkeypatch):
    """The foreign folder on the path, as `pip install` would put it."""
    monkeypatch.syspath_prepend(str(FOREIGN))
    impls._foreign.cache_clear()
    yield impls
    impls._foreign.cache_clear()


def by_status(rows):
    found = {}
    for row in rows:
        found.setdefault(row["status"], []).append(row)
    return found


def test_the_suite_of_the_readme_passes_for_the_example_of_the_readme(foreign):
    """What `prepare` does not offer is skipped, with its reason; nothing fails."""
    found = Counter()
    for param in parametrize_with_checks(["minigru"]).args[1]:
        try:
            param.values[0]()
            found["passed"] += 1
        except pytest.skip.Exception as skipped:
            found[str(skipped)] += 1
    assert found == {"passed": 20, "minigru has no train_step and no variable lengths": 4}


def test_names_list_the_entry_points_of_an_installed_package():
    code = "import impls, sys; print(*impls.names()); sys.exit('torch' in sys.modules)"
    root = str(Path(impls.__file__).parents[1])
    for path, there in ((f"{root}{os.pathsep}{FOREIGN}", True), (root, False)):
        found = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        assert ({"minigru", "numpy_qrnn"} <= set(found)) == there
        assert len(found) > 2 * there


def test_a_foreign_qrnn_passes_the_checks_against_the_oracle(foreign):
    rows = by_status(run_checks(foreign.get("numpy_qrnn"), ("float32", "float64"), covering_set()))
    assert [row["message"] for row in rows.get("failed", [])] == []
    passed = {row["check"] for row in rows["passed"]}
    assert {"values_equal_oracle", "states_equal_oracle", "long_stream_equals_sequence"} <= passed
    assert {"taps_are_in_order", "causality", "steps_equal_sequence"} <= passed


def test_a_kind_of_work_that_prepare_does_not_offer_is_unsupported(foreign):
    rows = list(run_checks(foreign.get("numpy_qrnn"), ("float32",), covering_set()))
    plain = [r for r in rows if r["case"] == "fo-2" and r["check"] == "gradients_equal_oracle"]
    assert Counter(row["status"] for row in plain) == {"unsupported": 1}
    assert plain[0]["message"] == "numpy_qrnn has no gradients and no variable lengths"


def test_a_foreign_family_passes_the_checks_that_need_no_oracle(foreign):
    pytest.importorskip("torch")
    rows = by_status(run_checks(foreign.get("minigru"), ("float32", "float64"), covering_set()))
    assert [row["message"] for row in rows.get("failed", [])] == []
    passed = {row["check"] for row in rows["passed"]}
    assert passed >= {
        "stream_equals_sequence",
        "steps_equal_sequence",
        "causality",
        "batch_independence",
        "repeatability",
        "gradient_repeatability",
        "finite_differences",
        "long_stream_equals_sequence",
    }
    assert not any(CHECKS[name].needs_oracle for name in passed)


def test_a_wrong_gradient_of_a_foreign_family_is_found(foreign):
    pytest.importorskip("torch")
    card = foreign.get("minigru")

    def load(spec, params, placement):
        session = card.load(spec, params, placement)
        prepare = session.prepare

        def wrong(work):
            run = prepare(work)
            result = run.result
            run.result = lambda: {
                name: value * (1.1 if name == "grad.n" else 1.0) for name, value in result().items()
            }
            return run

        session.prepare = wrong
        return session

    bad = Implementation("bad", "", ("torch",), card.unsupported, load, "minigru", card.init)
    failed = by_status(run_checks(bad, ("float32", "float64"), covering_set()))["failed"]
    assert {row["check"] for row in failed} == {"finite_differences"}
    assert {row["quantity"] for row in failed} == {"grad.n"}
