"""
What a command says of its own run while it works, with the token that its sandbox was given.

Authority is SQL, at each request: the token names a start of a command, and is good for as long
as that is the run's current one. Whoever ends it needs the run's row, which each report locks
before it looks again; so nothing is written of a start that is over, and nothing is taken back.
A report is one transaction: killed before its commit it did not happen and the command, which
had no answer, may say it again.

A command knows secrets and may repeat them in what it says. They are hidden in it like in its
output (`revealing`); if this process cannot know them, it takes no words of that run at all.
Files are kept as they are, like those that are collected.
"""

from dataclasses import dataclass, field
from typing import Annotated, Any, BinaryIO, Final

from pydantic import Field

from leasehold.domain import run_tokens
from leasehold.domain.redaction import Redactor
from leasehold.domain.secrets import Pins
from leasehold.domain.specs import Spec, Text
from leasehold.errors import (
    BadInputError,
    ConflictError,
    SecretUnavailableError,
    TooLargeError,
    UnauthenticatedError,
)
from leasehold.orchestrator import revealing, storing
from leasehold.orchestrator.jobs import Context
from leasehold.store import artifacts, moves, reports
from leasehold.store.database import Row, Tx
from leasehold.store.sql import dump

RESULT_BYTES: Final = 64 * 1024
EVENT_BYTES: Final = 4 * 1024
LINES: Final = 200
"""Lines of history that one run's commands may write."""

PATH_CHARS: Final = 400
EVENT_PREFIX: Final = "user."
OVER: Final = "the token is not valid: what it was made for is over"


class OverError(UnauthenticatedError):
    """A token that we have made, of a start that is over: nobody has guessed anything."""


class ProgressSpec(Spec):
    """How far the command is."""

    percent: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] | None = None
    message: Annotated[Text, Field(max_length=500)] | None = None


class EventSpec(Spec):
    """A line for the run's history."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,49}$")]
    data: dict[str, Any] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Speaker:
    """The start of a command that a token was made for."""

    tenant_id: str
    run_id: str
    execution_id: str
    pins: tuple[Pins, ...] = field(default=(), repr=False)
    """Of the secrets that it was given."""


def authenticate(tx: Tx, execution_id: str) -> Speaker:
    """
    Return who speaks with a token that we have made.

    Raises:
        OverError: That start is not its run's current one any more.
    """
    row = reports.current(tx, execution_id)
    if row is None:
        raise OverError(OVER)
    pins = tuple(found for found in (row["secrets"], row["facts"].get("secrets")) if found)
    return Speaker(row["tenant_id"], row["run_id"], row["execution_id"], pins)


def _hold(tx: Tx, speaker: Speaker) -> Row:
    held = reports.hold(tx, speaker.execution_id, run_id=speaker.run_id)
    if held is None:
        raise OverError(OVER)
    return held


def hider_of(context: Context, speaker: Speaker) -> Redactor:
    """
    Return what hides all that the command was given; never asked for in a transaction.

    Raises:
        ConflictError: This process cannot know it.
    """
    own = revealing.of_token(context, speaker.execution_id)
    try:
        return revealing.redactor(context, speaker.tenant_id, *speaker.pins).beside(own)
    except SecretUnavailableError:
        raise ConflictError(
            "the run has secrets that this process of the API cannot hide in what it says;"
            " whoever runs it has to give it the keys and the sources of the workers"
        ) from None


def look(tx: Tx, speaker: Speaker) -> Row:
    """Return what a command may know of its own run."""
    row = reports.current(tx, speaker.execution_id)
    if row is None:
        raise OverError(OVER)
    return _shown(row)


def _shown(held: Row) -> Row:
    return {
        "run_id": held["run_id"],
        "execution_id": held["execution_id"],
        "end_requested": held["end_requested"],
    }


def beat(tx: Tx, speaker: Speaker) -> Row:
    """Write that the command lives; return what it may know of its run."""
    held = _hold(tx, speaker)
    reports.note(tx, held)
    return _shown(held)


def progress(tx: Tx, speaker: Speaker, spec: ProgressSpec, hider: Redactor) -> Row:
    """Write how far it is; the latest counts, as a whole."""
    if spec.percent is None and spec.message is None:
        raise BadInputError("percent: give it, or a message", field="percent")
    held = _hold(tx, speaker)
    message = None if spec.message is None else hider.hide_text(spec.message)
    reports.note(tx, held, percent=spec.percent, message=message, progress_at=None)
    return _shown(held)


def result(tx: Tx, speaker: Speaker, value: Any, hider: Redactor) -> Row:
    """
    Write what the run came to; the latest counts, and stays when the run is over.

    Raises:
        TooLargeError: It is no result but a file: store it as an artifact.
    """
    size = len(dump(value).encode())
    if size > RESULT_BYTES:
        raise TooLargeError(
            f"a result has at most {RESULT_BYTES} bytes of JSON, this one {size};"
            " store it as an artifact"
        )
    held = _hold(tx, speaker)
    reports.note(tx, held, result={"value": hider.hide_json(value)}, result_at=None)
    if reports.count_line(tx, held, most=LINES):
        _record(tx, held, "result.reported", {"bytes": size})
    return _shown(held)


def event(tx: Tx, speaker: Speaker, spec: EventSpec, hider: Redactor) -> Row:
    """
    Write a line into the run's history.

    Raises:
        TooLargeError: It has too much data, or the run has too many of them.
    """
    size = len(dump(spec.data).encode())
    if size > EVENT_BYTES:
        raise TooLargeError(f"data: at most {EVENT_BYTES} bytes of JSON, this has {size}")
    if hider.hide_text(spec.name) != spec.name:
        raise BadInputError("name: has a secret in it", field="name")
    held = _hold(tx, speaker)
    if not reports.count_line(tx, held, most=LINES):
        raise TooLargeError(f"a run's commands write at most {LINES} lines of its history")
    _record(tx, held, EVENT_PREFIX + spec.name, hider.hide_json(spec.data))
    return _shown(held)


def _record(tx: Tx, held: Row, name: str, data: Any) -> None:
    moves.record(
        tx,
        (name, {**data, "execution": held["execution_id"]}),
        tenant_id=held["tenant_id"],
        run_id=held["run_id"],
        lease_id=held["lease_id"],
    )


def check_path(path: str, hider: Redactor) -> str:
    """
    Return the path under which an artifact is listed.

    Raises:
        BadInputError: It leads elsewhere, or cannot be shown.
    """
    parts = path.split("/")
    plain = path.isprintable() and len(path) <= PATH_CHARS
    if not plain or any(part in {"", ".", ".."} for part in parts):
        raise BadInputError(
            f"path: relative, without . and .., printable, at most {PATH_CHARS} characters",
            field="path",
        )
    if hider.hide_text(path) != path:
        raise BadInputError("path: has a secret in it", field="path")
    return path


def check_room(tx: Tx, context: Context, speaker: Speaker, path: str, *, size: int) -> None:
    """
    Refuse a file for which there is no room, before it is stored.

    Raises:
        TooLargeError: It is too big, or with it the run has too many or too much.
    """
    limits = context.limits
    if size > limits.artifact_bytes:
        raise TooLargeError(f"an artifact has at most {limits.artifact_bytes} bytes")
    there = artifacts.pushed(tx, speaker.run_id, but=path)
    if there["files"] >= limits.artifacts.files:
        raise TooLargeError(f"a run has at most {limits.artifacts.files} artifacts")
    if there["bytes"] + size > limits.artifacts.bytes:
        raise TooLargeError(f"a run's artifacts have at most {limits.artifacts.bytes} bytes")


def artifact(
    context: Context, speaker: Speaker, path: str, source: BinaryIO, *, digest: str, size: int
) -> Row:
    """
    Keep a file of the run: bytes first, under the name of their content, then its line.

    Killed in between: nothing names the bytes, and they go after a while. Again: the same.

    Raises:
        TooLargeError: There is no room for it.
        OverError: The command was over before its file was kept.
        BlobsUnavailableError: The store does not answer, or is full.
    """
    with context.database.read() as tx:
        check_room(tx, context, speaker, path, size=size)
    storing.keep(context, speaker.tenant_id, source, digest=digest, size=size)
    with context.database.write("report.artifact") as tx:
        held = _hold(tx, speaker)
        check_room(tx, context, speaker, path, size=size)
        artifacts.push(tx, held, path, digest=digest, size=size, grace_us=storing.GRACE_US)
        if reports.count_line(tx, held, most=LINES):
            _record(tx, held, "artifact.stored", {"path": path, "bytes": size})
    return {"path": path, "bytes": size, "sha256": digest}


def execution_of(context: Context, token: str) -> str:
    """
    Return which start a token is of.

    Raises:
        UnauthenticatedError: It is none that this deployment has made.
    """
    found = run_tokens.execution_of(context.run_token_key, token)
    if found is None:
        raise UnauthenticatedError("the token is not valid")
    return found
