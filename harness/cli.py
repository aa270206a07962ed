"""The command `quasibench`: list, doctor, plan, speed, ablate, check, report, run.

Bad input ends in one line on stderr and exit code 2, Ctrl-C in 130, a run whose pages or checks
failed in 1.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from harness.errors import UsageError
from impls import BrokenImplementation, UnknownImplementation
from impls.contract import SpecError

app = typer.Typer(
    name="quasibench",
    help="Quasi-recurrent neural networks: proved against a float64 oracle, then timed.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

ProfileName = Annotated[
    str,
    typer.Argument(
        help="a profile's name (default, smoke, paper, floor, cuda, ...) or a TOML file"
    ),
]
Out = Annotated[Path | None, typer.Option("--out", help="folder of the recorded rows")]
Budget = Annotated[str | None, typer.Option("--budget", help="time to use, e.g. 90s, 4.5m, 2h")]
Only = Annotated[
    list[str] | None, typer.Option("--only", help="keep only points with field=value (repeatable)")
]
Again = Annotated[bool, typer.Option("--again", help="measure points that are done once more")]
Repair = Annotated[bool, typer.Option("--repair", help="set a torn last line aside and go on")]


@app.command("list")
def list_() -> None:
    """Show the implementations: what they support, what is missing and how to get it."""
    from harness.catalogue import show

    show()


@app.command()
def doctor() -> None:
    """Show what this machine offers and what is missing."""
    from harness.machine.doctor import show

    show()


@app.command()
def plan(
    profile: ProfileName = "default", out: Out = None, budget: Budget = None, only: Only = None
) -> None:
    """Print the cells of a profile, their number and a time estimate; measure nothing."""
    from harness.pipeline import show_plan

    show_plan(profile, out, budget, only or [])


@app.command()
def speed(
    profile: ProfileName = "default",
    out: Out = None,
    budget: Budget = None,
    only: Only = None,
    repair: Repair = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print the plan only")] = False,
) -> None:
    """Measure the speed grid of a profile; resumes what an earlier run left."""
    from harness.pipeline import run_profile, show_plan

    if dry_run:
        show_plan(profile, out, budget, only or [])
        return
    raise typer.Exit(run_profile(profile, out, budget, only or [], repair=repair, parts=("speed",)))


@app.command()
def ablate(
    profile: Annotated[
        str, typer.Argument(help="an ablation's name (quick, claim) or a TOML file")
    ] = "quick",
    profile_option: Annotated[
        str | None, typer.Option("--profile", help="the same as the argument")
    ] = None,
    impl: Annotated[
        str | None, typer.Option("--impl", help="implementation of the QRNN, e.g. jax_native")
    ] = None,
    out: Out = None,
    only: Annotated[
        list[str] | None, typer.Option("--only", help="task=a,b or arm=a,b (repeatable)")
    ] = None,
    seeds: Annotated[int | None, typer.Option("--seeds", help="final seeds per arm")] = None,
    data: Annotated[
        list[str] | None, typer.Option("--data", help="task=file, for tasks on a local file")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print the plan only")] = False,
    again: Annotated[bool, typer.Option("--again", help="train everything once more")] = False,
    retry: Annotated[
        str | None, typer.Option("--retry", help="try these again, e.g. crash,timeout")
    ] = None,
    html: Annotated[Path | None, typer.Option("--html", help="folder of the pages")] = None,
    repair: Repair = False,
) -> None:
    """Train an ablation: arms x tasks x seeds, planned and printed first; resumes what was left."""
    from harness.ablation import command

    name = profile_option or profile
    code = command.ablate(
        name, impl, out, only or [], seeds, data or [],
        dry_run=dry_run, again=again, retry=retry, repair=repair,
    )  # fmt: skip
    if code != 130 and not dry_run:
        code = max(code, command.pages(name, impl, out, html))
    raise typer.Exit(code)


@app.command()
def check(
    name: Annotated[str, typer.Argument(help="implementation to check, see `quasibench list`")],
    dtype: Annotated[list[str] | None, typer.Option("--dtype", help="float32, ...")] = None,
    device: Annotated[str, typer.Option("--device", help="cpu or cuda")] = "cpu",
    cases: Annotated[str, typer.Option("--cases", help="quick, covering or full")] = "covering",
    networks: Annotated[
        bool, typer.Option("--networks", help="also whole networks: claims and training curves")
    ] = False,
    jsonl: Annotated[Path | None, typer.Option("--jsonl", help="also append the rows here")] = None,
    parent: Annotated[int | None, typer.Option("--parent", hidden=True)] = None,
) -> None:
    """Prove one implementation against the oracle and name every claim that fails."""
    from harness.equivalence import check_one

    raise typer.Exit(check_one(name, dtype or [], device, cases, jsonl, parent, networks))


@app.command()
def report(
    profile: ProfileName = "default",
    out: Out = None,
    html: Annotated[Path | None, typer.Option("--html", help="folder of the pages")] = None,
    picture: Annotated[
        Path | None,
        typer.Option("--picture", help="also write speedups, or else accuracies, as this PNG"),
    ] = None,
) -> None:
    """Render the recorded rows of a profile to HTML."""
    from harness.pipeline import render_pages

    raise typer.Exit(render_pages(profile, out, html, picture))


@app.command()
def run(
    profile: ProfileName = "default",
    profile_option: Annotated[
        str | None, typer.Option("--profile", help="the same as the argument")
    ] = None,
    out: Out = None,
    budget: Budget = None,
    only: Only = None,
    html: Annotated[Path | None, typer.Option("--html", help="folder of the pages")] = None,
    repair: Repair = False,
    again: Again = False,
) -> None:
    """Do all of a profile: checks, speed grid, its ablation, pages; resumes what was left.

    --budget, --only and --again are about the speed grid: the ablation is trained after it as a
    whole, within its own `limit`, and keeps its results (`quasibench ablate` has --only, --again).
    Without the packages that render pages the rows are there and one line says what is missing.
    """
    from harness.ablation import after_timing
    from harness.pipeline import render_pages, run_profile
    from harness.report import lacking

    profile = profile_option or profile
    after_timing.check(profile)
    parts = ("equivalence", "speed")
    code = run_profile(profile, out, budget, only or [], repair=repair, parts=parts, again=again)
    if code != 130:
        code = max(code, after_timing.train(profile, out, repair=repair))
    if code != 130 and (missing := lacking()) is not None:
        print(
            f"no pages: rendering needs {missing}, which is not installed here; the rows are "
            f"written, `quasibench report {profile}` renders them elsewhere"
        )
    elif code != 130:
        code = max(code, render_pages(profile, out, html))
    raise typer.Exit(code)


def main(args: list[str] | None = None) -> int:
    """Run the command; returns the exit code instead of showing a traceback for bad input."""
    words = sys.argv[1:] if args is None else args
    try:
        code = app(args=words or ["--help"], standalone_mode=False, prog_name="quasibench")
    except (UsageError, SpecError, UnknownImplementation, BrokenImplementation) as error:
        return _complain(str(error))
    except (KeyboardInterrupt, typer.Abort):
        print("quasibench: interrupted; run the same command again to go on", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `quasibench list | head`
        sys.stderr.close()
        return 0
    except OSError as error:  # no space, no permission, a file where a folder should be
        return _complain(f"{error.filename or ''}: {error.strerror or error}".lstrip(": "))
    except Exception as error:
        # typer brings a click of its own in newer releases, so its usage errors are known by shape
        if not hasattr(error, "format_message"):
            raise
        return _complain(error.format_message())
    return code if isinstance(code, int) else 0


def _complain(text: str) -> int:
    print(f"quasibench: {' '.join(text.split())}", file=sys.stderr)
    return 2
