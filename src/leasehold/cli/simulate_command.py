"""``leasehold simulate``: the engine against a world that fails, one seed or many."""

import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from leasehold.cli import codes
from leasehold.cli.codes import say
from leasehold.cli.options import AsJson

if TYPE_CHECKING:
    from leasehold.simulation import Survey


def add_to(app: typer.Typer) -> None:
    app.command()(simulate)


def simulate(
    *,
    seed: Annotated[int, typer.Option(min=0, help="The first seed.")] = 0,
    runs: Annotated[int, typer.Option(min=1, help="How many seeds, one after the other.")] = 1,
    trace: Annotated[bool, typer.Option("--trace", help="Print the whole history.")] = False,
    jobs: Annotated[int, typer.Option(min=0, help="Processes; 0: one for each processor.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Simulate a deployment under faults, in virtual time; exit 1 if a promise broke."""
    from leasehold.cli import output
    from leasehold.simulation import survey

    def told(total: "Survey") -> None:
        if sys.stderr.isatty():
            say(f"{total.seeds} of {runs} seeds, {len(total.broken)} broke a promise")

    if trace:
        _tell(seed)
    total = survey(seed, runs, jobs=jobs or os.cpu_count() or 1, told=told)
    if as_json:
        output.emit(total.as_json())
    else:
        _print(total)
    if total.broken:
        raise typer.Exit(codes.WRONG)


def _tell(seed: int) -> None:
    from leasehold.simulation import simulate as one

    for line in one(seed, keep=True).history:
        typer.echo(line)


def _print(total: "Survey") -> None:
    from leasehold.cli import output

    for seed, lines in sorted(total.broken.items()):
        typer.echo(f"seed {seed}: leasehold simulate --seed {seed} --trace")
        for line in lines:
            typer.echo(f"  {line}")
    output.facts(
        {
            "seeds": total.seeds,
            "broken": len(total.broken),
            "starts": total.starts,
            "virtual time": f"{total.virtual_s / 3600:.1f} h",
            "CPU": f"{total.cpu_s:.1f} s",
        }.items()
    )
    typer.echo("\nfaults met")
    output.facts(sorted(total.met.items()))
    typer.echo("\nends of runs")
    output.facts(sorted(total.runs.items()))
