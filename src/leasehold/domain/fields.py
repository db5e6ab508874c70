"""
What a program may ask for, as keyword arguments; the same for `enqueue` and for `Client`.

The fields are those of `RunSpec`, which checks them, and `after`; one command may be given with
its `cwd` and `stdin` beside it.
"""

import base64
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Final, TypeAlias, TypedDict

from leasehold.errors import BadInputError

Duration: TypeAlias = float | str | timedelta
"""Seconds, or text such as ``"10m"``."""

Variables: TypeAlias = Mapping[str, str | Mapping[str, str]]
"""Values as text, or ``{"secret": NAME}``."""

_OF_THE_COMMAND: Final = ("cwd", "stdin")


class RunFields(TypedDict, total=False):
    """What may be said of a run beside its command; see docs/python.md."""

    commands: Sequence[Mapping[str, Any]]
    """Several commands, each as ``{"argv": […], "cwd": …, "env": …, "stdin": …}``."""

    cwd: str
    stdin: bytes | str
    env: Variables
    timeout_s: Duration
    grace_s: Duration
    queue_timeout_s: Duration
    start_timeout_s: Duration
    deadline_s: Duration
    retries: int
    max_infra_attempts: int
    idempotent: bool
    priority: int
    labels: Mapping[str, str]
    requires: Mapping[str, str]
    workspace: str
    tree: Mapping[str, Any]
    setup: Mapping[str, Any]
    setup_timeout_s: Duration
    artifacts: Sequence[str]
    sync_back: bool
    output_cap_bytes: int
    after: Sequence[str | Mapping[str, str]]
    """Runs that have to end before it starts: ``"ID"``, ``"ID:OUTCOME"`` or a mapping."""


def body(argv: Sequence[str] | None, fields: RunFields) -> dict[str, Any]:
    """
    Return the request for a run as JSON has it.

    Raises:
        BadInputError: No command, two ways to say it, or one text where a list is wanted.
    """
    given: dict[str, Any] = {name: as_json(value) for name, value in fields.items()}
    beside = {name: given.pop(name) for name in _OF_THE_COMMAND if name in given}
    if argv is None:
        if "commands" not in given or beside:
            raise BadInputError(
                "commands: give a command, or `commands` with what belongs to each in it",
                field="commands",
            )
        given["commands"] = [
            {name: _stdin(value) if name == "stdin" else value for name, value in one.items()}
            for one in given["commands"]
        ]
        return given
    if "commands" in given:
        raise BadInputError("commands: give them or one command, not both", field="commands")
    if isinstance(argv, str | bytes):
        raise BadInputError(
            "command: must be a list of words, since no shell reads it (got str); for a shell"
            ' write ["sh", "-c", "…"]',
            field="command",
        )
    if "stdin" in beside:
        beside["stdin"] = _stdin(beside["stdin"])
    return {"commands": [{"argv": list(argv), **beside}], **given}


def _stdin(value: Any) -> Any:
    """Return what a command reads, as base64."""
    if isinstance(value, str):
        value = value.encode()
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value


def as_json(value: Any) -> Any:
    """Return a value as JSON has it: a duration is seconds."""
    match value:
        case timedelta():
            return value.total_seconds()
        case Mapping():
            return {name: as_json(one) for name, one in value.items()}
        case list() | tuple():
            return [as_json(one) for one in value]
        case _:
            return value
