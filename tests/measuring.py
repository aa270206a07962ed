"""Small plans for the tests of the measuring: fakes at one grid point, no framework."""

import functools
from pathlib import Path

import impls
from harness.config import Profile
from harness.progress import Progress
from harness.speed.coordinator import Outcome, run_speed
from harness.speed.grid import PROTOCOL_VERSION, Contender, Point
from harness.speed.plan import Plan, Sitting
from harness.store import RunFolder
from impls.contract import ModelSpec, Placement

FAKES = Path(__file__).parent / "fakes"
TOP = Path(__file__).parent.parent


def use_fakes(patch):
    """Put the fakes' entry points on the path of this process and of its workers."""
    patch.syspath_prepend(str(FAKES))
    patch.setenv("PYTHONPATH", str(FAKES))
    patch.setattr(impls, "_foreign", functools.cache(impls._foreign.__wrapped__))


def profile(**changes):
    usual = {
        "name": "test",
        "about": "",
        "budget_s": 60.0,
        "threads": 1,
        "baseline": "fake_good",
        "contenders": "all",
        "twins": "baseline",
        "repeats": 1,
        "compile": False,
        "grids": (),
        "min_rounds": 7,
        "target_halfwidth": 0.02,
        "max_rounds": 60,
        "seed": 1,
    }
    return Profile(**{**usual, **changes})


def point(**changes):
    usual = {
        "kind": "forward",
        "spec": ModelSpec(input_size=8, hidden_size=8),
        "placement": Placement(),
        "batch": 4,
        "steps": 6,
        "threads": 1,
    }
    return Point(**{**usual, **changes})


def sitting(at, *contenders, absent=(), share_s=4.0):
    return Sitting(at, contenders, tuple(absent), predicted_s=0.01, share_s=share_s)


def run(path, used, sittings, limits=None, progress=None) -> tuple[Outcome, list[dict]]:
    """Measure the sittings into a run folder; the outcome and the rows."""
    plan = Plan(used, list(sittings), [], 0, len(sittings), 0.0, 0.0, stale_keys={})
    with RunFolder.open(path, used.name, PROTOCOL_VERSION) as folder:
        outcome = run_speed(plan, folder, used, progress or Progress(), limits)
        return outcome, list(folder.rows)


def by_name(rows):
    return {Contender(row["impl"], row["twin"]).name: row for row in rows}
