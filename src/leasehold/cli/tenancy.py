"""
Whose rows a command works on: ``--tenant``, else ``LEASEHOLD_TENANT``, else `default`.

The option is added here to every command that touches rows of a tenant, so that no command
can forget it; `cli.door` looks whether there is such a tenant.
"""

import os
from contextvars import ContextVar
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from typer.core import TyperGroup

from leasehold.errors import BadInputError
from leasehold.ids import DEFAULT_TENANT

if TYPE_CHECKING:
    from leasehold.settings import Settings

OF_TENANTS: Final = frozenset(
    {"cp", "env", "exec", "explain", "keys", "leases", "retention", "run", "runs"}
    | {"schedules", "secrets"}
)
"""Commands and groups of commands that touch rows of a tenant; the others are everybody's."""

_APART: Final = frozenset({("secrets", "new-key"), ("secrets", "rotate")})
"""Commands in those groups that touch the rows of all."""

_typed: ContextVar[str | None] = ContextVar("tenant", default=None)
"""None: the command is nobody's; empty: a tenant's, and which was not typed."""


def begin() -> None:
    """Forget what a command before this one in the same process was about."""
    _typed.set(None)


def typed() -> str | None:
    """Return the tenant that was typed, if one was."""
    return _typed.get() or None


def is_tenants() -> bool:
    """Return whether the command touches rows of a tenant."""
    return _typed.get() is not None


def named() -> str | None:
    """Return the tenant that was named, by the option or in the environment."""
    return typed() or os.environ.get("LEASEHOLD_TENANT") or None


def refuse_typed(why: str) -> None:
    """
    Refuse a tenant that was typed where none has a meaning.

    Raises:
        BadInputError: One was; says why.
    """
    if typed() is not None:
        raise BadInputError(f"--tenant: {why}", field="--tenant")


def tenant_of(settings: "Settings") -> str:
    """Return whose rows the command works on; whether there is such a tenant, a door sees."""
    typed = _typed.get()
    return DEFAULT_TENANT if typed is None else typed or settings.tenant


def extend(root: TyperGroup) -> None:
    """Give `--tenant` to the commands of a command line that are a tenant's."""
    for name, command in root.commands.items():
        if name not in OF_TENANTS:
            continue
        if not isinstance(command, TyperGroup):
            command.params.append(_option())
            continue
        for part, inner in command.commands.items():
            if (name, part) not in _APART:
                inner.params.append(_option())


def _option() -> Any:
    app = typer.Typer()
    app.command()(_carrier)
    (option,) = (one for one in typer.main.get_command(app).params if one.name == "tenant")
    option.expose_value = False
    return option


def _note(value: str | None) -> str | None:
    _typed.set(value or "")
    return value


def _carrier(
    *,
    tenant: Annotated[
        str | None,
        typer.Option(
            "--tenant",
            metavar="NAME",
            callback=_note,
            help="Whose rows; default: LEASEHOLD_TENANT, else `default`.",
        ),
    ] = None,
) -> None:
    """Carry the option: typer makes options of parameters only."""
    del tenant
