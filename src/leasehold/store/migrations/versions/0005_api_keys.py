"""API keys of tenants."""

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0005"
down_revision: Final = "0004"
branch_labels: Final = None
depends_on: Final = None

VALID: Final = sa.text("revoked_at IS NULL")


def upgrade() -> None:
    """Add the table; a deployment has no keys until `leasehold keys create` makes one."""
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(64), primary_key=True, nullable=False),
        sa.Column("tenant_id", sa.String(64), sa.ForeignKey("tenants.id"), nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("prefix", sa.String(16), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("role", sa.String(32), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=True),
        sa.Column("last_used_at", sa.BigInteger(), nullable=True),
        sa.Column("revoked_at", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("role IN ('viewer', 'operator', 'admin')", name="role_known"),
        sa.UniqueConstraint("prefix", name="api_key_prefix"),
    )
    op.create_index(
        "api_key_name",
        "api_keys",
        ["tenant_id", "name"],
        unique=True,
        postgresql_where=VALID,
        sqlite_where=VALID,
    )
