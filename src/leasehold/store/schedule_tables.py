"""
The rows of schedules.

No ``from __future__ import annotations`` here: SQLModel reads the annotations.
"""

from typing import Any, Final

import sqlalchemy as sa
from sqlmodel import Field, SQLModel

from leasehold.domain.lifecycle import ScheduleStatus
from leasehold.domain.schedules import Misfire, Overlap
from leasehold.store.columns import json_field, known, micros, partial


class Schedule(SQLModel, table=True):
    """Runs that a clock submits; `next_at` is when, and what the clocks compare and set."""

    __tablename__ = "schedules"
    __table_args__ = (
        sa.UniqueConstraint("tenant_id", "name", name="schedule_name"),
        sa.CheckConstraint("(cron IS NULL) <> (at IS NULL)", name="schedule_kind"),
        sa.CheckConstraint(
            "(status = 'active') = (next_at IS NOT NULL)", name="schedule_never_forgotten"
        ),
        partial("schedule_next", "next_at", where="next_at IS NOT NULL", unique=False),
    )
    id: str = Field(primary_key=True, max_length=64)
    tenant_id: str = Field(foreign_key="tenants.id", max_length=64)
    name: str = Field(max_length=100)
    status: ScheduleStatus = Field(sa_type=known(ScheduleStatus))
    cron: str | None = Field(default=None, max_length=200)
    at: int | None = micros()
    timezone: str = Field(max_length=64)
    environment: str | None = Field(default=None, max_length=100)
    """Its name or id; NULL: chosen each time, as for a run that names none."""

    spec: dict[str, Any] = json_field(nullable=False)
    """A `RunSpec`."""

    misfire: Misfire = Field(sa_type=known(Misfire))
    overlap: Overlap = Field(sa_type=known(Overlap))
    next_at: int | None = micros()
    last_at: int | None = micros()
    """The time that was due when it last made a run."""

    last_run_id: str | None = Field(default=None, max_length=64)
    last_error: str | None = None
    """Why the last time that was due made no run; NULL: it made one."""

    fired: int = micros(nullable=False, default=0)
    """How many runs it has made."""

    created_at: int = micros(nullable=False)
    updated_at: int = micros(nullable=False)


SCHEDULE_TABLES: Final = (Schedule,)
