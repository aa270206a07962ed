"""What a run folder's manifest says of an ablation: each registered plan, the call, the command."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.ablation import plan as ablation_plan
from harness.ablation.plan import Plan
from harness.ablation.rows import THREADS, now
from harness.machine import identity
from harness.store import RunFolder

PROGRAM = "python -m harness"


@dataclass(frozen=True)
class Call:
    """What the user asked for.

    Attributes:
        name: of a packaged ablation, or the path of a file; text: of its TOML.
        impl, seeds, only, data: as given, None or empty = not given.
        out: run folder where it is not the usual one.
        profile: of the speed profile whose run trains it, None = it is trained by itself.
    """

    name: str
    text: str
    impl: str | None = None
    out: Path | None = None
    only: Sequence[str] = ()
    seeds: int | None = None
    data: Sequence[str] = ()
    profile: str | None = None

    def command(self) -> str:
        """The words that train all of it again in an empty folder, or go on with this one."""
        out = [] if self.out is None else ["--out", shown(self.out)]
        if self.profile is not None:  # its folder takes rows from `run` alone
            return shlex.join([*PROGRAM.split(), "run", shown(self.profile), *out])
        words = [*PROGRAM.split(), "ablate", shown(self.name)]
        words += [] if self.impl is None else ["--impl", self.impl]
        words += [] if self.seeds is None else ["--seeds", str(self.seeds)]
        for given in self.only:
            words += ["--only", given]
        for given in self.data:
            task, _, path = given.partition("=")
            words += ["--data", f"{task}={shown(path)}"]
        return shlex.join([*words, *out])

    def options(self) -> dict[str, Any]:
        """What differs from a plain call, as JSON knows it."""
        data = [f"{task}={shown(path)}" for task, _, path in (d.partition("=") for d in self.data)]
        given = {
            "impl": self.impl, "seeds": self.seeds, "only": list(self.only), "data": data,
            "profile": None if self.profile is None else shown(self.profile),
        }  # fmt: skip
        return {key: value for key, value in given.items() if value not in (None, [])}


def shown(path: str | Path) -> str:
    """A path below the working folder as seen from there; of any other absolute one its last part.

    A manifest may be published, and names no folder of somebody's machine.
    """
    if not Path(path).is_absolute():
        return str(path)
    try:
        return str(Path(path).relative_to(Path.cwd()))
    except ValueError:
        return Path(path).name


def describe(plan: Plan, folder: RunFolder, impl: str, call: Call) -> None:
    """Record in the manifest what was registered, what is asked today and on which machine.

    A plan that the folder has not seen is added to the list `plans`; none is ever removed.
    """
    ablation = plan.ablation
    used = {cell.asked.task.name for cell in plan.cells}
    controls = ablation_plan.separation(ablation)
    tasks = {
        one.task.name: {
            "about": one.task.about,
            "version": one.task.version,
            "metric": one.task.metric,
            "higher_is_better": one.task.higher_is_better,
            "chance": one.task.chance,
            "ceiling": one.task.ceiling,
            "target": one.target,
            **controls[one.task.name],
        }
        for one in ablation.tasks
        if one.task.name in used
    }
    own = {} if "machine" in folder.manifest else {"machine": identity.fingerprint(THREADS)}
    registered = ablation_plan.registered(ablation)
    folder.update_manifest(
        **own,
        ablation={
            "name": ablation.name,
            "about": ablation.about,
            "impl": impl,
            "plan_hash": plan.plan_hash,
            "deviations": list(plan.deviations),
            "command": call.command(),
            "call": {"ablation": shown(call.name), "text": call.text, "options": call.options()},
            "plans": _plans(folder.manifest, plan.plan_hash, registered),
            "registered": registered,
            "tasks": tasks,
        },
    )


def _plans(
    manifest: Mapping[str, Any], plan_hash: str, registered: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Every plan of the folder, the first one first, today's among them."""
    before = manifest.get("ablation") or {}
    known = list(before.get("plans") or ())
    if not known and before.get("plan_hash"):  # written before plans were kept
        known.append(_plan(before["plan_hash"], manifest["created_at"], before["registered"]))
    if plan_hash not in [one["plan_hash"] for one in known]:
        known.append(_plan(plan_hash, now(), registered))
    return known


def _plan(plan_hash: str, at: str, registered: Mapping[str, Any]) -> dict[str, Any]:
    return {"plan_hash": plan_hash, "registered_at": at, "registered": dict(registered)}
