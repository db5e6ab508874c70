"""
``leasehold``: the command line.

Each command is a few lines around one call of the engine. Errors end here: one line on stderr
and an exit code (`codes`), never a traceback. Imports of the engine stand inside the commands,
so that ``--help`` answers at once.
"""

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from leasehold.cli import (
    activity_command,
    api_command,
    codes,
    cp_command,
    environment_commands,
    environment_defaults,
    environment_probe,
    environment_update,
    exec_command,
    fleet_commands,
    heeding,
    insight_commands,
    keys_commands,
    leases_commands,
    local_only,
    options,
    reconcile_command,
    retention_commands,
    run_command,
    runs_commands,
    schedule_update,
    schedules_commands,
    secrets_commands,
    simulate_command,
    stack_commands,
    tenancy,
    tenants_commands,
    webhooks_commands,
)
from leasehold.errors import BadInputError


class Doors(TyperGroup):
    """The root group: turns every error into its line and its exit code."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        tenancy.extend(self)
        local_only.extend(self)

    def invoke(self, ctx: Any) -> Any:
        try:
            with heeding.ctrl_c():
                return super().invoke(ctx)
        except (typer.Exit, typer.Abort):
            raise
        except KeyboardInterrupt:
            raise typer.Exit(codes.INTERRUPTED) from None
        except BrokenPipeError:
            _stop_writing()
            raise typer.Exit(codes.BROKEN_PIPE) from None
        except Exception as error:
            if type(error).__module__.startswith(("typer.", "click.")):
                raise  # wrong usage: typer says it in its own way, with exit code 2
            raise typer.Exit(codes.report(error)) from error


def _stop_writing() -> None:
    """Nobody reads our stdout any more: let the interpreter not fall over it at exit."""
    import os

    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):
        return


app = typer.Typer(
    name="leasehold",
    cls=Doors,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Run commands in leased sandboxes, and never lose one.",
    epilog="Exit codes, settings and every command: docs/cli.md",
)


def _version(value: bool) -> None:  # noqa: FBT001  typer calls it so
    if value:
        from leasehold import __version__

        typer.echo(f"leasehold {__version__}")
        raise typer.Exit


@app.callback()
def root(
    *,
    patience: Annotated[
        str,
        typer.Option(help="How long to keep asking a database that does not answer."),
    ] = options.PATIENCE,
    version: Annotated[  # noqa: ARG001  its callback does the work
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say it.")
    ] = False,
) -> None:
    """Run commands in leased sandboxes, and never lose one."""
    options.patience.set(_seconds(patience))
    tenancy.begin()


def _seconds(patience: str) -> float:
    if patience == options.PATIENCE:
        return options.PATIENCE_S  # without the imports of the parser: help comes through here
    from leasehold.domain.durations import parse_duration

    try:
        seconds = float(parse_duration(patience))
    except ValueError as error:
        raise BadInputError(f"--patience: {error}", field="--patience") from None
    if seconds < 0:
        raise BadInputError("--patience: must not be below zero", field="--patience")
    return seconds


for part in (
    run_command,
    exec_command,
    cp_command,
    runs_commands,
    leases_commands,
    environment_commands,
    environment_update,
    environment_probe,
    environment_defaults,
    secrets_commands,
    schedules_commands,
    schedule_update,
    webhooks_commands,
    keys_commands,
    tenants_commands,
    fleet_commands,
    insight_commands,
    activity_command,
    stack_commands,
    api_command,
    reconcile_command,
    retention_commands,
    simulate_command,
):
    part.add_to(app)


def main() -> None:
    """Run one command and exit with its code."""
    # Output of other people's commands goes through here: a locale must not stop it.
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
    app()
