"""What is proved before the clock: equivalence checks, and beside them a device's own tests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from harness import device_tests, equivalence, files
from harness.config import Profile
from harness.files import Row
from harness.machine import identity, system
from harness.progress import Progress, words
from harness.speed.grid import points
from harness.speed.plan import chosen
from harness.stop import Stop
from harness.store import RunFolder

TESTS_SHARE = 0.25
"""Most of a budget that the tests on a device and the checks beside them may take."""
MOST_SAID = 5
"""Failed claims of one implementation that are said one by one."""


def prove(profile: Profile, folder: RunFolder, progress: Progress, budget_s: float) -> bool:
    """The equivalence checks, beside the device's own tests if the profile has any; True = failed.

    Tests that ran to their end are not run again for the same machine and sources.
    """
    if profile.device_tests_s is None:
        limit_s = profile.overhead_s if profile.compile else equivalence.LIMIT_S
        return _equivalence(profile, folder, progress, limit_s)
    limit_s = min(profile.device_tests_s, TESTS_SHARE * budget_s)
    key = sorted(_keys(profile).values())
    found = folder.manifest.get("gpu_tests") or {}
    if found.get("key") == key and found["ended"] == "done":
        failed = _equivalence(profile, folder, progress, limit_s)
    else:
        progress.note(f"running the tests marked gpu and the checks, {words(limit_s)} at most")
        with device_tests.DeviceTests(folder.logs, limit_s) as tests:
            failed = _equivalence(profile, folder, progress, limit_s)
            found = {**tests.finish(), "key": key}
        folder.update_manifest(gpu_tests=found)
    for line in device_tests.words(found):
        progress.note(line)
    return failed or device_tests.wrong(found)


def _equivalence(profile: Profile, folder: RunFolder, progress: Progress, limit_s: float) -> bool:
    """Check who has no whole set of rows yet under its present sources; True = one failed."""
    own = _keys(profile)
    recorded, _ = files.read_lines(folder.path / "equivalence.jsonl")
    dtypes = profile.checks or tuple(dict.fromkeys(p.placement.dtype for p in points(profile)))
    device = points(profile)[0].placement.device
    todo = equivalence.unfinished(own, dtypes, device, recorded)
    failed = [
        r for r in recorded if r["status"] == "failed" and r["stale_key"] == own.get(r["impl"])
    ]
    if todo:
        progress.note(f"checking {', '.join(todo)} against the float64 oracle")
    with Stop() as stop:
        at_once = 2 if profile.device_tests_s is None else max(2, system.cores() // 3)
        checking = equivalence.check_all(
            todo, dtypes, device, folder.logs, stop, at_once=at_once, limit_s=limit_s
        )
        for impl, found in checking:
            folder.append_equivalence([{**row, "stale_key": own[impl]} for row in found])
            failed += [row for row in found if row["status"] == "failed"]
    _say(failed, progress)
    return bool(failed)


def _say(failed: Sequence[Row], progress: Progress) -> None:
    """The failed claims, the first few of every implementation in words."""
    said = Counter[str]()
    for row in failed:
        said[str(row["impl"])] += 1
        if said[str(row["impl"])] <= MOST_SAID:
            progress.note(f"FAILED {row['impl']}: {row['claim']}: {row['message']}")
    for impl, count in said.items():
        if count > MOST_SAID:
            progress.note(f"FAILED {impl}: {count - MOST_SAID} more claims (equivalence.jsonl)")


def _keys(profile: Profile) -> dict[str, str]:
    """The stale_key of every contender here and now."""
    threads = identity.thread_count(profile.threads)
    print_hash = identity.fingerprint_hash(identity.fingerprint(threads))
    return {name: identity.stale_key(name, print_hash, threads) for name in chosen(profile)}
