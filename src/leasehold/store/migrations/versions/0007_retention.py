"""How long what is over is kept, and which objects lie in the store of blobs."""

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0007"
down_revision: Final = "0006"
branch_labels: Final = None
depends_on: Final = None

INDEXES: Final = (
    (
        "run_whole",
        "runs",
        ["tenant_id", "finished_at"],
        "finished_at IS NOT NULL AND output_pruned_at IS NULL",
    ),
    ("run_pruned", "runs", ["tenant_id", "finished_at"], "output_pruned_at IS NOT NULL"),
    ("run_retry", "runs", ["retry_of"], "retry_of IS NOT NULL AND finished_at IS NULL"),
    (
        "run_wants",
        "runs",
        ["wanted_lease_id"],
        "wanted_lease_id IS NOT NULL AND finished_at IS NULL",
    ),
    ("run_blob", "runs", ["tenant_id", "blob"], "blob IS NOT NULL"),
    ("lease_over", "leases", ["tenant_id", "finished_at"], "finished_at IS NOT NULL"),
    ("session_over", "sessions", ["ended_at"], "ended_at IS NOT NULL"),
    ("worker_over", "workers", ["gone_at"], "gone_at IS NOT NULL"),
    ("artifact_blob", "artifacts", ["tenant_id", "sha256"], "sha256 IS NOT NULL"),
    ("event_of_tenant", "events", ["tenant_id", "at"], "run_id IS NULL AND lease_id IS NULL"),
    ("blob_look", "blobs", ["look_at"], "look_at IS NOT NULL AND going_at IS NULL"),
    ("blob_going", "blobs", ["going_at"], "going_at IS NOT NULL"),
)
NAMED: Final = {
    "postgresql": "COALESCE(tree->>'digest', spec->'tree'->>'digest',"
    " spec->'copy_in'->>'digest')",
    "sqlite": "COALESCE(json_extract(tree, '$.digest'), json_extract(spec, '$.tree.digest'),"
    " json_extract(spec, '$.copy_in.digest'))",
}
KNOWN: Final = (
    "INSERT INTO blobs (tenant_id, name, digest, bytes)"
    " SELECT tenant_id, digest, digest, MAX(bytes) FROM ("
    "SELECT tenant_id, sha256 AS digest, bytes FROM artifacts WHERE sha256 IS NOT NULL"
    " UNION ALL SELECT tenant_id, blob, 0 FROM runs WHERE blob IS NOT NULL"
    ") named GROUP BY tenant_id, digest"
)


def upgrade() -> None:
    """Add tables, columns and indexes; what rows name in the store is known from now on."""
    op.create_table(
        "retention",
        sa.Column("tenant_id", sa.String(64), sa.ForeignKey("tenants.id"), primary_key=True),
        sa.Column("runs_s", sa.BigInteger(), nullable=True),
        sa.Column("output_s", sa.BigInteger(), nullable=True),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
    )
    op.create_table(
        "blobs",
        sa.Column("tenant_id", sa.String(64), sa.ForeignKey("tenants.id"), nullable=False),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("bytes", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("look_at", sa.BigInteger(), nullable=True),
        sa.Column("going_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("tenant_id", "name"),
        sa.CheckConstraint("name LIKE digest || '%'", name="blob_name"),
    )
    op.add_column("runs", sa.Column("blob", sa.String(64), nullable=True))
    op.add_column("runs", sa.Column("output_pruned_at", sa.BigInteger(), nullable=True))
    live = sa.text("going_at IS NULL")
    op.create_index(
        "blob_live",
        "blobs",
        ["tenant_id", "digest"],
        unique=True,
        postgresql_where=live,
        sqlite_where=live,
    )
    for name, table, columns, where in INDEXES:
        only = sa.text(where)
        op.create_index(name, table, columns, postgresql_where=only, sqlite_where=only)
    op.execute(f"UPDATE runs SET blob = {NAMED[op.get_bind().dialect.name]}")
    op.execute(KNOWN)
