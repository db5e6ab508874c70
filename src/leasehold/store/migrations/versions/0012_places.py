"""Environments that are chosen for runs and checked by workers; who has asked for what."""

from typing import Final

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision: Final = "0012"
down_revision: Final = "0011"
branch_labels: Final = None
depends_on: Final = None

JSON: Final = sa.JSON().with_variant(JSONB(), "postgresql")
ACTOR: Final = sa.text("actor IS NOT NULL")
DUE: Final = sa.text("due_at IS NOT NULL")
CLAIMED: Final = sa.text("claimed_by IS NOT NULL")
BACK: Final = {
    "sqlite": "json_extract(data, '$.actor')",
    "postgresql": "data->>'actor'",
}


def upgrade() -> None:
    """Add tables and columns; lines of history about neither run nor lease get their actor."""
    op.create_table(
        "selections",
        sa.Column("tenant_id", sa.String(64), sa.ForeignKey("tenants.id"), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("environment", sa.String(100), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "kind", "name"),
        sa.CheckConstraint(
            "kind IN ('workspace', 'project', 'tenant')", name="selectionkind_known"
        ),
        sa.CheckConstraint("(kind = 'tenant') = (name = '')", name="selection_name"),
    )
    op.create_table(
        "config_checks",
        sa.Column("id", sa.String(64), primary_key=True, nullable=False),
        sa.Column("tenant_id", sa.String(64), sa.ForeignKey("tenants.id"), nullable=False),
        sa.Column("provider", sa.String(64), nullable=False),
        sa.Column("config", JSON, nullable=False),
        sa.Column("requires", JSON, nullable=False),
        sa.Column("queue", sa.String(128), nullable=False),
        sa.Column("tries", sa.Integer(), server_default="0", nullable=False),
        sa.Column("claimed_by", sa.String(64), nullable=True),
        sa.Column("due_at", sa.BigInteger(), nullable=True),
        sa.Column("asked_at", sa.BigInteger(), nullable=False),
        sa.Column("until_at", sa.BigInteger(), nullable=False),
        sa.Column("answered_at", sa.BigInteger(), nullable=True),
        sa.Column("answer", JSON, nullable=True),
        sa.CheckConstraint(
            "(answered_at IS NULL) = (answer IS NULL)", name="config_check_answered"
        ),
        sa.CheckConstraint(
            "answered_at IS NULL OR (claimed_by IS NULL AND due_at IS NULL)",
            name="config_check_over_rests",
        ),
    )
    _index("config_check_due", "config_checks", ["due_at"], where=DUE)
    _index("config_check_claimed", "config_checks", ["claimed_by"], where=CLAIMED)
    op.create_index("config_check_until", "config_checks", ["until_at"])
    op.add_column("environments", sa.Column("vetted", JSON, nullable=True))
    op.add_column("events", sa.Column("actor", sa.String(), nullable=True))
    dialect = op.get_bind().dialect.name
    op.execute(
        f"UPDATE events SET actor = {BACK[dialect]} WHERE run_id IS NULL AND lease_id IS NULL"
    )
    _index("event_of_actor", "events", ["tenant_id", "id"], where=ACTOR)
    with op.batch_alter_table("schedules") as schedules:
        schedules.alter_column(
            "environment", existing_type=sa.String(100), existing_nullable=False, nullable=True
        )


def _index(name: str, table: str, columns: list[str], *, where: sa.TextClause) -> None:
    op.create_index(name, table, columns, postgresql_where=where, sqlite_where=where)
