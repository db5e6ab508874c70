"""Workspaces and artifacts: what a run works on, what it leaves, one live run on each."""

from typing import Final

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision: Final = "0004"
down_revision: Final = "0003"
branch_labels: Final = None
depends_on: Final = None

JSON: Final = sa.JSON().with_variant(JSONB(), "postgresql")
LIVE: Final = sa.text("workspace IS NOT NULL AND status = 'running'")


def upgrade() -> None:
    """Add columns to runs, and the table of artifacts; old runs have no workspace of files."""
    op.add_column("runs", sa.Column("workspace", sa.String(), nullable=True))
    op.add_column("runs", sa.Column("tree", JSON, nullable=True))
    op.add_column("runs", sa.Column("ending", JSON, nullable=True))
    op.add_column("runs", sa.Column("artifacts_error", sa.String(), nullable=True))
    op.create_index(
        "run_workspace",
        "runs",
        ["tenant_id", "workspace"],
        unique=True,
        postgresql_where=LIVE,
        sqlite_where=LIVE,
    )
    op.create_table(
        "artifacts",
        sa.Column("run_id", sa.String(64), sa.ForeignKey("runs.id"), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("path", sa.String(), nullable=False),
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("mode", sa.Integer(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("sha256", sa.String(64), nullable=True),
        sa.Column("link", sa.String(), nullable=True),
        sa.Column("base", sa.String(), nullable=True),
        sa.Column("reason", sa.String(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("run_id", "kind", "path"),
        sa.CheckConstraint(
            "kind IN ('artifact', 'changed', 'deleted', 'skipped')", name="artifact_kind"
        ),
        sa.CheckConstraint(
            "kind IN ('deleted', 'skipped') OR sha256 IS NOT NULL OR link IS NOT NULL",
            name="artifact_content",
        ),
    )
