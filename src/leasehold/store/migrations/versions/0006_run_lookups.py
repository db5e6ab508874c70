"""
What runs are found by: their environment and their labels, in a table of its own.

An index on `runs` would be written again with each of a run's updates, which move its due time
and so are no HOT updates; a row here is written once. Triggers do it, so that older processes
which submit beside newer ones, and whoever else inserts or deletes runs, cannot forget it. A
later migration that makes the table `runs` anew (SQLite's batch mode) must make them anew too.
"""

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0006"
down_revision: Final = "0005"
branch_labels: Final = None
depends_on: Final = None

UNLUCKY: Final = sa.text("status IN ('failed', 'cancelled', 'timed_out', 'parked')")
_INTO: Final = "INSERT INTO run_lookups (tenant_id, name, value, created_at, run_id)"
_EVERY: Final = """
SELECT r.tenant_id, 'environment', r.environment_id, r.created_at, r.id FROM {runs} r
UNION ALL
SELECT r.tenant_id, 'label:' || j.key, {text}, r.created_at, r.id
FROM {runs} r, {each}(r.labels) j
"""
_POSTGRESQL: Final = _EVERY.replace("{text}", "left(j.value, 200)").replace(
    "{each}", "jsonb_each_text"
)
_SQLITE: Final = _EVERY.replace("{text}", "substr(j.value, 1, 200)").replace(
    "{each}", "json_each"
)
_FOUND: Final = "(tenant_id, name, value, created_at, run_id)"


def upgrade() -> None:
    """Add the table, its triggers, what old runs are found by, and an index of rare ends."""
    op.create_table(
        "run_lookups",
        sa.Column("tenant_id", sa.String(64), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("value", sa.String(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("run_id", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "name", "value", "created_at", "run_id"),
    )
    op.create_index(
        "run_unlucky",
        "runs",
        ["tenant_id", "status", "created_at"],
        postgresql_where=UNLUCKY,
        sqlite_where=UNLUCKY,
    )
    if op.get_bind().dialect.name == "sqlite":
        _for_sqlite()
    else:
        _for_postgresql()


def _for_postgresql() -> None:
    # The triggers first: they wait for writers of now, and see those that come.
    for when, row, deed in (
        ("insert", "NEW", f"{_INTO} {{rows}}"),
        ("delete", "OLD", f"DELETE FROM run_lookups WHERE {_FOUND} IN ({{rows}})"),
    ):
        rows = _POSTGRESQL.format(runs=f"(SELECT {row}.*)")
        op.execute(
            f"CREATE FUNCTION leasehold_run_{when}() RETURNS trigger LANGUAGE plpgsql AS $$"
            f" BEGIN {deed.format(rows=rows)}; RETURN NULL; END $$"
        )
        op.execute(
            f"CREATE TRIGGER run_{when} AFTER {when} ON runs"
            f" FOR EACH ROW EXECUTE FUNCTION leasehold_run_{when}()"
        )
    op.execute(f"{_INTO} {_POSTGRESQL.format(runs='runs')} ON CONFLICT DO NOTHING")


def _for_sqlite() -> None:
    columns = ("tenant_id", "environment_id", "created_at", "id", "labels")
    for when, row in (("insert", "NEW"), ("delete", "OLD")):
        one = ", ".join(f"{row}.{name} AS {name}" for name in columns)
        rows = _SQLITE.format(runs=f"(SELECT {one})")
        deed = (
            f"{_INTO} {rows}"
            if when == "insert"
            else f"DELETE FROM run_lookups WHERE {_FOUND} IN ({rows})"
        )
        op.execute(f"CREATE TRIGGER run_{when} AFTER {when} ON runs BEGIN {deed}; END")
    op.execute(f"{_INTO} {_SQLITE.format(runs='runs')}")
