"""What commands report of their runs; the key that signs the tokens which allow it."""

import secrets
from typing import Final

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision: Final = "0010"
down_revision: Final = "0009"
branch_labels: Final = None
depends_on: Final = None

JSON: Final = sa.JSON().with_variant(JSONB(), "postgresql")


def upgrade() -> None:
    """Add the table, the columns and the deployment's key."""
    op.create_table(
        "run_reports",
        sa.Column("run_id", sa.String(64), sa.ForeignKey("runs.id"), nullable=False),
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("execution_id", sa.String(128), nullable=False),
        sa.Column("heard_at", sa.BigInteger(), nullable=False),
        sa.Column("percent", sa.Float(), nullable=True),
        sa.Column("message", sa.String(1000), nullable=True),
        sa.Column("progress_at", sa.BigInteger(), nullable=True),
        sa.Column("result", JSON, nullable=True),
        sa.Column("result_at", sa.BigInteger(), nullable=True),
        sa.Column("lines", sa.Integer(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("run_id"),
        sa.CheckConstraint("percent >= 0 AND percent <= 100", name="report_percent"),
        sa.CheckConstraint("(result IS NULL) = (result_at IS NULL)", name="report_result"),
    )
    op.add_column("executions", sa.Column("runtime_url", sa.String(), nullable=True))
    op.add_column(
        "artifacts",
        sa.Column("pushed", sa.Boolean(), server_default=sa.false(), nullable=False),
    )
    facts = sa.table("facts", sa.column("name"), sa.column("value"))
    op.bulk_insert(facts, [{"name": "run_token_key", "value": secrets.token_hex(32)}])
