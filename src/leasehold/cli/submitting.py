"""
Submitting what was typed, and following it to its end: what `run`, `exec` and `cp` share.
"""

import base64
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Literal, TextIO

import typer

from leasehold.cli.codes import say
from leasehold.cli.options import as_option
from leasehold.errors import (
    ApiUnavailableError,
    BadInputError,
    ConflictError,
    StoreUnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from leasehold.cli.carrying import Carried
    from leasehold.cli.ports import Footing, Port, Shape, Way
    from leasehold.domain.after import After
    from leasehold.domain.specs import RunSpec
    from leasehold.orchestrator.submit import Request

OnInterrupt = Literal["ask", "cancel", "detach"]
_FIELDS: Final = {
    "commands.0.cwd": "--cwd",
    "commands.0.stdin": "--stdin",
    "commands.0.argv": "CMD",
    "commands": "--commands",
    "requires": "--require",
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
    "copy_in.to": "PATH",
    "copy_out": "PATH",
    "labels": "--label",
    "env": "-e",
    "after": "--after",
    "name": "--provider",
    "provider": "--provider",
}


def parsed(body: dict[str, Any]) -> "RunSpec":
    """Return the spec; what is wrong in it is refused in the words of the options."""
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


class Place:
    """Where a run is to happen, as it was typed."""

    def __init__(
        self,
        *,
        env: str | None,
        provider: str | None,
        lease: str | None,
        visit: bool = False,
        carried: "Carried | None" = None,
        after: "Sequence[str]" = (),
    ) -> None:
        self.env, self.provider, self.lease, self.visit = env, provider, lease, visit
        self.carried, self.after = carried, after

    def request(self, door: "Port", spec: "RunSpec", key: str | None) -> "Request":
        """
        Return the request; its environment is made if it may be, its workspace carried.

        Raises:
            ConflictError: The environment of that name belongs to another provider.
        """
        from leasehold.ids import new_id
        from leasehold.orchestrator.submit import Request

        lease_id = door.resolve("lease", self.lease) if self.lease else None
        environment = None if lease_id else self.env
        if self.provider is not None:
            environment = self._made(door, self.provider)
        if self.carried is not None and self.carried.spool is not None:
            tree = self.carried.tree
            door.keep(self.carried.spool, digest=tree["digest"], size=tree["bytes"])
        return Request(
            spec=spec,
            environment=environment,
            lease_id=lease_id,
            visit=self.visit,
            after=self._after(door),
            # With a key of our own a submit whose answer was lost may be asked again.
            key=key or f"cli-{new_id()}",
            tenant_id=door.tenant,
            actor="cli",
        )

    def _after(self, door: "Port") -> "tuple[After, ...]":
        from leasehold.domain.after import parse_after

        typed = [one.partition(":") for one in self.after]
        try:
            return parse_after(
                [door.resolve("run", run) + colon + outcome for run, colon, outcome in typed]
            )
        except BadInputError as error:
            raise as_option(error, _FIELDS) from None

    def _made(self, door: "Port", name: str) -> str:
        from leasehold.domain.specs import EnvironmentSpec, parse

        body = {"name": name, "provider": name}
        try:
            spec = parse(EnvironmentSpec, body)
        except BadInputError as error:
            raise as_option(error, _FIELDS) from None
        row = door.environments.ensure(spec)
        if row["provider"] != name:
            raise ConflictError(
                f"environment {name} belongs to provider {row['provider']}; name it with --env"
            )
        return name


def detached(
    way: "Way", spec: "RunSpec", place: Place, key: str | None, *, as_json: bool
) -> None:
    from leasehold.cli import output

    with way.open() as door:
        shape = door.runs.submit(place.request(door, spec, key))
    if as_json:
        output.emit(shape)
    else:
        typer.echo(shape["id"])


def follow(
    way: "Way",
    footing: "Footing",
    spec: "RunSpec",
    place: Place,
    key: str | None,
    on_interrupt: OnInterrupt,
    *,
    as_json: bool,
    home: Path | None,
) -> int:
    """Submit a run and follow it to its end; return our exit code."""
    from leasehold.cli import following, interrupting
    from leasehold.cli.output import ProgressLine
    from leasehold.cli.ports import Follower

    with way.open() as door:
        request = place.request(door, spec, key)
        collected = _Collected() if as_json else None
        out = collected.stdout if collected else _stream(sys.stdout)
        err = collected.stderr if collected else _stream(sys.stderr)
        progress = ProgressLine()
        sink = following.to_streams(out, err, progress=progress)
        begun: list[Follower] = []

        def begin() -> Follower:
            begun.append(door.runs.follower(door.runs.submit(request)["id"], sink=sink))
            return begun[0]

        try:
            follower, code = interrupting.follow(
                door, begin, on_interrupt, tick=footing.keep, progress=progress
            )
        except (StoreUnavailableError, ApiUnavailableError):
            progress.end()
            for one in begun:
                say(f"run {one.run_id} is out of sight; it goes on, and its end is kept in SQL")
            raise
        finally:
            for one in begun:
                one.close()
        if code is not None:
            if not follower.over and footing.is_own:
                say("its command goes on by itself; `leasehold up` here takes it up again")
            return code
        last = following.until_released(door, follower.run_id, tick=footing.keep)
        following.say_debt(last)
        run = door.runs.show(follower.run_id)
        _bring_home(door, run, home)
        if collected:
            _emit(run, collected)
        else:
            following.say_dropped(follower.last)
            following.say_end(follower.row)
        return following.exit_code_of(follower)


def _bring_home(door: "Port", run: "Shape", home: Path | None) -> None:
    """Bring home what the run changed, and say what it left that is not in the store."""
    if run["artifacts_error"]:
        say(f"not all that it left was kept: {run['artifacts_error']}")
    if home is not None and run["artifacts_error"] != "not collected":
        door.bring_home(run["id"], home)


class _Collected:
    """Output that is kept for one JSON document at the end."""

    def __init__(self) -> None:
        import io

        self.stdout, self.stderr = io.BytesIO(), io.BytesIO()


def _emit(run: "Shape", collected: _Collected) -> None:
    from leasehold.cli import output

    run["stdout"] = collected.stdout.getvalue().decode(errors="replace")
    run["stderr"] = collected.stderr.getvalue().decode(errors="replace")
    output.emit(run)


def _stream(text: TextIO) -> BinaryIO:
    """Return the bytes below a text stream, with nothing of ours left above them."""
    text.flush()
    return text.buffer
