"""Labels of hosts, what runs require of them, and retained leases that a run may look into."""

from typing import Final

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision: Final = "0003"
down_revision: Final = "0002"
branch_labels: Final = None
depends_on: Final = None

JSON: Final = sa.JSON().with_variant(JSONB(), "postgresql")


def upgrade() -> None:
    op.add_column("hosts", sa.Column("labels", JSON, nullable=False, server_default="{}"))
    op.add_column("runs", sa.Column("requires", sa.String(), nullable=True))
    op.add_column("leases", sa.Column("retained_until", sa.BigInteger(), nullable=True))
