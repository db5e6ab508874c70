"""
``leasehold run``: one command in a leased sandbox, as if it ran here.

stdout and stderr come through as bytes while it runs, and its exit code is ours.
"""

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer

from leasehold.cli import command_lines
from leasehold.cli.codes import EPILOG
from leasehold.cli.options import AsJson, pairs, with_secrets
from leasehold.cli.submitting import OnInterrupt, Place, detached, follow, parsed, read_stdin
from leasehold.errors import BadInputError


def add_to(app: typer.Typer) -> None:
    app.command(
        "run",
        epilog=EPILOG,
        context_settings={"allow_interspersed_args": False, "ignore_unknown_options": False},
    )(run)


def run(
    command: Annotated[
        list[str] | None, typer.Argument(metavar="CMD", help="After `--`.")
    ] = None,
    *,
    cmd: Annotated[
        list[str] | None,
        typer.Option(metavar="LINE", help="One of several commands, as a line; repeat it."),
    ] = None,
    commands: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="A JSON array of commands; - reads our stdin."),
    ] = None,
    env: Annotated[str | None, typer.Option(help="The environment, by name.")] = None,
    provider: Annotated[
        str | None,
        typer.Option(help="The environment named like this provider, made on first use."),
    ] = None,
    lease: Annotated[
        str | None, typer.Option(help="A lease of your own (`leases create`), by id.")
    ] = None,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Only submit it; print its id.")
    ] = False,
    timeout: Annotated[
        str | None, typer.Option(help="Of the command, e.g. 90s, 10m, 1h30m.")
    ] = None,
    retries: Annotated[int, typer.Option(help="Tries again after a failure.")] = 0,
    idempotent: Annotated[
        bool,
        typer.Option("--idempotent", help="Start again even if it may have run already."),
    ] = False,
    env_vars: Annotated[
        list[str] | None, typer.Option("-e", metavar="K=V", help="An environment variable.")
    ] = None,
    secret: Annotated[
        list[str] | None,
        typer.Option(metavar="K=NAME", help="A variable that holds a secret's value."),
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option(metavar="K=V", help="A label of the run.")
    ] = None,
    require: Annotated[
        list[str] | None,
        typer.Option(metavar="K=V", help="A label that its host must have; repeat it."),
    ] = None,
    workspace: Annotated[
        str | None,
        typer.Option(
            metavar="DIR|URL",
            help="The tree that it works on: a directory, or a git URL (URL#REF).",
        ),
    ] = None,
    workspace_name: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="What scopes reuse; the directory or URL if not given."
        ),
    ] = None,
    workspace_secret: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The secret that opens the git URL: USER:PASSWORD, a token, or an ssh key.",
        ),
    ] = None,
    workspace_known_hosts: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Keys of the git URL's ssh server; the worker's own if not given.",
        ),
    ] = None,
    setup: Annotated[
        str | None,
        typer.Option(metavar="SCRIPT", help="Run by `sh -c` before the command, once a tree."),
    ] = None,
    setup_timeout: Annotated[str | None, typer.Option(help="Of the set-up; 10m.")] = None,
    artifacts: Annotated[
        list[str] | None,
        typer.Option(metavar="GLOB", help="Files to keep in the store; repeat it."),
    ] = None,
    sync_back: Annotated[
        bool, typer.Option("--sync-back", help="Bring home what it changed in --workspace.")
    ] = False,
    after: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ID[:OUTCOME]",
            help="Start after this run has succeeded, or: failed, any; repeat it.",
        ),
    ] = None,
    cwd: Annotated[
        str | None, typer.Option(help="Working directory, inside the sandbox.")
    ] = None,
    stdin: Annotated[
        bool, typer.Option("--stdin", "-i", help="Give our stdin to it (at most 4 MiB).")
    ] = False,
    key: Annotated[
        str | None, typer.Option(help="Idempotency key: the same key is the same run.")
    ] = None,
    priority: Annotated[int, typer.Option(help="0 to 9; 9 first.")] = 5,
    grace: Annotated[
        str | None, typer.Option(help="Between TERM and KILL when it is ended; 10s.")
    ] = None,
    queue_timeout: Annotated[str | None, typer.Option(help="Until admitted; 1h.")] = None,
    start_timeout: Annotated[str | None, typer.Option(help="Until started; 10m.")] = None,
    deadline: Annotated[str | None, typer.Option(help="For everything; 7d.")] = None,
    output_cap: Annotated[
        int | None,
        typer.Option(metavar="BYTES", help="Kept of each stream; 16 MiB by default."),
    ] = None,
    on_interrupt: Annotated[
        OnInterrupt,
        typer.Option(help="On Ctrl-C; `ask` cancels where nobody can be asked."),
    ] = "ask",
    as_json: AsJson = False,
) -> None:
    """Run commands in a leased sandbox: their output live, their exit code ours."""
    chosen = [name for name in (env, provider, lease) if name is not None]
    if len(chosen) > 1:
        raise BadInputError("--env, --provider and --lease: give one of them")
    several = command_lines.given(command, cmd, commands)
    if stdin and command is None:
        raise BadInputError("--stdin: goes with one command after `--`", field="--stdin")
    for one in several:
        one.setdefault("cwd", cwd)
    if stdin:
        several[0]["stdin"] = read_stdin()
    body: dict[str, Any] = {
        "commands": several,
        "env": with_secrets(pairs(env_vars, option="-e"), secret, option="--secret"),
        "timeout_s": timeout,
        "queue_timeout_s": queue_timeout,
        "start_timeout_s": start_timeout,
        "deadline_s": deadline,
        "retries": retries,
        "idempotent": idempotent,
        "priority": priority,
        "labels": pairs(label, option="--label"),
        "requires": pairs(require, option="--require"),
        "workspace": workspace_name,
        "artifacts": artifacts or [],
        "sync_back": sync_back,
    }
    if setup is not None:
        body["setup"] = {"argv": ["sh", "-c", setup], "cwd": cwd}
    # What was not said is left out: then the spec's own default stands.
    body |= {
        name: value
        for name, value in (
            ("grace_s", grace),
            ("output_cap_bytes", output_cap),
            ("setup_timeout_s", setup_timeout),
        )
        if value is not None
    }
    from leasehold.cli import carrying, entering, interrupting

    home = _home_of(workspace, sync_back=sync_back, detach=detach)
    if workspace is None and (workspace_secret or workspace_known_hosts):
        text = "--workspace-secret and --workspace-known-hosts go with --workspace URL"
        raise BadInputError(text, field="--workspace")
    if workspace is None:
        parsed(body)  # before anything is looked for: what was typed wrong is said at once
    way = entering.way()
    with ExitStack() as stack:
        carried = None
        if workspace is not None:
            packed = carrying.packed(
                way.settings,
                workspace,
                secret=workspace_secret,
                known_hosts=workspace_known_hosts,
            )
            carried = stack.enter_context(packed)
            body["tree"] = carried.tree
            body["workspace"] = workspace_name or carried.name
        spec = parsed(body)
        place = Place(
            env=env, provider=provider, lease=lease, carried=carried, after=after or ()
        )
        if detach:
            way.need_stack("--detach")
            detached(way, spec, place, key, as_json=as_json)
            return
        with interrupting.terminable(), way.footing() as footing:
            code = follow(
                way, footing, spec, place, key, on_interrupt, as_json=as_json, home=home
            )
    raise typer.Exit(code)


def _home_of(workspace: str | None, *, sync_back: bool, detach: bool) -> Path | None:
    """
    Return the directory that changes are brought home to, or None if nobody asked.

    Raises:
        BadInputError: There is none, or nobody would wait for them.
    """
    from leasehold.cli.carrying import is_url

    if not sync_back:
        return None
    if workspace is None or is_url(workspace):
        raise BadInputError("--sync-back: needs --workspace with a directory")
    if detach:
        return None  # `runs artifacts ID --sync-back DIR` brings them later
    return Path(workspace)
