"""
The rows of tenants' API keys.

No ``from __future__ import annotations`` here: SQLModel reads the annotations.
"""

from typing import Final

import sqlalchemy as sa
from sqlmodel import Field, SQLModel

from leasehold.domain.roles import Role
from leasehold.ids import PLATFORM
from leasehold.store.columns import known, micros, partial


class ApiKey(SQLModel, table=True):
    """
    Who may use the API as which tenant; the key itself is shown once and stored nowhere.

    Revoked and expired ones stay, since history names them as actors.
    """

    __tablename__ = "api_keys"
    __table_args__ = (
        sa.UniqueConstraint("prefix", name="api_key_prefix"),
        sa.CheckConstraint(
            f"(role = 'root') = (tenant_id = '{PLATFORM}')", name="key_of_platform"
        ),
        partial("api_key_name", "tenant_id", "name", where="revoked_at IS NULL"),
    )
    id: str = Field(primary_key=True, max_length=64)
    tenant_id: str = Field(foreign_key="tenants.id", max_length=64)
    name: str = Field(max_length=100)
    prefix: str = Field(max_length=16)
    """The key's public part, by which its row is found."""

    hash: str = Field(max_length=64)
    """SHA-256 of the whole key: with 256 random bits there is nothing to guess."""

    role: Role = Field(sa_type=known(Role))
    created_at: int = micros(nullable=False)
    expires_at: int | None = micros()
    last_used_at: int | None = micros()
    """Exact to a minute."""

    revoked_at: int | None = micros()


KEY_TABLES: Final = (ApiKey,)
