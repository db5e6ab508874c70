"""
The rows of tenants.

No ``from __future__ import annotations`` here: SQLModel reads the annotations.
"""

from typing import Final

import sqlalchemy as sa
from sqlmodel import Field, SQLModel

from leasehold.domain.lifecycle import TenantStatus
from leasehold.store.columns import known, micros


class Tenant(SQLModel, table=True):
    """
    The owner of environments, secrets, runs and keys; nothing crosses tenants.

    One row is nobody's: the platform, whose keys have the role `root`. It is archived, so
    that nothing runs in it. Tenants are never deleted, since history names them.
    """

    __tablename__ = "tenants"
    id: str = Field(primary_key=True, max_length=64)
    """Its name, for good."""

    created_at: int = micros(nullable=False)
    status: TenantStatus = Field(
        sa_type=known(TenantStatus),
        sa_column_kwargs={"server_default": TenantStatus.ACTIVE.value},
    )
    description: str | None = None
    max_concurrent: int | None = None
    """Sandboxes at once; None: what the settings say (`max_per_tenant`)."""

    max_queued: int | None = None
    """Queued runs; None: what the settings say."""

    __table_args__ = (
        sa.CheckConstraint("max_concurrent > 0", name="tenant_concurrent"),
        sa.CheckConstraint("max_queued > 0", name="tenant_queued"),
    )


TENANT_TABLES: Final = (Tenant,)
