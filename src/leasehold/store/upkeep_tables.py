"""
Rows of upkeep: what sweeps saw, how long things are kept, what lies in the store of blobs.

No ``from __future__ import annotations`` here: SQLModel reads the annotations.
"""

from typing import Any, Final

import sqlalchemy as sa
from sqlmodel import Field, SQLModel

from leasehold.store.columns import json_field, micros, partial


class SweepReport(SQLModel, table=True):
    """What a host's last sweep of one provider saw and did; `leasehold reconcile` reads it."""

    __tablename__ = "sweep_reports"
    host_id: str = Field(primary_key=True, foreign_key="hosts.id", max_length=64)
    provider: str = Field(primary_key=True, max_length=64)
    request: int = micros(nullable=False)
    """The newest request that this sweep began after; 0: nobody has asked."""

    dry_run: bool
    at: int = micros(nullable=False)
    report: dict[str, Any] = json_field(nullable=False)


class RetentionRow(SQLModel, table=True):
    """How long a tenant keeps what is over; without a row: `domain.retention.DEFAULT`."""

    __tablename__ = "retention"
    tenant_id: str = Field(primary_key=True, foreign_key="tenants.id", max_length=64)
    runs_s: int | None = micros()
    """Seconds after their end; NULL: for ever."""

    output_s: int | None = micros()
    updated_at: int = micros(nullable=False)


class BlobRow(SQLModel, table=True):
    """
    One object in the store; written before the object, deleted after it.

    Runs and artifacts name it by its digest. Whether they still do is asked at `look_at`,
    which is set by who puts it and by who deletes one of those rows.
    """

    __tablename__ = "blobs"
    __table_args__ = (
        partial("blob_live", "tenant_id", "digest", where="going_at IS NULL"),
        partial(
            "blob_look",
            "look_at",
            where="look_at IS NOT NULL AND going_at IS NULL",
            unique=False,
        ),
        partial("blob_going", "going_at", where="going_at IS NOT NULL", unique=False),
        sa.CheckConstraint("name LIKE digest || '%'", name="blob_name"),
    )
    tenant_id: str = Field(primary_key=True, foreign_key="tenants.id", max_length=64)
    name: str = Field(primary_key=True, max_length=128)
    """The object's: its digest, or that and a suffix while another of it was going."""

    digest: str = Field(max_length=64)
    bytes: int = micros(nullable=False, default=0)
    look_at: int | None = micros()
    """When to ask whether anything names it; NULL: something does."""

    going_at: int | None = micros()
    """Nothing named it then: the object is deleted, and nobody writes one of this name."""


UPKEEP_TABLES: Final = (SweepReport, RetentionRow, BlobRow)
