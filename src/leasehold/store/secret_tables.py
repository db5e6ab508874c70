"""
The rows of secrets: names, encrypted values, and which leases name them.

No ``from __future__ import annotations`` here: SQLModel reads the annotations.
"""

from typing import Final

import sqlalchemy as sa
from sqlmodel import Field, SQLModel

from leasehold.store.columns import micros


class Secret(SQLModel, table=True):
    """The name of a secret and its current version; the value is in `secret_versions`."""

    __tablename__ = "secrets"
    tenant_id: str = Field(primary_key=True, foreign_key="tenants.id", max_length=64)
    name: str = Field(primary_key=True, max_length=100)
    version: int
    """Grows with each value; also past a deletion, so that none is used twice."""

    deleted: bool = Field(default=False, sa_column_kwargs={"server_default": sa.false()})
    created_at: int = micros(nullable=False)
    updated_at: int = micros(nullable=False)


class SecretVersion(SQLModel, table=True):
    """One value, encrypted; kept while it is the current one or a live lease names it."""

    __tablename__ = "secret_versions"
    tenant_id: str = Field(primary_key=True, max_length=64)
    name: str = Field(primary_key=True, max_length=100)
    version: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    key_id: str = Field(max_length=16)
    """Which key encrypted it; `secrets rotate` is done when all have the first one's."""

    ciphertext: str
    created_at: int = micros(nullable=False)


class SecretUse(SQLModel, table=True):
    """That a lease names a version: it must not go while the lease lives."""

    __tablename__ = "secret_uses"
    __table_args__ = (
        sa.ForeignKeyConstraint(
            ["tenant_id", "name", "version"],
            ["secret_versions.tenant_id", "secret_versions.name", "secret_versions.version"],
            name="secret_use_version",
        ),
        sa.Index("secret_use_of_version", "tenant_id", "name", "version"),
    )
    lease_id: str = Field(primary_key=True, max_length=64)
    tenant_id: str = Field(max_length=64)
    name: str = Field(primary_key=True, max_length=100)
    version: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})


SECRET_TABLES: Final = (Secret, SecretVersion, SecretUse)
