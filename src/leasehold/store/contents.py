"""
What came out of runs: starts of commands, output, lines about files in the store, history.

No ``from __future__ import annotations`` here: SQLModel reads the annotations.
"""

from typing import Any, Final

import sqlalchemy as sa
from sqlmodel import Field, SQLModel

from leasehold.domain import lifecycle as life
from leasehold.store.columns import among, json_field, known, micros, partial

_EXECUTION_OVER: Final = among(life.EXECUTION_ENDS)
_OF_NEITHER: Final = "run_id IS NULL AND lease_id IS NULL"


class Execution(SQLModel, table=True):
    """One start of one command; its id is never used twice."""

    __tablename__ = "executions"
    __table_args__ = (
        sa.CheckConstraint(
            f"(ended_at IS NOT NULL) = (status IN ({_EXECUTION_OVER}))", name="execution_ended"
        ),
        partial("execution_one_open", "run_id", where=f"status NOT IN ({_EXECUTION_OVER})"),
        sa.UniqueConstraint("run_id", "number", name="execution_number"),
    )
    id: str = Field(primary_key=True, max_length=128)
    tenant_id: str = Field(max_length=64)
    run_id: str = Field(foreign_key="runs.id", max_length=64)
    lease_id: str = Field(max_length=64, index=True)
    command_index: int
    number: int
    attempt: int
    status: life.ExecutionStatus = Field(sa_type=known(life.ExecutionStatus))
    handle: dict[str, Any] | None = json_field()
    stdout_offset: int = micros(nullable=False, default=0)
    stderr_offset: int = micros(nullable=False, default=0)
    cause: str | None = Field(default=None, max_length=32)
    exit_code: int | None = None
    signal: int | None = None
    stdout_dropped: int = micros(nullable=False, default=0)
    stderr_dropped: int = micros(nullable=False, default=0)
    created_at: int = micros(nullable=False)
    started_at: int | None = micros()
    ended_at: int | None = micros()
    secrets: dict[str, Any] | None = json_field()
    """Name → version of the secrets that its command was given; NULL: none."""

    runtime_url: str | None = None
    """Where its command was told to reach the API, with a token of its own; NULL: nowhere."""


class OutputChunk(SQLModel, table=True):
    """A piece of one stream, at its byte offset; pieces never overlap."""

    __tablename__ = "output_chunks"
    execution_id: str = Field(primary_key=True, max_length=128)
    stream: str = Field(primary_key=True, max_length=8)
    start: int = Field(primary_key=True, sa_type=sa.BigInteger)
    data: bytes


class Artifact(SQLModel, table=True):
    """A file that a run left: an artifact, or what it changed in its tree."""

    __tablename__ = "artifacts"
    __table_args__ = (
        sa.CheckConstraint(
            "kind IN ('artifact', 'changed', 'deleted', 'skipped')", name="artifact_kind"
        ),
        sa.CheckConstraint(
            "kind IN ('deleted', 'skipped') OR sha256 IS NOT NULL OR link IS NOT NULL",
            name="artifact_content",
        ),
        partial(
            "artifact_blob", "tenant_id", "sha256", where="sha256 IS NOT NULL", unique=False
        ),
    )
    run_id: str = Field(primary_key=True, foreign_key="runs.id", max_length=64)
    kind: str = Field(primary_key=True, max_length=16)
    path: str = Field(primary_key=True)
    tenant_id: str = Field(max_length=64)
    mode: int = 0
    bytes: int = micros(nullable=False, default=0)
    sha256: str | None = Field(default=None, max_length=64)
    """Also its name in the store."""

    link: str | None = None
    base: str | None = None
    """What the tree had there when it was packed: a SHA-256, or ``link:`` and its target."""

    reason: str | None = None
    """Why it was skipped."""

    created_at: int = micros(nullable=False)
    pushed: bool = Field(default=False, sa_column_kwargs={"server_default": sa.false()})
    """Sent by a command while it ran, with its token; else collected when the run ended."""


class Event(SQLModel, table=True):
    """One line of history; written in the transaction that made the change."""

    __tablename__ = "events"
    __table_args__ = (
        sa.Index("event_of_run", "run_id", "id"),
        sa.Index("event_of_lease", "lease_id", "id"),
        partial("event_of_tenant", "tenant_id", "at", where=_OF_NEITHER, unique=False),
        partial("event_of_actor", "tenant_id", "id", where="actor IS NOT NULL", unique=False),
    )
    id: int | None = Field(
        default=None,
        primary_key=True,
        sa_type=sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
    )
    tenant_id: str = Field(max_length=64)
    run_id: str | None = Field(default=None, max_length=64)
    lease_id: str | None = Field(default=None, max_length=64)
    at: int = micros(nullable=False)
    name: str = Field(max_length=64)
    data: dict[str, Any] = json_field(nullable=False)
    actor: str | None = None
    """Who asked for it, where that makes it a line of the tenant's activity."""
