"""
``leasehold run``: one command in a leased sandbox, as if it ran here.

stdout and stderr come through as bytes while it runs, and its exit code is ours.
"""

import base64
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, Final, Literal, TextIO

import typer

from leasehold.cli.codes import EPILOG, say
from leasehold.cli.options import TENANT, AsJson, as_option, pairs
from leasehold.errors import BadInputError, ConflictError, StoreUnavailableError

if TYPE_CHECKING:
    from leasehold.cli.door import Door
    from leasehold.cli.footing import Footing
    from leasehold.domain.specs import RunSpec
    from leasehold.orchestrator.submit import Request
    from leasehold.store.database import Row

OnInterrupt = Literal["ask", "cancel", "detach"]
DEFAULT_ENVIRONMENT: Final = "local"
_FIELDS: Final = {
    "commands.0.cwd": "--cwd",
    "commands.0.stdin": "--stdin",
    "commands.0.argv": "CMD",
    "timeout_s": "--timeout",
    "queue_timeout_s": "--queue-timeout",
    "start_timeout_s": "--start-timeout",
    "deadline_s": "--deadline",
    "grace_s": "--grace",
    "output_cap_bytes": "--output-cap",
    "retries": "--retries",
    "priority": "--priority",
    "workspace": "--workspace-name",
    "tree": "--workspace",
    "setup_timeout_s": "--setup-timeout",
    "setup": "--setup",
    "artifacts": "--artifacts",
    "labels": "--label",
    "env": "-e",
    "name": "--provider",
    "provider": "--provider",
}


def add_to(app: typer.Typer) -> None:
    app.command(
        "run",
        epilog=EPILOG,
        context_settings={"allow_interspersed_args": False, "ignore_unknown_options": False},
    )(run)


def run(
    command: Annotated[list[str], typer.Argument(metavar="CMD...", help="After `--`.")],
    *,
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
    label: Annotated[
        list[str] | None, typer.Option(metavar="K=V", help="A label of the run.")
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
    """Run a command in a leased sandbox: its output live, its exit code ours."""
    chosen = [name for name in (env, provider, lease) if name is not None]
    if len(chosen) > 1:
        raise BadInputError("--env, --provider and --lease: give one of them")
    body: dict[str, Any] = {
        "commands": [{"argv": command, "cwd": cwd, "stdin": read_stdin() if stdin else ""}],
        "env": pairs(env_vars, option="-e"),
        "timeout_s": timeout,
        "queue_timeout_s": queue_timeout,
        "start_timeout_s": start_timeout,
        "deadline_s": deadline,
        "retries": retries,
        "idempotent": idempotent,
        "priority": priority,
        "labels": pairs(label, option="--label"),
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
    from leasehold.cli import carrying, interrupting
    from leasehold.cli.door import settings
    from leasehold.cli.footing import Footing, need_stack

    home = _home_of(workspace, sync_back=sync_back, detach=detach)
    if workspace is None:
        _spec(body)  # before anything is looked for: what was typed wrong is said at once
    found = settings()
    if workspace is not None:
        name, body["tree"] = carrying.tree_of(found, workspace)
        body["workspace"] = workspace_name or name
    spec = _spec(body)
    place = _Place(env=env, provider=provider, lease=lease)
    if detach:
        need_stack(found, "--detach")
        _detached(found, spec, place, key, as_json=as_json)
        return
    with interrupting.terminable(), Footing(found) as footing:
        code = _followed(
            found, footing, spec, place, key, on_interrupt, as_json=as_json, home=home
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


def _spec(body: dict[str, Any]) -> "RunSpec":
    from leasehold.domain.specs import RunSpec, parse

    try:
        return parse(RunSpec, body)
    except BadInputError as error:
        raise as_option(error, _FIELDS) from None


def read_stdin() -> str:
    """
    Return our stdin as base64.

    Raises:
        BadInputError: It holds more than a run may carry.
    """
    from leasehold.domain.specs import MAX_STDIN_BYTES

    data = sys.stdin.buffer.read(MAX_STDIN_BYTES + 1)
    if len(data) > MAX_STDIN_BYTES:
        raise BadInputError(
            f"--stdin: more than {MAX_STDIN_BYTES} bytes (4 MiB); put it into a file that the"
            " sandbox can reach",
            field="--stdin",
        )
    return base64.b64encode(data).decode()


class _Place:
    """Where a run is to happen, as it was typed."""

    def __init__(self, *, env: str | None, provider: str | None, lease: str | None) -> None:
        self.env, self.provider, self.lease = env, provider, lease

    def request(self, door: "Door", spec: "RunSpec", key: str | None) -> "Request":
        """
        Return the request; its environment is made if it may be.

        Raises:
            ConflictError: The environment of that name belongs to another provider.
        """
        from leasehold.ids import new_id
        from leasehold.orchestrator.submit import Request

        lease_id = door.resolve("lease", self.lease) if self.lease else None
        environment = None if lease_id else self.env or self._made(door)
        return Request(
            spec=spec,
            environment=environment,
            lease_id=lease_id,
            # With a key of our own a submit whose answer was lost may be asked again.
            key=key or f"cli-{new_id()}",
            tenant_id=TENANT,
        )

    def _made(self, door: "Door") -> str:
        from leasehold.domain.specs import EnvironmentSpec, parse
        from leasehold.orchestrator import submit

        name = self.provider or DEFAULT_ENVIRONMENT
        body = {"name": name, "provider": name}
        try:
            spec = parse(EnvironmentSpec, body)
        except BadInputError as error:
            raise as_option(error, _FIELDS) from None
        row = door.write(
            "environment", lambda tx: submit.ensure_environment(tx, spec, tenant_id=TENANT)
        )
        if self.provider and row["provider"] != self.provider:
            raise ConflictError(
                f"environment {name} belongs to provider {row['provider']}; name it with --env"
            )
        return name


def _submit(door: "Door", request: "Request") -> "Row":
    from leasehold.orchestrator import submit

    row, _ = door.write("submit", lambda tx: submit.submit(tx, door.context, request))
    return row


def _detached(
    found: Any, spec: "RunSpec", place: _Place, key: str | None, *, as_json: bool
) -> None:
    from leasehold.cli import output
    from leasehold.cli.door import Door
    from leasehold.store import views

    with Door(found) as door:
        row = _submit(door, place.request(door, spec, key))
        shown = door.read(lambda tx: views.run_row(tx, row["id"]))
    assert shown is not None
    if as_json:
        output.emit(views.run_line(shown))
    else:
        typer.echo(row["id"])


def _followed(
    found: Any,
    footing: "Footing",
    spec: "RunSpec",
    place: _Place,
    key: str | None,
    on_interrupt: OnInterrupt,
    *,
    as_json: bool,
    home: Path | None,
) -> int:
    from leasehold.cli import following, interrupting
    from leasehold.cli.door import Door
    from leasehold.cli.output import ProgressLine

    with Door(found) as door:
        row = _submit(door, place.request(door, spec, key))
        collected = _Collected() if as_json else None
        out = collected.stdout if collected else _stream(sys.stdout)
        err = collected.stderr if collected else _stream(sys.stderr)
        progress = ProgressLine()
        sink = following.to_streams(out, err, progress=progress)
        follower = following.Follower(door, row["id"], sink=sink)
        try:
            code = interrupting.follow(
                door, follower, on_interrupt, tick=footing.keep, progress=progress
            )
        except StoreUnavailableError:
            progress.end()
            say(f"run {row['id']} is out of sight; it goes on, and its end is kept in SQL")
            raise
        if code is not None:
            if not follower.over and footing.is_own:
                say("its command goes on by itself; `leasehold up` here takes it up again")
            return code
        last = following.until_released(door, row["id"], tick=footing.keep)
        following.say_debt(last)
        _bring_home(door, row["id"], home)
        if collected:
            _emit(door, row["id"], collected)
        else:
            following.say_dropped(follower.last)
            following.say_end(follower.row)
        return follower.exit_code()


def _bring_home(door: "Door", run_id: str, home: Path | None) -> None:
    """Bring home what the run changed, and say what it left that is not in the store."""
    from leasehold.cli import carrying
    from leasehold.store import artifacts, views

    row = door.read(lambda tx: views.run_row(tx, run_id))
    if row is not None and row["artifacts_error"]:
        say(f"not all that it left was kept: {row['artifacts_error']}")
    if home is None or row is None or row["artifacts_error"] == "not collected":
        return
    lines = door.read(lambda tx: artifacts.of_run(tx, run_id, kinds=("changed", "deleted")))
    carrying.bring_home(door.settings, home, lines)


class _Collected:
    """Output that is kept for one JSON document at the end."""

    def __init__(self) -> None:
        import io

        self.stdout, self.stderr = io.BytesIO(), io.BytesIO()


def _emit(door: "Door", run_id: str, collected: _Collected) -> None:
    from leasehold.cli import output
    from leasehold.store import executions, moves, views
    from leasehold.store.database import Row, Tx

    def work(tx: Tx) -> tuple[Row | None, list[Row], list[Row]]:
        events = moves.events_of(tx, run_id=run_id)
        return views.run_row(tx, run_id), events, executions.of_run(tx, run_id)

    row, events, started = door.read(work)
    assert row is not None
    shape = views.run_view(row, events=events, executions=started)
    shape["stdout"] = collected.stdout.getvalue().decode(errors="replace")
    shape["stderr"] = collected.stderr.getvalue().decode(errors="replace")
    output.emit(shape)


def _stream(text: TextIO) -> BinaryIO:
    """Return the bytes below a text stream, with nothing of ours left above them."""
    text.flush()
    return text.buffer
