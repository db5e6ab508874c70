"""What both directions of `cp` share: the run that does it, and how its end is told."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from leasehold.cli import codes, following, interrupting
from leasehold.cli.codes import say
from leasehold.cli.output import ProgressLine
from leasehold.cli.ports import Follower, Footing, Port, Shape
from leasehold.cli.submitting import Place, parsed
from leasehold.domain.lifecycle import RunStatus
from leasehold.errors import BadInputError, ConflictError, NotFoundError

_SHOWN: Final = 5
_TRIES: Final = 3
_ERRORS: Final[dict[str, type[BadInputError | NotFoundError | ConflictError]]] = {
    "path_missing": NotFoundError,
    "path_refused": ConflictError,
    "workspace_rejected": BadInputError,
}
"""Ends of such a run for which the command has an exit code of its own."""


@dataclass(frozen=True, slots=True)
class Done:
    """A run that is over, and what it left."""

    run: Shape
    lines: Sequence[Shape]

    @property
    def events(self) -> dict[str, Any]:
        """The data of each event by its name."""
        return {event["name"]: event["data"] for event in self.run["events"]}


class _Follower:
    """Follows a copy; one that is parked is over, since nobody would take it up again."""

    def __init__(self, one: Follower) -> None:
        self._one = one
        self.run_id = one.run_id
        self.turn, self.stop_showing, self.close = one.turn, one.stop_showing, one.close

    @property
    def row(self) -> Shape:
        return self._one.row

    @property
    def last(self) -> Shape | None:
        return self._one.last

    @property
    def over(self) -> bool:
        return self._one.over or self.row.get("status") == RunStatus.PARKED


def inside(path: str) -> str:
    """
    Return a path of the sandbox in its plain form, the working directory as ``.``.

    Raises:
        BadInputError: It leads upwards.
    """
    parts = path.split("/")
    if ".." in parts:
        raise BadInputError(f"cp: {path!r}: a path in a sandbox has no `..`")
    plain = "/".join(part for part in parts if part not in {"", "."})
    return f"/{plain}" if path.startswith("/") else plain or "."


def carry(port: Port, footing: Footing, lease: str, body: dict[str, Any]) -> Done | int:
    """
    Let a worker do it; return what came of it, or our exit code if we left it before.

    Raises:
        NotFoundError: There is no such lease, or no such path in its sandbox.
        ConflictError: A run is at work in it, it is gone, or something is in the way.
    """
    # A command that does nothing: the files go in before it and come out after it.
    # A person waits for it: it is not tried as often as work that can wait.
    spec = parsed({"commands": [{"argv": ["true"]}], "max_infra_attempts": _TRIES, **body})
    place = Place(env=None, provider=None, lease=lease, visit=True)
    request = place.request(port, spec, None)

    def begin() -> _Follower:
        return _Follower(port.runs.follower(port.runs.submit(request)["id"], sink=None))

    follower, code = interrupting.follow(
        port, begin, "cancel", tick=footing.keep, progress=ProgressLine()
    )
    if code is not None:
        return code
    run_id = follower.run_id
    if follower.row["status"] == RunStatus.PARKED:
        _give_up(port, run_id)
    following.say_debt(following.until_released(port, run_id, tick=footing.keep))
    done = Done(port.runs.show(run_id), port.runs.artifacts(run_id))
    kind = _ERRORS.get(done.run["code"] or "")
    if kind is not None:
        raise kind(f"cp: {done.run['message']}")
    return done


def _give_up(port: Port, run_id: str) -> None:
    """End a run that is parked, and say what stood in its way."""
    events = Done(port.runs.cancel(run_id, why="parked"), ()).events
    trouble = events.get("files.failed") or events.get("step.execute.failed") or {}
    say(f"cp: given up after {_TRIES} tries: {trouble.get('message', 'see runs show')}")


def failed(done: Done) -> int:
    """Say how a run ended that did not come to copy anything; return our exit code."""
    why = done.run["artifacts_error"]
    if why is not None and why != "not collected":
        say(f"cp: {why}")
        return codes.WRONG
    following.say_end(done.run)
    return codes.NO_EXIT_CODE


def say_left_out(left_out: Sequence[tuple[str, str]]) -> int:
    """Say what was not copied, and why; return our exit code."""
    for path, why in left_out[:_SHOWN]:
        say(f"cp: left out {path!r}: {why}")
    if len(left_out) > _SHOWN:
        say(f"cp: left out {len(left_out) - _SHOWN} more")
    return codes.WRONG if left_out else 0


def report(
    done: Done, *, files: int, size: int, left_out: Sequence[tuple[str, str]]
) -> dict[str, Any]:
    """Return what `--json` says."""
    return {
        "run_id": done.run["id"],
        "lease_id": done.run["lease_id"],
        "files": files,
        "bytes": size,
        "left_out": [{"path": path, "reason": why} for path, why in left_out],
    }
