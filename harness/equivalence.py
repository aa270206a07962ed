"""Running the conformance checks: one implementation by hand, or all of them into a run folder.

Each implementation is checked in a process of its own, so that a crash in native code costs only
its own remaining rows.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from rich.console import Console

import impls
from harness.errors import UsageError, nearest
from harness.machine import system
from harness.stop import InterruptError, Stop, end
from harness.worker import settle
from impls.contract import DTYPES, Placement

CASE_SETS = {"quick": "quick_set", "covering": "covering_set", "full": "full_product"}
"""Words of the command and the functions of harness.conformance that give the cases."""
TIMEOUT_S = {"quick": 180.0, "covering": 900.0, "full": 6 * 3600.0}
COMPILING = 10.0
"""Times as long for an implementation that compiles for every shape."""
OUT_OF_TIME = "the time for the checks was spent; every timed cell has its own gate"
LIMIT_S = 1800.0
"""For all checks of a run in which nothing must compile for minutes; they take about one."""
Row = dict[str, object]


def _validate(dtypes: Iterable[str], cases: str) -> None:
    for dtype in dtypes:
        if dtype not in DTYPES:
            hint = nearest(dtype, DTYPES)
            raise UsageError(f"unknown dtype {dtype!r}{hint} (allowed: {', '.join(DTYPES)})")
    if cases not in CASE_SETS:
        hint = nearest(cases, CASE_SETS)
        raise UsageError(f"unknown cases {cases!r}{hint} (allowed: {', '.join(CASE_SETS)})")


def check_one(
    name: str,
    dtypes: list[str],
    device: str,
    cases: str,
    jsonl: Path | None = None,
    parent: int | None = None,
    networks: bool = False,
) -> int:
    """Check one implementation, print each claim; returns 0, or 1 when a claim failed.

    With `networks` also what it does inside whole networks, see `harness.network_proofs`. With
    `parent`, a process id, this process dies with that one.

    Raises:
        UsageError: unknown dtype or cases, or the implementation's framework is missing.
    """
    if parent is not None:
        settle(parent, [])
    _validate(dtypes, cases)
    Placement(device)
    if device == "cuda" and not system.gpus():
        raise UsageError("no CUDA device here: nvidia-smi lists none; leave out --device cuda")
    card = impls.get(name)
    if problem := impls.missing(card):
        raise UsageError(f"{name} cannot be checked here: {problem}")
    from harness import conformance

    chosen = getattr(conformance, CASE_SETS[cases])()
    rows = conformance.run_checks(card, dtypes or DTYPES, chosen, device)
    if networks:
        from harness import network_proofs

        rows = chain(rows, network_proofs.run(card, dtypes or DTYPES, device))
    return _told(name, rows, jsonl)


def _told(name: str, rows: Iterable[Row], jsonl: Path | None) -> int:
    """Print the rows as they come, keep them in `jsonl`; 1 when a claim failed, else 0."""
    console = Console(highlight=False)
    counts = {"passed": 0, "failed": 0}
    failures: list[Row] = []
    for row in rows:
        if jsonl is not None:
            _append(jsonl, row)
        status = str(row["status"])
        counts[status] = counts.get(status, 0) + 1
        if status == "failed":
            failures.append(row)
        _print(console, row)
    for row in failures:
        console.print(f"FAILED {name}: {row['claim']}", markup=False, soft_wrap=True)
        console.print(
            f"  {row['dtype']}, {row['spec']}: {row['message']}", markup=False, soft_wrap=True
        )
    words = ", ".join(f"{n} {status}" for status, n in counts.items() if n or status != "failed")
    console.print(f"{name}: {words}", markup=False, soft_wrap=True)
    return 1 if failures else 0


def _print(console: Console, row: Row) -> None:
    error, tolerance = row.get("error"), row.get("tolerance")
    figures = f"{error:.1e} <= {tolerance:.1e}" if error is not None and tolerance else ""
    colour = {"passed": "green", "failed": "red"}.get(str(row["status"]), "dim")
    console.print(
        f"[{colour}]{row['status']:<11}[/] {row['dtype']:<9} {row['check']:<36} {figures}",
        soft_wrap=True,
    )


def _append(path: Path, row: Row) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row, sort_keys=True) + "\n")


def unfinished(
    keys: Mapping[str, str],
    dtypes: Iterable[str],
    device: str,
    recorded: Sequence[Mapping[str, Any]],
) -> list[str]:
    """Names in `keys` (name -> stale_key) whose checks of a dtype or device are not recorded.

    Or not to their end: the newest row of checks that ran out of time says that they did.
    """
    known, last = set(), {}
    for row in recorded:
        known.add((row["impl"], row.get("stale_key"), row.get("device"), row["dtype"]))
        last[row["impl"], row.get("stale_key")] = row
    cut = {of for of, row in last.items() if row["dtype"] is None and row["status"] == "skipped"}
    asked = tuple(dtypes)
    return [
        name
        for name, key in keys.items()
        if (name, key) in cut or any((name, key, device, dtype) not in known for dtype in asked)
    ]


def check_all(
    names: Iterable[str],
    dtypes: Iterable[str],
    device: str,
    log_dir: Path,
    stop: Stop,
    cases: str = "quick",
    at_once: int = 2,
    limit_s: float | None = None,
) -> Iterator[tuple[str, list[Row]]]:
    """Check several implementations, `at_once` of them side by side; yields (name, its rows).

    An implementation that is missing gets one row "missing"; one whose process dies gets its
    rows so far and one failed row that says how it ended. After `limit_s` seconds in all, what
    still runs is ended: it keeps its rows and gets one "skipped" row, and so does what waits.

    Raises:
        InterruptError: the user asked to stop; what was not yielded is not recorded.
    """
    until = math.inf if limit_s is None else _now() + limit_s
    found = {name: _hindrance(name) for name in names}
    for name, hindrance in found.items():
        if hindrance is not None:
            yield name, [_stand_in(name, *hindrance)]
    waiting = [name for name, hindrance in found.items() if hindrance is None]
    with tempfile.TemporaryDirectory() as scratch:
        running: dict[str, tuple[subprocess.Popen[bytes], float]] = {}
        try:
            while waiting or running:
                if stop.requested:
                    raise InterruptError
                late = _now() >= until
                while late and waiting:
                    yield waiting[0], [_stand_in(waiting.pop(0), "skipped", OUT_OF_TIME)]
                while waiting and len(running) < at_once:
                    name = waiting.pop(0)
                    running[name] = (
                        _spawn(name, cases, dtypes, device, Path(scratch), log_dir),
                        _now(),
                    )
                for name in running and _ended(running, 0.0 if late else TIMEOUT_S[cases]):
                    process, _ = running.pop(name)
                    killed = late and process.returncode == -signal.SIGKILL
                    yield name, _rows_of(name, process.returncode, Path(scratch), killed)
        finally:
            for process, _ in running.values():
                end(process)
                process.wait()


def _hindrance(name: str) -> tuple[str, str] | None:
    """(status, message) where the implementation cannot be checked here, else None."""
    try:
        problem, status = impls.missing(impls.get(name)), "missing"
    except impls.BrokenImplementation as error:
        problem, status = str(error), "failed"
    return (status, problem) if problem else None


def _now() -> float:
    return time.monotonic()


def _spawn(
    name: str, cases: str, dtypes: Iterable[str], device: str, scratch: Path, log_dir: Path
) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "harness", "check", name, "--cases", cases,
               "--device", device, "--jsonl", str(scratch / f"{name}.jsonl"),
               "--parent", str(os.getpid())]  # fmt: skip
    command += [word for dtype in dtypes for word in ("--dtype", dtype)]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    with (log_dir / f"check-{name}.log").open("wb") as log:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env,
            start_new_session=True,
        )  # fmt: skip


def _ended(
    running: Mapping[str, tuple[subprocess.Popen[bytes], float]], timeout_s: float
) -> list[str]:
    """Names of the processes that have ended; waits a moment, kills those out of time."""
    for name, (process, started) in running.items():
        if _now() - started > timeout_s * (COMPILING if impls.compiles(name) else 1.0):
            end(process)
    first = next(iter(running.values()))[0]
    with contextlib.suppress(subprocess.TimeoutExpired):
        first.wait(timeout=0.1)
    return [name for name, (process, _) in running.items() if process.poll() is not None]


def _rows_of(name: str, code: int, scratch: Path, out_of_time: bool = False) -> list[Row]:
    path = scratch / f"{name}.jsonl"
    lines = path.read_text().split("\n")[:-1] if path.exists() else []  # a killed one may be torn
    rows = [json.loads(line) for line in lines]
    if out_of_time:
        return [*rows, _stand_in(name, "skipped", OUT_OF_TIME)]
    if code not in (0, 1) or not rows:
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        rows.append(_stand_in(name, "failed", f"the checking process ended with {how}"))
    return rows


def _stand_in(name: str, status: str, message: str) -> Row:
    """The row of an implementation that could not be checked to the end."""
    try:
        family: str | None = impls.get(name).family
    except impls.BrokenImplementation:
        family = None
    blank = dict.fromkeys(("check", "spec", "quantity", "error", "tolerance", "seconds"))
    return {"schema_version": 1, "record": "equivalence", "impl": name, "family": family,
            "dtype": None, **blank, "claim": "the checks run to their end", "status": status,
            "message": message}  # fmt: skip
