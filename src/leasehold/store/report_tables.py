"""
What commands report of their runs while they work.

A row of its own beside the run's: a report must not wait for whoever holds the run, nor make
its holder read the run anew.

No ``from __future__ import annotations`` here: SQLModel reads the annotations.
"""

from typing import Any, Final

import sqlalchemy as sa
from sqlmodel import Field, SQLModel

from leasehold.store.columns import json_field, micros


class RunReport(SQLModel, table=True):
    """The latest that was heard of a run; deleted with it."""

    __tablename__ = "run_reports"
    __table_args__ = (
        sa.CheckConstraint("percent >= 0 AND percent <= 100", name="report_percent"),
        sa.CheckConstraint("(result IS NULL) = (result_at IS NULL)", name="report_result"),
    )
    run_id: str = Field(primary_key=True, foreign_key="runs.id", max_length=64)
    tenant_id: str = Field(max_length=64)
    execution_id: str = Field(max_length=128)
    """Which start was heard last."""

    heard_at: int = micros(nullable=False)
    percent: float | None = None
    message: str | None = Field(default=None, max_length=1000)
    progress_at: int | None = micros()
    result: dict[str, Any] | None = json_field()
    result_at: int | None = micros()
    lines: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    """Lines of history that its commands have written."""


REPORT_TABLES: Final = (RunReport,)
