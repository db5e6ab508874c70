"""Options that several commands share, and how their values are read."""

from collections.abc import Iterable
from contextvars import ContextVar
from typing import Annotated, Any, Final, TypeAlias

import typer

from leasehold.errors import BadInputError

AsJson: TypeAlias = Annotated[
    bool, typer.Option("--json", help="Write JSON to stdout and nothing else.")
]
Limit: TypeAlias = Annotated[
    int, typer.Option("--limit", "-n", min=1, max=10_000, help="At most so many, newest first.")
]
RunId: TypeAlias = Annotated[
    str, typer.Argument(metavar="ID", help="The run's id, or how it begins or ends.")
]
LeaseId: TypeAlias = Annotated[
    str, typer.Argument(metavar="ID", help="The lease's id, or how it begins or ends.")
]
Environment: TypeAlias = Annotated[
    str, typer.Argument(metavar="NAME", help="The environment's name or id.")
]
HostLabels: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--label", metavar="K=V", help="What this host has, for `--require`; repeat it."
    ),
]
PATIENCE: Final = "30s"
PATIENCE_S: Final = 30.0
patience: ContextVar[float] = ContextVar("patience", default=PATIENCE_S)
"""How long this command keeps asking a database that does not answer; `--patience`."""


def pairs(values: Iterable[str] | None, *, option: str) -> dict[str, str]:
    """
    Return the mapping of repeated ``K=V`` options.

    Raises:
        BadInputError: One of them has no ``=`` or no name, or a name comes twice.
    """
    found: dict[str, str] = {}
    for value in values or ():
        name, separator, text = value.partition("=")
        if not separator or not name:
            raise BadInputError(f"{option}: must be K=V, got {value!r}", field=option)
        if name in found:
            raise BadInputError(f"{option}: {name} is given twice", field=option)
        found[name] = text
    return found


def with_secrets(
    env: dict[str, str], values: Iterable[str] | None, *, option: str
) -> dict[str, Any]:
    """
    Return variables with those of repeated ``K=NAME`` options, which refer to secrets.

    Raises:
        BadInputError: As `pairs`; or a variable is given both ways.
    """
    named = pairs(values, option=option)
    if twice := sorted(set(env) & set(named)):
        raise BadInputError(f"{option}: {twice[0]} is given with -e as well", field=option)
    return {**env, **{name: {"secret": secret} for name, secret in named.items()}}


def as_option(error: BadInputError, names: dict[str, str]) -> BadInputError:
    """Return the refusal of a spec's field in the words of the option that set it."""
    field = error.field or ""
    for path, option in names.items():
        if field == path or field.startswith(f"{path}."):
            rest = str(error).removeprefix(path).lstrip(".")
            return BadInputError(f"{option}: {rest.removeprefix(':').strip()}", field=option)
    return error
