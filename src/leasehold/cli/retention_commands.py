"""``leasehold retention`` and ``leasehold prune``: how long things are kept, and their end."""

from typing import Annotated, Any, Final

import typer

from leasehold.cli.codes import say
from leasehold.cli.options import AsJson, as_option
from leasehold.errors import BadInputError

group = typer.Typer(no_args_is_help=True, help="How long what is over is kept.")
_FIELDS: Final = {"runs_s": "--runs", "output_s": "--output", "retention": "retention set"}
_DAY_S: Final = 86_400


def add_to(app: typer.Typer) -> None:
    app.add_typer(group, name="retention")
    app.command()(prune)


@group.command()
def show(*, as_json: AsJson = False) -> None:
    """Show how long ended runs, and their output and artifacts, are kept."""
    from leasehold.cli.entering import enter

    with enter() as door:
        shape = door.retention.show()
    _tell(shape, as_json=as_json)


@group.command("set")
def set_(
    *,
    runs: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Of runs and their history: 90d, 12h, or never."),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Of output and artifacts; at most as long as runs."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say how long ended runs are kept (`never`: deleted never); what is not named stays."""
    from leasehold.cli.entering import enter

    asked = {"runs_s": runs, "output_s": output}
    changes = {name: value for name, value in asked.items() if value is not None}

    try:
        with enter() as door:
            shape = door.retention.set(changes)
    except BadInputError as error:
        raise as_option(error, _FIELDS) from None
    _tell(shape, as_json=as_json)


def _tell(shape: dict[str, Any], *, as_json: bool) -> None:
    from leasehold.cli import output

    if as_json:
        output.emit(shape)
        return
    names = {"runs and their history": "runs_s", "output and artifacts": "output_s"}
    output.facts((label, _duration(shape[name])) for label, name in names.items())


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "for ever"
    days = seconds / _DAY_S
    return (
        f"{days:g} days after the end" if days >= 1 else f"{seconds / 3600:g} h after the end"
    )


def prune(
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would go, and how much.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """
    Delete now what is over for longer than it is to be kept, of every tenant.

    A running stack does so by itself every few minutes. The clock is taken to be right.
    """
    from dataclasses import asdict

    from leasehold.cli import output
    from leasehold.cli.door import enter
    from leasehold.maintenance import pruner

    with enter() as door:
        counts: dict[str, Any]
        if dry_run:
            counts = pruner.totals(pruner.forecast(door.context))
        else:
            counts = asdict(pruner.run_once(door.context))
    if as_json:
        output.emit({"dry_run": dry_run, **counts})
        return
    output.facts((_WORDS[name], count) for name, count in counts.items())
    if dry_run:
        say("nothing was deleted; a file in the store goes a day after nothing names it")


_WORDS: Final = {
    "output_of": "runs whose output and artifacts go",
    "output_bytes": "bytes of output",
    "artifacts": "artifacts",
    "artifact_bytes": "bytes of artifacts",
    "runs": "runs with their history",
    "leases": "leases",
    "events": "lines of history of neither",
    "objects": "files in the store that nothing names",
    "object_bytes": "bytes of those",
    "workers": "workers that are gone",
    "sessions": "sessions that are over",
    "secret_versions": "versions of secrets that nothing names",
    "checks": "questions to workers about configs",
    "deliveries": "deliveries to webhooks",
}
