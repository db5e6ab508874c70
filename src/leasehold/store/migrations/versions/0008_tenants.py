"""Tenants that people make, with limits of their own; the platform and its keys."""

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0008"
down_revision: Final = "0007"
branch_labels: Final = None
depends_on: Final = None

KNOWN: Final = "status IN ('active', 'archived')"
ROLES: Final = "role IN ('viewer', 'operator', 'admin', 'root')"
ROOT: Final = "(role = 'root') = (tenant_id = '_platform')"


def upgrade() -> None:
    """Add columns and the row of the platform, which has no keys until somebody makes one."""
    # As SQL: what refers to the table keeps SQLite from building it anew for a CHECK.
    status = f"CONSTRAINT tenantstatus_known CHECK ({KNOWN})"
    for column in (
        f"status VARCHAR(32) DEFAULT 'active' NOT NULL {status}",
        "description VARCHAR",
        "max_concurrent INTEGER CONSTRAINT tenant_concurrent CHECK (max_concurrent > 0)",
        "max_queued INTEGER CONSTRAINT tenant_queued CHECK (max_queued > 0)",
    ):
        op.execute(f"ALTER TABLE tenants ADD COLUMN {column}")
    op.execute(
        "INSERT INTO tenants (id, created_at, status, description) VALUES"
        " ('_platform', leasehold_now(), 'archived',"
        " 'the deployment itself: keys of the role root')"
    )
    with op.batch_alter_table("api_keys") as keys:
        keys.drop_constraint("role_known", type_="check")
        keys.create_check_constraint("role_known", sa.text(ROLES))
        keys.create_check_constraint("key_of_platform", sa.text(ROOT))
