"""Rows that are over for days, and what is left of them."""

from typing import Any, Final

from leasehold.store.database import Database, Row, Tx
from leasehold.store.runs import insert_row
from store.rows import (
    insert_artifact,
    insert_execution,
    insert_lease,
    insert_run,
)

DAY_US: Final = 86_400_000_000


def ago(tx: Tx, days: float) -> int:
    return tx.now() - int(days * DAY_US)


def ended(tx: Tx, days: float, *, status: str = "succeeded", **changes: Any) -> Row:
    """Insert a run that ended so long ago, with an execution, output and an artifact."""
    at = ago(tx, days)
    run = insert_run(tx, status=status, finished_at=at, **changes)
    lease = insert_lease(tx, status="released", run_id=run["id"], finished_at=at)
    execution = insert_execution(tx, run, lease_id=lease["id"], status="exited")
    tx.run("UPDATE executions SET stdout_offset = 5 WHERE id = :id", id=execution["id"])
    tx.run(
        "INSERT INTO output_chunks (execution_id, stream, start, data)"
        " VALUES (:id, 'stdout', 0, :data)",
        id=execution["id"],
        data=b"hello",
    )
    insert_artifact(tx, run)
    report = {"run_id": run["id"], "tenant_id": run["tenant_id"], "execution_id": "x"}
    insert_row(tx, "run_reports", {**report, "heard_at": at}, back="run_id")
    return run


def left(database: Database, *tables: str) -> list[int]:
    with database.read() as tx:
        return [int(tx.value(f"SELECT count(*) FROM {table}")) for table in tables]


def there(database: Database, table: str = "runs") -> set[str]:
    with database.read() as tx:
        return {row["id"] for row in tx.all(f"SELECT id FROM {table}")}


def newest(tx: Tx) -> Row:
    """Insert the lease of the highest number, which always stays."""
    return insert_lease(tx, status="released")
