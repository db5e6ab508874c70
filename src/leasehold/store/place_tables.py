"""
Where runs go that name no place, and what workers are asked about places that are to be.

No ``from __future__ import annotations`` here: SQLModel reads the annotations.
"""

from typing import Any, Final

import sqlalchemy as sa
from sqlmodel import Field, SQLModel

from leasehold.domain.lifecycle import SelectionKind
from leasehold.store.columns import json_field, known, micros, partial


class Selection(SQLModel, table=True):
    """
    Which environment runs go to that name none: of a workspace, a project, or all others.

    A row that is not there means "the next one": workspace, project, tenant, `local`.
    """

    __tablename__ = "selections"
    __table_args__ = (
        sa.CheckConstraint("(kind = 'tenant') = (name = '')", name="selection_name"),
    )
    tenant_id: str = Field(primary_key=True, foreign_key="tenants.id", max_length=64)
    kind: SelectionKind = Field(primary_key=True, sa_type=known(SelectionKind))
    name: str = Field(primary_key=True)
    """Of the workspace; of the project (the run's label `project`); empty for the tenant."""

    environment: str = Field(max_length=100)
    """Its name or id, looked up for each run."""

    created_at: int = micros(nullable=False)
    updated_at: int = micros(nullable=False)


class ConfigCheck(SQLModel, table=True):
    """
    A question to a worker: what does the provider say of this config?

    It has no effect, so nothing is fenced: whoever answers first has answered. An asker waits
    until `until_at`; what is older is deleted.
    """

    __tablename__ = "config_checks"
    __table_args__ = (
        sa.CheckConstraint(
            "(answered_at IS NULL) = (answer IS NULL)", name="config_check_answered"
        ),
        sa.CheckConstraint(
            "answered_at IS NULL OR (claimed_by IS NULL AND due_at IS NULL)",
            name="config_check_over_rests",
        ),
        partial("config_check_due", "due_at", where="due_at IS NOT NULL", unique=False),
        partial(
            "config_check_claimed", "claimed_by", where="claimed_by IS NOT NULL", unique=False
        ),
        sa.Index("config_check_until", "until_at"),
    )
    id: str = Field(primary_key=True, max_length=64)
    tenant_id: str = Field(foreign_key="tenants.id", max_length=64)
    provider: str = Field(max_length=64)
    config: dict[str, Any] = json_field(nullable=False)
    """As it is to be stored: secrets by their names."""

    requires: dict[str, Any] = json_field(nullable=False)
    """Labels of the hosts that are asked, if one of them is there."""

    queue: str = Field(max_length=128)
    tries: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    claimed_by: str | None = Field(default=None, max_length=64)
    due_at: int | None = micros()
    """When it is sent again: its message, or the worker that has it, may be lost."""

    asked_at: int = micros(nullable=False)
    until_at: int = micros(nullable=False)
    answered_at: int | None = micros()
    answer: dict[str, Any] | None = json_field()


PLACE_TABLES: Final = (Selection, ConfigCheck)
