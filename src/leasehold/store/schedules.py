"""SQL of schedules: runs that a clock submits."""

from collections.abc import Mapping
from typing import Any

from leasehold.domain import schedules as times
from leasehold.errors import NotFoundError
from leasehold.store import moves
from leasehold.store.database import Row, Tx
from leasehold.store.runs import decoded, insert_row
from leasehold.store.sql import numbered


def insert(tx: Tx, values: Mapping[str, Any]) -> Row:
    now = tx.stamp()
    row = insert_row(tx, "schedules", {**values, "created_at": now, "updated_at": now})
    return decoded(row)


def find_by_name(tx: Tx, name: str, *, tenant_id: str) -> Row | None:
    row = tx.one(
        "SELECT *, {now} AS now_us FROM schedules WHERE tenant_id = :tenant AND name = :name",
        tenant=tenant_id,
        name=name,
    )
    return decoded(row) if row else None


def get(tx: Tx, name: str, *, tenant_id: str) -> Row:
    """
    Return a schedule by its name or id, with the database's time.

    Raises:
        NotFoundError: There is none of the tenant.
    """
    row = find_by_name(tx, name, tenant_id=tenant_id) or tx.one(
        "SELECT *, {now} AS now_us FROM schedules WHERE tenant_id = :tenant AND id = :id",
        tenant=tenant_id,
        id=name,
    )
    if row is None:
        raise NotFoundError(f"there is no schedule {name!r}")
    return decoded(row)


def page(tx: Tx, *, tenant_id: str) -> list[Row]:
    """List a tenant's schedules by name, with the database's time."""
    rows = tx.all(
        "SELECT *, {now} AS now_us FROM schedules WHERE tenant_id = :tenant ORDER BY name",
        tenant=tenant_id,
    )
    return [decoded(row) for row in rows]


def last_runs(tx: Tx, row: Row, *, count: int) -> list[str]:
    """Return the runs of a schedule's last times, as it is now, that are kept; newest first."""
    if row["last_at"] is None:
        return []
    due = times.due(row["cron"], row["timezone"], from_us=0, now_us=row["last_at"])
    # Its last time is one that was, whatever its cron line is now; of one moment it is all.
    at = {row["last_at"], *(due[-count:] if row["cron"] is not None else ())}
    names, params = numbered("k", [f"schedule:{row['id']}:{one}" for one in sorted(at)])
    rows = tx.all(
        f"SELECT id FROM runs WHERE tenant_id = :tenant AND idempotency_key IN ({names})"
        " ORDER BY created_at DESC, id DESC LIMIT :count",
        tenant=row["tenant_id"],
        count=count,
        **params,
    )
    return [one["id"] for one in rows]


def due(tx: Tx, *, limit: int) -> list[str]:
    """Return schedules whose time has come, the longest due first."""
    rows = tx.all(
        "SELECT id FROM schedules WHERE next_at <= {now} ORDER BY next_at LIMIT :limit",
        limit=limit,
    )
    return [row["id"] for row in rows]


def lock_due(tx: Tx, schedule_id: str) -> Row | None:
    """Lock a schedule if it is still due and nobody else has it."""
    row = tx.one(
        "SELECT *, {now} AS now_us FROM schedules WHERE id = :id AND next_at <= {now} {skip}",
        id=schedule_id,
    )
    return decoded(row) if row else None


def lock(tx: Tx, schedule_id: str) -> Row | None:
    """Lock a schedule, whether it is due or not: no clock has it meanwhile."""
    row = tx.one(
        "SELECT *, {now} AS now_us FROM schedules WHERE id = :id {lock}", id=schedule_id
    )
    return decoded(row) if row else None


def move_on(
    tx: Tx, row: Row, to: str | None, *, next_at: int | None, **values: Any
) -> Row | None:
    """Set what a schedule waits for next; None: it is not as it was read."""
    seen = row["next_at"]
    guard = "next_at IS NULL" if seen is None else "next_at = :seen"
    return moves.move(
        tx,
        "schedules",
        row["id"],
        to,
        guard=guard,
        guard_values={} if seen is None else {"seen": seen},
        raw=("updated_at = {now}",),
        next_at=next_at,
        **values,
    )


def delete(tx: Tx, schedule_id: str) -> None:
    tx.run("DELETE FROM schedules WHERE id = :id", id=schedule_id)
