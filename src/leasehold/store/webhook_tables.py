"""
The rows of webhooks and of what is sent to them.

No ``from __future__ import annotations`` here: SQLModel reads the annotations.
"""

from typing import Any, Final

import sqlalchemy as sa
from sqlmodel import Field, SQLModel

from leasehold.domain.lifecycle import DeliveryStatus
from leasehold.store.columns import json_field, known, micros, partial


class Webhook(SQLModel, table=True):
    """A receiver that is told of the ends of a tenant's runs."""

    __tablename__ = "webhooks"
    __table_args__ = (sa.UniqueConstraint("tenant_id", "name", name="webhook_name"),)
    id: str = Field(primary_key=True, max_length=64)
    tenant_id: str = Field(foreign_key="tenants.id", max_length=64)
    name: str = Field(max_length=100)
    url: str
    enabled: bool = Field(sa_column_kwargs={"server_default": sa.true()})
    statuses: list[Any] | None = json_field()
    labels: dict[str, Any] | None = json_field()
    environment: str | None = Field(default=None, max_length=100)
    key_id: str = Field(max_length=16)
    """Which key encrypted the secrets that sign."""

    ciphertext: str
    version: int
    """Of the secret; grows with each new one."""

    failures: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    """In a row; of all its deliveries."""

    rests_until: int | None = micros()
    """Nothing is sent to it before; only while it fails."""

    last_at: int | None = micros()
    last_status: int | None = None
    last_error: str | None = None
    created_at: int = micros(nullable=False)
    updated_at: int = micros(nullable=False)


class WebhookDelivery(SQLModel, table=True):
    """That a webhook is owed the end of a run; written with that end."""

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        sa.CheckConstraint(
            "(status = 'pending') = (next_at IS NOT NULL)", name="delivery_never_forgotten"
        ),
        sa.CheckConstraint(
            "(status = 'pending') = (finished_at IS NULL)", name="delivery_finished"
        ),
        partial("delivery_next", "next_at", where="next_at IS NOT NULL", unique=False),
        partial(
            "delivery_due", "webhook_id", "next_at", where="next_at IS NOT NULL", unique=False
        ),
        partial(
            "delivery_over",
            "tenant_id",
            "finished_at",
            where="finished_at IS NOT NULL",
            unique=False,
        ),
        sa.Index("delivery_newest", "webhook_id", "created_at"),
        sa.Index("delivery_of_run", "run_id"),
    )
    id: str = Field(primary_key=True, max_length=130)
    """Webhook and run: who writes it twice writes the same row."""

    tenant_id: str = Field(max_length=64)
    webhook_id: str = Field(max_length=64)
    """Not a foreign key: the end of a run must not wait for who changes the webhook."""

    run_id: str = Field(max_length=64)
    event: str = Field(max_length=40)
    status: DeliveryStatus = Field(sa_type=known(DeliveryStatus))
    attempts: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    fence: int = micros(nullable=False, default=0)
    next_at: int | None = micros()
    """When it is tried; while somebody tries: when that one counts as dead."""

    last_at: int | None = micros()
    last_status: int | None = None
    """What the receiver answered last."""

    last_error: str | None = None
    owed_at: int = micros(nullable=False)
    """Since when it is owed; its age is counted from here."""

    created_at: int = micros(nullable=False)
    finished_at: int | None = micros()


WEBHOOK_TABLES: Final = (Webhook, WebhookDelivery)
