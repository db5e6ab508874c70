"""SQL of runs that start after others; see `orchestrator.preceding` for who does what."""

from collections.abc import Sequence
from typing import Any

from leasehold.store.database import Row, Tx
from leasehold.store.runs import insert_many
from leasehold.store.sql import numbered


def statuses(tx: Tx, run_ids: Sequence[str], *, tenant_id: str) -> dict[str, str]:
    """Return the status of those of these runs that there are, of this tenant."""
    names, params = numbered("r", run_ids)
    rows = tx.all(
        f"SELECT id, status FROM runs WHERE id IN ({names}) AND tenant_id = :tenant",
        tenant=tenant_id,
        **params,
    )
    return {row["id"]: row["status"] for row in rows}


def insert(tx: Tx, rows: Sequence[Row]) -> None:
    insert_many(tx, "predecessors", rows)


def of_run(tx: Tx, run_id: str) -> list[Row]:
    """Return what a run starts after, with the status of each as it is now, if it is there."""
    return tx.all(
        "SELECT p.*, r.status FROM predecessors p LEFT JOIN runs r ON r.id = p.after_id"
        " WHERE p.run_id = :run ORDER BY p.after_id",
        run=run_id,
    )


def due(tx: Tx, *, limit: int) -> list[Row]:
    """Return what is to be looked at; locks nothing."""
    return tx.all(
        "SELECT run_id, after_id, ended FROM predecessors WHERE due"
        " ORDER BY run_id, after_id LIMIT :limit",
        limit=limit,
    )


def due_of(tx: Tx, run_ids: Sequence[str]) -> list[Row]:
    """Return what is to be looked at for these runs, which are locked."""
    names, params = numbered("r", run_ids)
    return tx.all(
        f"SELECT * FROM predecessors WHERE due AND run_id IN ({names})"
        " ORDER BY run_id, after_id",
        **params,
    )


def lock_runs(tx: Tx, run_ids: Sequence[str]) -> dict[str, Row]:
    """Lock those of these runs that nobody else has locked."""
    names, params = numbered("r", sorted(run_ids))
    rows = tx.all(
        f"SELECT *, {{now}} AS now_us FROM runs WHERE id IN ({names}) ORDER BY id {{skip}}",
        **params,
    )
    return {row["id"]: row for row in rows}


def there(tx: Tx, run_ids: Sequence[str]) -> set[str]:
    """Return those of these runs that there are."""
    names, params = numbered("r", sorted(run_ids))
    return {row["id"] for row in tx.all(f"SELECT id FROM runs WHERE id IN ({names})", **params)}


def rest(tx: Tx, after_id: str, run_ids: Sequence[str]) -> None:
    """Let these runs wait until `after_id` ends, and whoever ends it know; it is locked."""
    names, params = numbered("r", run_ids)
    tx.run(
        "UPDATE predecessors SET due = {false}"
        f" WHERE after_id = :after AND run_id IN ({names})",
        after=after_id,
        **params,
    )
    tx.run("UPDATE runs SET awaited = {true} WHERE id = :id AND NOT awaited", id=after_id)


def settle(tx: Tx, run_id: str, ended: dict[str, str | None]) -> None:
    """Write that a run waits no more for these, and how each of them has ended."""
    for after_id, status in ended.items():
        tx.run(
            "UPDATE predecessors SET due = {false}, settled_at = {now}, ended = :ended"
            " WHERE run_id = :run AND after_id = :after",
            run=run_id,
            after=after_id,
            ended=status,
        )


def wake(tx: Tx, after_id: str, *, ended: str) -> None:
    """Make due what waits for a run that ends in this transaction."""
    tx.run(
        "UPDATE predecessors SET due = {true}, ended = :ended"
        " WHERE after_id = :after AND settled_at IS NULL",
        after=after_id,
        ended=ended,
    )


def drop(tx: Tx, run_ids: Sequence[str]) -> None:
    """Delete what these runs started after."""
    names, params = numbered("r", run_ids)
    tx.run(f"DELETE FROM predecessors WHERE run_id IN ({names})", **params)


def view(row: Row) -> dict[str, Any]:
    """Return what is shown of one of them."""
    status = row["ended"] or row["status"]
    return {"run": row["after_id"], "outcome": row["outcome"], "status": status}
