"""The ablation that a speed profile asks for, trained once all timing is over."""

from __future__ import annotations

from pathlib import Path

import impls
from harness import paths
from harness.ablation.command import ablate
from harness.ablation.config import load_ablation
from harness.config import load_profile
from harness.progress import Progress

FALLBACKS = ("torch_eager", "jax_native", "jax_scan")


def check(profile_name: str) -> None:
    """Look at the profile's ablation before hours of timing are spent.

    Raises:
        UsageError: the profile, or the ablation that it names, is unknown or wrong.
    """
    profile = load_profile(profile_name)
    if profile.ablation is not None:
        load_ablation(profile.ablation)


def train(profile_name: str, out: Path | None, *, repair: bool) -> int:
    """Train the profile's ablation in the profile's run folder; the exit code, 0 without one.

    Where its implementation cannot run here, the first one that can stands in for it, which is a
    deviation from the plan; where none can, one line says so.

    Raises:
        UsageError: as `command.ablate`.
    """
    profile = load_profile(profile_name)
    if profile.ablation is None:
        return 0
    place, reasons = out or paths.run_folder(profile.name), []
    for impl in (load_ablation(profile.ablation).impl, *FALLBACKS):
        reason = impls.missing(impls.get(impl))
        if reason is None:
            return ablate(
                profile.ablation, impl, place,
                repair=repair, profile=profile.name, run=profile_name,
            )  # fmt: skip
        reasons.append(f"{impl}: {reason}")
    Progress().note(f"no ablation, nothing here can train: {'; '.join(reasons)}")
    return 0
