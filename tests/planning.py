"""A profile, cards that need nothing, and what a finished sitting leaves: for tests of the plan."""

import impls
from harness.config import Profile
from harness.floors import Ceilings
from harness.machine import identity
from harness.speed.grid import cell_id
from impls.contract import Implementation

CEILINGS = Ceilings.nominal()
GRID = {"kind": ["forward", "backward"], "batch": [1, 8], "steps": [16, 64], "hidden_size": [32]}


def profile(**changes):
    usual = {
        "name": "mine", "about": "", "budget_s": 400.0, "threads": 1, "baseline": "auto",
        "contenders": "all", "twins": "baseline", "repeats": 1, "compile": False,
        "grids": (GRID,), "overhead_s": 50.0,
    }  # fmt: skip
    return Profile(**{**usual, **changes})


def card(name, family="qrnn", requires=(), reason=lambda spec, placement: None):
    return Implementation(name, "", requires, reason, lambda *_: None, family)


def use_cards(patch):
    """Three implementations that need nothing take the place of all; a test may change them."""
    known = {name: card(name) for name in ("fast", "plain")}
    known["lstm_jax"] = card("lstm_jax", "lstm")
    patch.setattr(impls, "names", lambda: sorted(known))
    patch.setattr(impls, "get", lambda name: known[name])
    patch.setattr(identity, "fingerprint", lambda threads: {"comparable": threads})
    patch.setattr(identity, "stale_key", lambda name, fp, threads: f"key of {name}")
    return known


def rows_of(sitting, status="ok", sitting_id="s1", median_ns=1e6, **more):
    """What a finished sitting leaves in the folder."""
    absent = {contender: status for contender, status, _ in sitting.absent}
    family = {name: impls.get(name).family for name in impls.names()}
    return [
        {
            **sitting.point.fields(),
            "family": family[one.impl], "point_id": sitting.point.point_id, "impl": one.impl,
            "cell_id": cell_id(sitting.point, one), "sitting_id": sitting_id,
            "stale_key": f"key of {one.impl}", "status": absent.get(one, status),
            "median_ns": median_ns, "prepare_s": 0.1, "first_call_s": 0.01, **more,
        }
        for one in (*sitting.contenders, *absent)
    ]  # fmt: skip
