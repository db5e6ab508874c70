"""Kinds of columns that the tables share, the same on both databases."""

from enum import StrEnum
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field

JSON_TYPE: Final = sa.JSON().with_variant(JSONB(), "postgresql")


def known(kind: type[StrEnum]) -> sa.Enum:
    """Return a column type that stores the value, not the member's name, with a CHECK."""
    return sa.Enum(
        kind,
        name=f"{kind.__name__.lower()}_known",
        native_enum=False,
        create_constraint=True,
        length=32,
        values_callable=lambda members: [member.value for member in members],
    )


def among(values: frozenset[Any]) -> str:
    """Return a SQL list of status values, for CHECKs and index conditions."""
    return ", ".join(f"'{value}'" for value in sorted(values))


def partial(name: str, *columns: str, where: str, unique: bool = True) -> sa.Index:
    """Return an index over the rows that `where` selects, on both databases."""
    return sa.Index(
        name,
        *columns,
        unique=unique,
        postgresql_where=sa.text(where),
        sqlite_where=sa.text(where),
    )


def micros(*, nullable: bool = True, default: int | None = None) -> Any:
    """Return a BIGINT column: microseconds, offsets, fences."""
    server_default = None if default is None else str(default)
    return Field(
        default=default,
        sa_column_kwargs={"server_default": server_default},
        sa_type=sa.BigInteger,
        nullable=nullable,
    )


def json_field(*, nullable: bool = True) -> Any:
    return Field(default=None, sa_type=JSON_TYPE, nullable=nullable)
