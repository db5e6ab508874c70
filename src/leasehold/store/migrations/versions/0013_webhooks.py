"""Webhooks, and what is owed to them."""

from typing import Final

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision: Final = "0013"
down_revision: Final = "0011"
branch_labels: Final = None
depends_on: Final = None

JSON: Final = sa.JSON().with_variant(JSONB(), "postgresql")
OWED: Final = sa.text("next_at IS NOT NULL")
OVER: Final = sa.text("finished_at IS NOT NULL")


def upgrade() -> None:
    """Add both tables."""
    op.create_table(
        "webhooks",
        sa.Column("id", sa.String(64), primary_key=True, nullable=False),
        sa.Column("tenant_id", sa.String(64), sa.ForeignKey("tenants.id"), nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("url", sa.String(), nullable=False),
        sa.Column("enabled", sa.Boolean(), server_default=sa.true(), nullable=False),
        sa.Column("statuses", JSON, nullable=True),
        sa.Column("labels", JSON, nullable=True),
        sa.Column("environment", sa.String(100), nullable=True),
        sa.Column("key_id", sa.String(16), nullable=False),
        sa.Column("ciphertext", sa.String(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("failures", sa.Integer(), server_default="0", nullable=False),
        sa.Column("rests_until", sa.BigInteger(), nullable=True),
        sa.Column("last_at", sa.BigInteger(), nullable=True),
        sa.Column("last_status", sa.Integer(), nullable=True),
        sa.Column("last_error", sa.String(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.UniqueConstraint("tenant_id", "name", name="webhook_name"),
    )
    op.create_table(
        "webhook_deliveries",
        sa.Column("id", sa.String(130), primary_key=True, nullable=False),
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("webhook_id", sa.String(64), nullable=False),
        sa.Column("run_id", sa.String(64), nullable=False),
        sa.Column("event", sa.String(40), nullable=False),
        sa.Column("status", sa.String(32), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("fence", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("next_at", sa.BigInteger(), nullable=True),
        sa.Column("last_at", sa.BigInteger(), nullable=True),
        sa.Column("last_status", sa.Integer(), nullable=True),
        sa.Column("last_error", sa.String(), nullable=True),
        sa.Column("owed_at", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("finished_at", sa.BigInteger(), nullable=True),
        sa.CheckConstraint(
            "status IN ('pending', 'delivered', 'failed')", name="deliverystatus_known"
        ),
        sa.CheckConstraint(
            "(status = 'pending') = (next_at IS NOT NULL)", name="delivery_never_forgotten"
        ),
        sa.CheckConstraint(
            "(status = 'pending') = (finished_at IS NULL)", name="delivery_finished"
        ),
    )
    table = "webhook_deliveries"
    _index("delivery_next", table, ["next_at"], OWED)
    _index("delivery_due", table, ["webhook_id", "next_at"], OWED)
    _index("delivery_over", table, ["tenant_id", "finished_at"], OVER)
    op.create_index("delivery_newest", table, ["webhook_id", "created_at"])
    op.create_index("delivery_of_run", table, ["run_id"])


def _index(name: str, table: str, columns: list[str], where: sa.TextClause) -> None:
    op.create_index(name, table, columns, postgresql_where=where, sqlite_where=where)
