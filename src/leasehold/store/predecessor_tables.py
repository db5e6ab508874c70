"""
Which runs start after which; see `orchestrator.preceding`.

No ``from __future__ import annotations`` here: SQLModel reads the annotations.
"""

from typing import Final

import sqlalchemy as sa
from sqlmodel import Field, SQLModel

from leasehold.domain.after import Outcome
from leasehold.store.columns import known, micros, partial


class Predecessor(SQLModel, table=True):
    """One run that another one starts after; written and deleted with the one that waits."""

    __tablename__ = "predecessors"
    __table_args__ = (
        sa.CheckConstraint("NOT due OR settled_at IS NULL", name="predecessor_settled"),
        sa.CheckConstraint(
            "ended IS NULL OR due OR settled_at IS NOT NULL", name="predecessor_never_forgotten"
        ),
        partial("predecessor_due", "run_id", where="due", unique=False),
        partial("predecessor_of", "after_id", where="settled_at IS NULL", unique=False),
    )
    run_id: str = Field(primary_key=True, max_length=64)
    """The one that waits."""

    after_id: str = Field(primary_key=True, max_length=64)
    """The one that has to end first."""

    tenant_id: str = Field(foreign_key="tenants.id", max_length=64)
    outcome: Outcome = Field(sa_type=known(Outcome))
    ended: str | None = Field(default=None, max_length=32)
    """How it has ended, once that is known here."""

    due: bool = Field(sa_column_kwargs={"server_default": sa.true()})
    """A clock is to look at it: it is new, or `after_id` has ended."""

    settled_at: int | None = micros()
    """Nothing is waited for any more."""


PREDECESSOR_TABLES: Final = (Predecessor,)
