"""Runs that start after others, and keys with which leases are asked for."""

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0011"
down_revision: Final = "0009"
branch_labels: Final = None
depends_on: Final = None

STARTS_AFTER: Final = "waits = 0 OR (waits > 0 AND status = 'queued')"


def upgrade() -> None:
    """Add the table, what a run's row says of it, an index of what waits; keys of leases."""
    op.execute("ALTER TABLE leases ADD COLUMN idempotency_key VARCHAR(255)")
    op.execute("ALTER TABLE leases ADD COLUMN body_hash VARCHAR(64)")
    keyed = sa.text("idempotency_key IS NOT NULL")
    op.create_index(
        "lease_key",
        "leases",
        ["tenant_id", "idempotency_key"],
        unique=True,
        postgresql_where=keyed,
        sqlite_where=keyed,
    )
    # As SQL: a table that triggers refer to is not built anew for a CHECK.
    check = f"CONSTRAINT run_starts_after CHECK ({STARTS_AFTER})"
    op.execute(f"ALTER TABLE runs ADD COLUMN waits INTEGER DEFAULT '0' NOT NULL {check}")
    false = "0" if op.get_bind().dialect.name == "sqlite" else "false"
    op.execute(f"ALTER TABLE runs ADD COLUMN awaited BOOLEAN DEFAULT {false} NOT NULL")
    op.drop_index("run_queued", "runs")
    _index("run_queued", "runs", ["priority", "id"], "status = 'queued' AND waits = 0")
    _index("run_waits", "runs", ["tenant_id"], "waits > 0")
    op.create_table(
        "predecessors",
        sa.Column("run_id", sa.String(64), primary_key=True, nullable=False),
        sa.Column("after_id", sa.String(64), primary_key=True, nullable=False),
        sa.Column("tenant_id", sa.String(64), sa.ForeignKey("tenants.id"), nullable=False),
        sa.Column("outcome", sa.String(32), nullable=False),
        sa.Column("ended", sa.String(32), nullable=True),
        sa.Column("due", sa.Boolean(), server_default=sa.true(), nullable=False),
        sa.Column("settled_at", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("outcome IN ('succeeded', 'failed', 'any')", name="outcome_known"),
        sa.CheckConstraint("NOT due OR settled_at IS NULL", name="predecessor_settled"),
        sa.CheckConstraint(
            "ended IS NULL OR due OR settled_at IS NOT NULL", name="predecessor_never_forgotten"
        ),
    )
    _index("predecessor_due", "predecessors", ["run_id"], "due")
    _index("predecessor_of", "predecessors", ["after_id"], "settled_at IS NULL")


def _index(name: str, table: str, columns: list[str], where: str) -> None:
    there = sa.text(where)
    op.create_index(name, table, columns, postgresql_where=there, sqlite_where=there)
