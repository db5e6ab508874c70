"""``leasehold schedules``: runs that a clock submits."""

from typing import TYPE_CHECKING, Annotated, Final

import typer

from leasehold.cli.codes import say
from leasehold.cli.options import AsJson, as_option, pairs, with_secrets
from leasehold.errors import BadInputError

if TYPE_CHECKING:
    from leasehold.cli.ports import Shape

group = typer.Typer(no_args_is_help=True, help="Runs that are made at their times.")
Name = Annotated[str, typer.Argument(metavar="NAME", help="The schedule's name or id.")]
FIELDS: Final = {
    "name": "NAME",
    "cron": "--cron",
    "at": "--at",
    "timezone": "--timezone",
    "environment": "--environment",
    "misfire": "--misfire",
    "overlap": "--overlap",
    "run.timeout_s": "--timeout",
    "run.retries": "--retries",
    "run.priority": "--priority",
    "run.labels": "--label",
    "run.env": "-e",
    "run.commands.0.cwd": "--cwd",
    "run.commands": "CMD",
}


def add_to(app: typer.Typer) -> None:
    app.add_typer(group, name="schedules")


@group.command(context_settings={"allow_interspersed_args": True})
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Letters, digits, . _ : -")],
    command: Annotated[
        list[str] | None, typer.Argument(metavar="-- CMD", help="What its runs do.")
    ] = None,
    *,
    environment: Annotated[
        str | None,
        typer.Option(
            "--environment",
            "--env",
            metavar="NAME",
            help="Where they do it; else as `run` without it, chosen each time.",
        ),
    ] = None,
    cron: Annotated[
        str | None,
        typer.Option(metavar="LINE", help="Five fields as in crontab, e.g. '*/5 * * * *'."),
    ] = None,
    at: Annotated[
        str | None, typer.Option(metavar="TIME", help="One moment, e.g. 2026-12-24T18:00.")
    ] = None,
    timezone: Annotated[str, typer.Option(help="In which both are read.")] = "UTC",
    misfire: Annotated[
        str,
        typer.Option(help="Times at which no clock turned: skip, once or all (at most 100)."),
    ] = "once",
    overlap: Annotated[
        str, typer.Option(help="While the run before is not over: allow or skip.")
    ] = "allow",
    cwd: Annotated[str | None, typer.Option(help="Directory in the sandbox.")] = None,
    env_vars: Annotated[
        list[str] | None, typer.Option("-e", metavar="K=V", help="A variable; repeat it.")
    ] = None,
    secret: Annotated[
        list[str] | None,
        typer.Option("--secret", metavar="K=NAME", help="A variable from a secret; repeat it."),
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option("--label", metavar="K=V", help="A label; repeat it.")
    ] = None,
    timeout: Annotated[str | None, typer.Option(help="Of a command, e.g. 10m.")] = None,
    retries: Annotated[int, typer.Option(help="After a failed command.")] = 0,
    priority: Annotated[int, typer.Option(help="0 to 9, 9 first.")] = 5,
    idempotent: Annotated[
        bool, typer.Option("--idempotent", help="May start again after an unclear loss.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make a run of CMD each time that the cron line, or once when the moment, is due."""
    from leasehold.cli.entering import enter
    from leasehold.domain.schedules import ScheduleSpec
    from leasehold.domain.specs import parse

    body = {
        "name": name,
        "cron": cron,
        "at": at,
        "timezone": timezone,
        "environment": environment,
        "misfire": misfire,
        "overlap": overlap,
        "run": {
            "commands": [{"argv": command or [], "cwd": cwd}],
            "env": with_secrets(pairs(env_vars, option="-e"), secret, option="--secret"),
            "labels": pairs(label, option="--label"),
            "timeout_s": timeout,
            "retries": retries,
            "priority": priority,
            "idempotent": idempotent,
        },
    }
    try:
        spec = parse(ScheduleSpec, body)
        with enter() as door:
            shape = door.schedules.create(spec)
    except BadInputError as error:
        raise as_option(error, FIELDS) from None
    _tell(shape, as_json=as_json, words="is there; its first run is made at")


@group.command("list")
def list_(*, as_json: AsJson = False) -> None:
    """List schedules by name."""
    from leasehold.cli import output
    from leasehold.cli.entering import enter

    with enter() as door:
        shapes = door.schedules.list()
    if as_json:
        output.emit(shapes)
        return
    names = ("name", "status", "cron", "timezone", "environment", "next_at", "last_error")
    output.table(
        [name.upper().replace("_", " ") for name in names],
        [[s["cron"] or s["at"] if n == "cron" else s[n] for n in names] for s in shapes],
        empty="no schedules yet: `leasehold schedules create NAME --cron LINE … -- CMD`",
    )


@group.command()
def show(
    name: Name,
    *,
    count: Annotated[int, typer.Option("--next", min=1, max=100, help="So many times.")] = 5,
    as_json: AsJson = False,
) -> None:
    """Show one schedule, and its next times."""
    from leasehold.cli import output
    from leasehold.cli.entering import enter

    with enter() as door:
        shape = door.schedules.show(name, times=count)
    if as_json:
        output.emit(shape)
        return
    coming = shape.pop("next_times")
    run = shape.pop("run")
    output.facts(shape.items())
    output.facts([("commands", [" ".join(one["argv"]) for one in run["commands"]])])
    output.facts((f"time {number}", at) for number, at in enumerate(coming, 1))


@group.command()
def pause(name: Name, *, as_json: AsJson = False) -> None:
    """Make no runs until it is resumed."""
    from leasehold.cli.entering import enter

    with enter() as door:
        shape = door.schedules.pause(name)
    _tell(shape, as_json=as_json, words="is paused")


@group.command()
def resume(name: Name, *, as_json: AsJson = False) -> None:
    """Make runs again; what was due meanwhile is not made up for."""
    from leasehold.cli.entering import enter

    with enter() as door:
        shape = door.schedules.resume(name)
    _tell(shape, as_json=as_json, words="goes on; its next run is made at")


@group.command()
def delete(name: Name, *, as_json: AsJson = False) -> None:
    """Delete it; the runs that it has made go on."""
    from leasehold.cli.entering import enter

    with enter() as door:
        shape = door.schedules.delete(name)
    _tell(shape, as_json=as_json, words="is deleted")


def _tell(shape: "Shape", *, as_json: bool, words: str) -> None:
    from leasehold.cli import output

    if as_json:
        output.emit(shape)
    else:
        when = f" {shape['next_at']}" if words.endswith(" at") else ""
        say(f"schedule {shape['name']} {words}{when}")
