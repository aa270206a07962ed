"""`quasibench check NAME --networks`: whole networks and training curves reach a user's command."""

import json
from dataclasses import replace

import pytest

import impls
from harness import conformance, network_proofs
from harness.cli import main
from harness.conformance import NETWORK_CHECKS
from harness.lessons import lessons
from impls.contract import Placement
from tests.mutants.networks import living

SHORT = [replace(lesson, steps=2) for lesson in lessons() if lesson.name == "sgd"]


@pytest.fixture
def layers_left_out(monkeypatch):
    """Of the command's checks those of networks alone, and one short lesson."""
    monkeypatch.setattr(conformance, "run_checks", lambda *_: iter(()))
    monkeypatch.setattr(network_proofs, "lessons", lambda: SHORT)


def test_check_networks_prints_every_claim_and_the_training_curves(
    layers_left_out, capsys, tmp_path
):
    pytest.importorskip("torch")
    pytest.importorskip("optax")
    path = tmp_path / "rows.jsonl"
    words = ["check", "torch_eager", "--networks", "--dtype", "float64", "--jsonl", str(path)]
    assert main(words) == 0
    out = capsys.readouterr().out
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["check"] for row in rows] == [*NETWORK_CHECKS, "trains_alike"]
    assert {row["impl"] for row in rows} == {"torch_eager"}
    assert rows[-1]["against"] == "jax_scan"
    assert {row["status"] for row in rows} == {"passed"}
    assert all(row["check"] in out for row in rows)
    assert f"torch_eager: {len(rows)} passed" in out


def test_check_without_networks_asks_no_trainer(layers_left_out, monkeypatch, capsys):
    pytest.importorskip("torch")
    monkeypatch.setattr(network_proofs, "run", lambda *_: 1 / 0)
    assert main(["check", "torch_eager", "--dtype", "float64"]) == 0
    assert "torch_eager: 0 passed" in capsys.readouterr().out


def test_a_wrong_network_fails_the_command_and_is_named(layers_left_out, monkeypatch, capsys):
    pytest.importorskip("torch")
    get = impls.get
    with living("attention_over_padding", get("torch_eager"), monkeypatch) as wrong:
        monkeypatch.setattr(
            impls, "get", lambda name: wrong if name == "torch_eager" else get(name)
        )
        monkeypatch.setattr(network_proofs, "lessons", tuple)
        assert main(["check", "torch_eager", "--networks", "--dtype", "float32"]) == 1
    claim = NETWORK_CHECKS["attention_ignores_padding"].claim
    assert f"FAILED torch_eager: {claim}" in capsys.readouterr().out


def test_what_has_no_partner_or_no_core_is_unsupported_with_the_reason(monkeypatch):
    pytest.importorskip("torch")
    card, other = impls.get("torch_eager"), impls.get("lstm_torch")
    dull = replace(card, name="dull", core=None)
    told = list(network_proofs.run(dull, ["float32"], chosen=SHORT))
    assert {row["status"] for row in told} == {"unsupported"}
    assert all("offers no core" in row["message"] for row in told)
    monkeypatch.setattr(impls, "names", lambda: ["torch_eager"])
    monkeypatch.setattr(network_proofs, "PLAIN", ())
    alone = list(network_proofs.run(card, ["float32"], chosen=SHORT))[-1]
    assert alone["status"] == "unsupported"
    assert "no qrnn core of another framework is here" in alone["message"]
    lstm = list(network_proofs.run(other, ["bfloat16"], chosen=SHORT))
    assert {row["status"] for row in lstm} == {"unsupported"}
    assert "family 'lstm'" in lstm[0]["message"]
    assert "bfloat16" in lstm[-1]["message"]


@pytest.mark.parametrize(
    ("name", "other"),
    [("torch_native", "jax_scan"), ("jax_native", "torch_eager"), ("conv_jax", "conv_torch")],
)
def test_the_partner_is_of_the_same_family_and_the_other_framework(name, other):
    pytest.importorskip("torch")
    pytest.importorskip("jax")
    assert network_proofs.partner(impls.get(name), Placement()).name == other
