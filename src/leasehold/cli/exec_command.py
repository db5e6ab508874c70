"""``leasehold exec``: a person looks into the sandbox of a lease that is kept."""

from typing import Annotated

import typer

from leasehold.cli.codes import EPILOG
from leasehold.cli.options import AsJson, LeaseId, pairs
from leasehold.cli.submitting import OnInterrupt, Place, follow, parsed, read_stdin


def add_to(app: typer.Typer) -> None:
    # Options may stand on both sides of the lease; what comes after `--` is the command's.
    app.command("exec", epilog=EPILOG)(exec_)


def exec_(
    lease: LeaseId,
    command: Annotated[list[str], typer.Argument(metavar="CMD...", help="After `--`.")],
    *,
    timeout: Annotated[str | None, typer.Option(help="Of the command, e.g. 90s, 10m.")] = None,
    env_vars: Annotated[
        list[str] | None, typer.Option("-e", metavar="K=V", help="An environment variable.")
    ] = None,
    cwd: Annotated[
        str | None, typer.Option(help="Working directory, inside the sandbox.")
    ] = None,
    stdin: Annotated[
        bool, typer.Option("--stdin", "-i", help="Give our stdin to it (at most 4 MiB).")
    ] = False,
    on_interrupt: Annotated[
        OnInterrupt,
        typer.Option(help="On Ctrl-C; `ask` cancels where nobody can be asked."),
    ] = "ask",
    as_json: AsJson = False,
) -> None:
    """
    Run a command in the sandbox of a retained, idle or held lease; it stays what it is.

    A retained lease keeps the end that it had, whatever becomes of the command. A lease in
    which a run is at work is refused, with the name of that run.
    """
    spec = parsed(
        {
            "commands": [{"argv": command, "cwd": cwd, "stdin": read_stdin() if stdin else ""}],
            "env": pairs(env_vars, option="-e"),
            "timeout_s": timeout,
        }
    )

    from leasehold.cli import entering, interrupting

    way = entering.way()
    way.need_stack("exec")
    place = Place(env=None, provider=None, lease=lease, visit=True)
    with interrupting.terminable(), way.footing() as footing:
        code = follow(way, footing, spec, place, None, on_interrupt, as_json=as_json, home=None)
    raise typer.Exit(code)
