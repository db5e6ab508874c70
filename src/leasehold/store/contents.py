"""
What came out of runs: history, output, and lines about files in the store of blobs.

No ``from __future__ import annotations`` here: SQLModel reads the annotations.
"""

from typing import Any

import sqlalchemy as sa
from sqlmodel import Field, SQLModel

from leasehold.store.columns import json_field, micros, partial

_OF_NEITHER = "run_id IS NULL AND lease_id IS NULL"


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


class Event(SQLModel, table=True):
    """One line of history; written in the transaction that made the change."""

    __tablename__ = "events"
    __table_args__ = (
        sa.Index("event_of_run", "run_id", "id"),
        sa.Index("event_of_lease", "lease_id", "id"),
        partial("event_of_tenant", "tenant_id", "at", where=_OF_NEITHER, unique=False),
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
