"""Schedules: runs that a clock submits."""

from typing import Final

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision: Final = "0009"
down_revision: Final = "0008"
branch_labels: Final = None
depends_on: Final = None

JSON: Final = sa.JSON().with_variant(JSONB(), "postgresql")
DUE: Final = sa.text("next_at IS NOT NULL")


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "schedules",
        sa.Column("id", sa.String(64), primary_key=True, nullable=False),
        sa.Column("tenant_id", sa.String(64), sa.ForeignKey("tenants.id"), nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("status", sa.String(32), nullable=False),
        sa.Column("cron", sa.String(200), nullable=True),
        sa.Column("at", sa.BigInteger(), nullable=True),
        sa.Column("timezone", sa.String(64), nullable=False),
        sa.Column("environment", sa.String(100), nullable=False),
        sa.Column("spec", JSON, nullable=False),
        sa.Column("misfire", sa.String(32), nullable=False),
        sa.Column("overlap", sa.String(32), nullable=False),
        sa.Column("next_at", sa.BigInteger(), nullable=True),
        sa.Column("last_at", sa.BigInteger(), nullable=True),
        sa.Column("last_run_id", sa.String(64), nullable=True),
        sa.Column("last_error", sa.String(), nullable=True),
        sa.Column("fired", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "status IN ('active', 'paused', 'done')", name="schedulestatus_known"
        ),
        sa.CheckConstraint("misfire IN ('skip', 'once', 'all')", name="misfire_known"),
        sa.CheckConstraint("overlap IN ('allow', 'skip')", name="overlap_known"),
        sa.CheckConstraint("(cron IS NULL) <> (at IS NULL)", name="schedule_kind"),
        sa.CheckConstraint(
            "(status = 'active') = (next_at IS NOT NULL)", name="schedule_never_forgotten"
        ),
        sa.UniqueConstraint("tenant_id", "name", name="schedule_name"),
    )
    op.create_index(
        "schedule_next", "schedules", ["next_at"], postgresql_where=DUE, sqlite_where=DUE
    )
