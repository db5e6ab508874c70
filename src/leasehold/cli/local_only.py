"""
Commands that work on the machine or the database itself: refused where REST is the door.

They would do something else than was meant: on this machine instead of there. Each says why,
and what does it.
"""

from collections.abc import Mapping
from typing import Any, Final

from typer.core import TyperGroup

from leasehold.cli import entering
from leasehold.errors import BadInputError

_PROCESS: Final = "it is a process of the deployment, which reaches SQL and broker itself"
_TABLES: Final = "it is about the tables themselves"

WHY: Final[Mapping[tuple[str, ...], str]] = {
    ("up",): "it runs a stack on this machine",
    ("worker",): _PROCESS,
    ("clock",): _PROCESS,
    ("api",): _PROCESS,
    ("doctor",): "it looks at this machine and at what it reaches itself",
    ("verify",): f"{_TABLES}, of all tenants",
    ("prune",): f"{_TABLES}, of all tenants; the deployment's clock does it by itself",
    ("reconcile",): "the API has no route for it",
    ("db", "upgrade"): _TABLES,
    ("db", "check"): _TABLES,
    ("db", "restored"): _TABLES,
}


def extend(root: TyperGroup) -> None:
    """Let the commands of a command line refuse what cannot be done over HTTP."""
    for path, why in WHY.items():
        command: Any = root
        for name in path:
            command = command.commands.get(name) if command is not None else None
        if command is not None:
            command.callback = _refusing(command.callback, " ".join(path), why)


def _refusing(callback: Any, name: str, why: str) -> Any:
    def call(*arguments: Any, **options: Any) -> Any:
        refuse(name, why)
        return callback(*arguments, **options)

    return call


def refuse(name: str, why: str) -> None:
    """
    Refuse a command if REST is the door.

    Raises:
        BadInputError: It is; says why, and what to do.
    """
    if entering.is_over_http():
        raise BadInputError(
            f"{name} does not go over HTTP: {why}; unset {entering.URL} where it can be done",
            field=entering.URL,
        )
