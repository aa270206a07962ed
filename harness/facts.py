"""The facts beside a verdict: cells by status, A/A control, machine, command, proofs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from harness.speed.stats import Interval, clopper_pearson, geometric_mean
from harness.summary import SEED, bracket, count, listing, number

Fact = tuple[str, str, str]
"""(label, value, tone): tone is "good", "bad" or ""."""


def status_counts(frame: pd.DataFrame) -> dict[str, int]:
    """Cells by status word (twins left out), `ok` first, `noisy` (a part of ok) last."""
    own = frame[~frame["twin"]]
    counts = {str(k): int(v) for k, v in own["status"].value_counts().items()}
    ok = counts.pop("ok", 0)
    return {"ok": ok, **counts, "noisy": int((own["noisy"] & (own["status"] == "ok")).sum())}


@dataclass(frozen=True)
class Control:
    """Identical code against itself (A/A).

    Attributes:
        mean: geometric mean of the ratio over sittings.
        wrong, sittings: sittings whose interval excludes 1, of how many; one with CUDA-graph
            replays counts twice, since they have a control of their own.
        twins_wrong, twins: the same over every twin that was measured.
    """

    mean: Interval
    wrong: int
    sittings: int
    twins_wrong: int
    twins: int


def control(frame: pd.DataFrame) -> Control | None:
    """The A/A control: one per sitting and mode (the baseline's twin), and all twins; or None."""
    known = frame.dropna(subset=["control", "control_lo", "control_hi"])
    sittings = known[~known["twin"]].drop_duplicates(["sitting_id", "mode"])
    if sittings.empty:
        return None
    twins = known[known["twin"]]
    mean = geometric_mean(sittings["control"].to_list(), SEED)
    return Control(mean, _excluding(sittings), len(sittings), _excluding(twins), len(twins))


def _excluding(controls: pd.DataFrame) -> int:
    return int(((controls["control_lo"] > 1) | (controls["control_hi"] < 1)).sum())


def strip(frame: pd.DataFrame, manifest: Mapping[str, Any]) -> list[Fact]:
    """What the status strip shows, in its order."""
    counts = status_counts(frame)
    noisy, ok = counts.pop("noisy"), counts.pop("ok")
    total = ok + sum(counts.values())
    facts: list[Fact] = [("cells timed", f"{ok} of {total}", "good" if ok == total else "")]
    quiet = {"missing", "unsupported", "skipped"}
    for word, amount in counts.items():
        facts.append((word, str(amount), "" if word in quiet else "bad"))
    facts.append(("noisy", str(noisy), "bad" if noisy else "good"))
    facts += _control_facts(control(frame))
    threads = ", ".join(str(v) for v in sorted(frame["threads"].dropna().astype(int).unique()))
    facts += [("profile", str(manifest.get("profile", "–")), ""), ("threads", threads or "–", "")]
    return [*facts, ("frameworks", ", ".join(_frameworks(frame)) or "–", "")]


def _control_facts(found: Control | None) -> list[Fact]:
    if found is None:
        return [("identical code (A/A)", "not measured", "")]
    mean = found.mean
    tone = "good" if mean.contains(1.0) else "bad"
    facts = [("identical code (A/A)", bracket(mean.value, mean.lo, mean.hi), tone)]
    amounts = [("A/A sittings that exclude 1", found.wrong, found.sittings)]
    if found.twins > found.sittings:
        amounts.append(("twins that exclude 1", found.twins_wrong, found.twins))
    for label, wrong, total in amounts:
        lo, hi = clopper_pearson(wrong, total)
        share = f"{wrong} of {total} = {number(100 * wrong / total, 2)} %"
        facts.append(
            (label, f"{share} [{100 * lo:.1f}, {100 * hi:.1f}]", "" if lo <= 0.05 else "bad")
        )
    return facts


def machine(manifest: Mapping[str, Any]) -> str:
    """The machine in one line: processor, cores, GPUs, system, Python."""
    facts = _of_machine(manifest)
    if not facts:
        return "The manifest records no machine."
    cores, memory = facts.get("cores"), facts.get("memory_bytes")
    gpus = [
        str(g.get("name", g)) if isinstance(g, Mapping) else str(g) for g in facts.get("gpus") or ()
    ]
    words = [
        str(facts.get("cpu") or "processor unknown"),
        f"{count(cores, 'core')}" if isinstance(cores, int) else "",
        f"{memory / 2**30:.0f} GiB" if memory else "",
        listing(gpus) if gpus else "no GPU",
        " ".join(str(facts[k]) for k in ("system", "architecture") if facts.get(k)),
        f"Python {facts['python']}" if facts.get("python") else "",
    ]
    return ", ".join(word for word in words if word) + "."


def command(manifest: Mapping[str, Any]) -> str:
    """The command that measures the same grid again, in a checkout or where it is installed."""
    profile = manifest.get("profile", "default")
    return f"python -m harness run {profile}"


def proof(frame: pd.DataFrame) -> list[str]:
    """What the conformance rows say, in sentences."""
    if frame.empty:
        return [
            "No conformance run is recorded in this folder; `quasibench run` makes one, and "
            "`quasibench check NAME` checks one implementation."
        ]
    asked = frame[frame["status"].isin(["passed", "failed"])]
    failed = asked[asked["status"] == "failed"]
    impls = sorted(asked["impl"].unique())
    cases = f"{count(len(asked), 'case')} of {count(asked['check'].nunique(), 'claim')}"
    if failed.empty and len(asked):
        first = f"Every claim holds: {listing(impls, 12)} passed all {cases} that apply to them."
    elif len(asked):
        who = [
            f"{impl} ({count(group['check'].nunique(), 'claim')})"
            for impl, group in failed.groupby("impl")
        ]
        first = f"Not equivalent: {listing(who, 12)} failed; {len(failed)} of {cases} do not hold."
    else:
        first = "Nothing could be checked."
    return [first, *_closest(asked), *_unchecked(frame, set(impls))]


def _closest(asked: pd.DataFrame) -> list[str]:
    """The largest error that still passed, per dtype."""
    good = asked[(asked["status"] == "passed") & (asked["tolerance"].astype(float) > 0)]
    words = []
    for dtype, group in good.groupby("dtype"):
        row = group.loc[(group["error"] / group["tolerance"]).astype(float).idxmax()]
        share = 100 * row["error"] / row["tolerance"]
        of = f"{number(share, 2)} % of {row['tolerance']:.0e}"
        words.append(f"{dtype}: {row['error']:.1e} ({of}; {row['impl']}, {row['check']})")
    return [f"The passing case nearest its tolerance: {'; '.join(words)}."] if words else []


def _unchecked(frame: pd.DataFrame, asked: set[str]) -> list[str]:
    absent = frame[~frame["impl"].isin(asked)].groupby("impl").first()
    if absent.empty:
        return []
    who = [f"{row.Index} ({row.status}: {row.message})" for row in absent.itertuples()]
    return [f"Not checked: {listing(who, 12)}."]


def _of_machine(manifest: Mapping[str, Any]) -> dict[str, Any]:
    facts = manifest.get("machine") or {}
    parts = [facts, facts.get("recorded") or {}, facts.get("comparable") or {}]
    return {k: v for part in parts for k, v in part.items()}


def _frameworks(frame: pd.DataFrame) -> list[str]:
    seen = frame.dropna(subset=["framework", "framework_version"])
    pairs = seen[["framework", "framework_version"]].drop_duplicates()
    return sorted(f"{name} {version}" for name, version in pairs.itertuples(index=False, name=None))
