"""``leasehold schedules update``: what is named is merged into what there is."""

from typing import Annotated, Any

import typer

from leasehold.cli import schedules_commands as schedules
from leasehold.cli.codes import say
from leasehold.cli.options import AsJson, as_option, pairs, with_secrets
from leasehold.errors import BadInputError


def add_to(_app: typer.Typer) -> None:
    """Add nothing to the root: the group `schedules` has this one."""
    settings = {"allow_interspersed_args": True}
    schedules.group.command(context_settings=settings)(update)


def update(
    name: schedules.Name,
    command: Annotated[
        list[str] | None, typer.Argument(metavar="-- CMD", help="What its runs do from now on.")
    ] = None,
    *,
    environment: Annotated[
        str | None, typer.Option("--environment", "--env", metavar="NAME", help="Where.")
    ] = None,
    cron: Annotated[
        str | None, typer.Option(metavar="LINE", help="Another line; also instead of a moment.")
    ] = None,
    at: Annotated[
        str | None, typer.Option(metavar="TIME", help="One moment; also instead of a line.")
    ] = None,
    timezone: Annotated[str | None, typer.Option(help="In which both are read.")] = None,
    misfire: Annotated[str | None, typer.Option(help="skip, once or all.")] = None,
    overlap: Annotated[str | None, typer.Option(help="allow or skip.")] = None,
    cwd: Annotated[str | None, typer.Option(help="Goes with CMD.")] = None,
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
    retries: Annotated[int | None, typer.Option(help="After a failed command.")] = None,
    priority: Annotated[int | None, typer.Option(help="0 to 9, 9 first.")] = None,
    paused: Annotated[
        bool | None, typer.Option("--paused/--resumed", help="Make no runs; make them again.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Change a schedule; what is not named stays, and so do the runs that it has made."""
    from leasehold.cli import output
    from leasehold.cli.entering import enter
    from leasehold.domain.schedules import ScheduleChange
    from leasehold.domain.specs import parse

    if cwd is not None and not command:
        raise BadInputError("--cwd: goes with a command after `--`", field="--cwd")
    run = {
        "commands": [{"argv": command, "cwd": cwd}] if command else None,
        "env": with_secrets(pairs(env_vars, option="-e"), secret, option="--secret"),
        "labels": pairs(label, option="--label"),
        "timeout_s": timeout,
        "retries": retries,
        "priority": priority,
    }
    given: dict[str, Any] = {
        "cron": cron,
        "at": at,
        "timezone": timezone,
        "environment": environment,
        "misfire": misfire,
        "overlap": overlap,
        "paused": paused,
        "run": _named(run),
    }
    body = _named(given)
    if not body:
        raise BadInputError("nothing is named that should be different", field="--cron")
    try:
        wanted = parse(ScheduleChange, body)
        with enter() as door:
            shape = door.schedules.change(name, wanted)
    except BadInputError as error:
        raise as_option(error, schedules.FIELDS) from None
    if as_json:
        output.emit(shape)
    elif shape["changed"]:
        when = f"its next run is made at {shape['next_at']}" if shape["next_at"] else "it waits"
        say(f"schedule {shape['name']}: changed {', '.join(shape['changed'])}; {when}")
    else:
        say(f"schedule {shape['name']} is like that already")


def _named(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value not in (None, {})}
