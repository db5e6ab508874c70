"""SQL of runs: what the engine, the clock and the doors read and write."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from leasehold.domain.lifecycle import RUN_ENDS, RunStatus
from leasehold.errors import LostClaimError, NotFoundError
from leasehold.store.columns import among
from leasehold.store.database import Row, Tx
from leasehold.store.sql import dump, load, numbered
from leasehold.store.tables import METADATA

MANY = 100
"""Rows that one statement inserts or finds, so that there are few texts of it, and short."""

_OVER = among(RUN_ENDS)
_JSON_COLUMNS = (
    *("spec", "labels", "handle", "facts", "queues", "data"),
    *("secrets", "tree", "ending"),
)
BEAT_SLACK_US = 100_000
"""A beat takes along what is due so soon after, so that few beats serve many runs."""


@cache
def _insert(table: str, names: tuple[str, ...], back: str) -> str:
    values = ", ".join(f":{name}" for name in names)
    text = f"INSERT INTO {table} ({', '.join(names)}) VALUES ({values})"
    return f"{text} RETURNING {back}" if back else text


@cache
def _empty(table: str) -> Row:
    """Return a row of this table whose columns are all NULL."""
    return dict.fromkeys(METADATA.tables[table].columns.keys())


def _stored(values: Mapping[str, Any]) -> Row:
    return {
        name: dump(value) if isinstance(value, dict | list) else value
        for name, value in values.items()
    }


def insert_row(tx: Tx, table: str, values: Mapping[str, Any], *, back: str = "*") -> Row:
    """
    Insert one row and return it; dicts and lists are stored as JSON.

    Args:
        back: The column that the database computes, if it is one only; then `values` has
            every other one that is not to be NULL.
    """
    row = tx.one(_insert(table, tuple(values), back), **_stored(values))
    assert row is not None
    return row if back == "*" else {**_empty(table), **values, **row}


def insert_later(tx: Tx, table: str, values: Mapping[str, Any]) -> Row:
    """Insert a row of which the database computes nothing, before the next statement."""
    text = _insert(table, tuple(values), "")
    tx.later(table, text, _stored(values), what=f"{table[:-1]} {values['id']}")
    return {**_empty(table), **values}


@cache
def _insert_many(table: str, names: tuple[str, ...], count: int) -> str:
    rows = (f"({', '.join(f':{name}{n}' for name in names)})" for n in range(count))
    return f"INSERT INTO {table} ({', '.join(names)}) VALUES {', '.join(rows)}"


def insert_many(tx: Tx, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows that all have the same columns, `MANY` of them in one statement."""
    for first in range(0, len(rows), MANY):
        some = rows[first : first + MANY]
        params = {f"{k}{n}": v for n, row in enumerate(some) for k, v in _stored(row).items()}
        tx.run(_insert_many(table, tuple(some[0]), len(some)), **params)


def find_by_keys(tx: Tx, keys: Sequence[str], *, tenant_id: str) -> dict[str, Row]:
    """Return the runs that used these idempotency keys."""
    found: dict[str, Row] = {}
    for first in range(0, len(keys), MANY):
        names, params = numbered("k", keys[first : first + MANY])
        rows = tx.all(
            f"SELECT * FROM runs WHERE tenant_id = :tenant AND idempotency_key IN ({names})",
            tenant=tenant_id,
            **params,
        )
        found |= {row["idempotency_key"]: row for row in rows}
    return found


def decoded(row: Row) -> Row:
    """Return the row with its JSON columns as values."""
    for name in _JSON_COLUMNS:
        if name in row:
            row[name] = load(row[name])
    return row


def find(tx: Tx, run_id: str) -> Row | None:
    row = tx.one("SELECT * FROM runs WHERE id = :id", id=run_id)
    return decoded(row) if row else None


def get(tx: Tx, run_id: str, *, tenant_id: str) -> Row:
    """
    Return a run of the tenant.

    Raises:
        NotFoundError: There is none, or it belongs to another tenant.
    """
    row = find(tx, run_id)
    if row is None or row["tenant_id"] != tenant_id:
        raise NotFoundError(f"there is no run {run_id}")
    return row


def find_by_key(tx: Tx, *, tenant_id: str, key: str) -> Row | None:
    """Return the run that used this idempotency key."""
    return tx.one(
        "SELECT * FROM runs WHERE tenant_id = :tenant AND idempotency_key = :key",
        tenant=tenant_id,
        key=key,
    )


def queued_of(tx: Tx, run_ids: Sequence[str]) -> list[Row]:
    """Return those of these runs that are there and queued, in the order of their ids."""
    names, params = numbered("r", list(run_ids))
    return tx.all(
        f"SELECT * FROM runs WHERE id IN ({names}) AND status = 'queued' ORDER BY id", **params
    )


def by_prefix(tx: Tx, prefix: str, *, tenant_id: str) -> list[Row]:
    """Return up to three runs whose id begins or ends so; people type short ids."""
    return tx.all(
        "SELECT * FROM runs WHERE tenant_id = :tenant AND (id LIKE :a OR id LIKE :b) LIMIT 3",
        tenant=tenant_id,
        a=f"{prefix}%",
        b=f"%{prefix}",
    )


def page(
    tx: Tx,
    *,
    tenant_id: str,
    status: Sequence[str] = (),
    environment_id: str | None = None,
    limit: int = 100,
) -> list[Row]:
    """List runs, the newest first."""
    where, params = ["tenant_id = :tenant"], {"tenant": tenant_id, "limit": limit}
    if status:
        names, more = numbered("s", list(status))
        where.append(f"status IN ({names})")
        params.update(more)
    if environment_id:
        where.append("environment_id = :environment")
        params["environment"] = environment_id
    text = f"SELECT * FROM runs WHERE {' AND '.join(where)} ORDER BY created_at DESC, id DESC"
    return [decoded(row) for row in tx.all(f"{text} LIMIT :limit", **params)]


def lock(tx: Tx, run_id: str) -> Row | None:
    """Lock a run's row and return it with ``now_us``; its lease is locked before it."""
    return tx.one("SELECT *, {now} AS now_us FROM runs WHERE id = :id {lock}", id=run_id)


def hold(tx: Tx, run_id: str, *, worker_id: str, lease_id: str | None) -> Row:
    """
    Lock the run that this worker claimed; the lease's row is locked already.

    Raises:
        LostClaimError: The claim is gone.
    """
    return check_held(lock(tx, run_id), worker_id=worker_id, lease_id=lease_id)


def check_held(row: Row | None, *, worker_id: str, lease_id: str | None) -> Row:
    """
    Return a locked run if this worker still has it.

    Raises:
        LostClaimError: The claim is gone.
    """
    if (
        row is None
        or row["claimed_by"] != worker_id
        or row["lease_id"] != lease_id
        or row["status"] != RunStatus.RUNNING
    ):
        raise LostClaimError("the run is not ours any more")
    return row


def claim(tx: Tx, run_id: str, *, lease_id: str, worker_id: str) -> Row | None:
    """Take a due, unclaimed run; the fence of its lease was raised before."""
    return tx.one(
        "UPDATE runs SET claimed_by = :worker, worker_id = :worker, due_at = NULL"
        " WHERE id = :id AND claimed_by IS NULL AND status = 'running'"
        " AND lease_id = :lease RETURNING *, {now} AS now_us",
        id=run_id,
        worker=worker_id,
        lease=lease_id,
    )


def claim_first(tx: Tx, run_id: str, *, fence: int, worker_id: str) -> Row | None:
    """Take a run that has no lease yet, raising its own fence, in one statement."""
    return tx.one(
        "UPDATE runs SET fence = fence + 1, claimed_by = :worker, worker_id = :worker,"
        " due_at = NULL WHERE id = :id AND fence = :fence AND claimed_by IS NULL"
        " AND status = 'running' AND lease_id IS NULL RETURNING *, {now} AS now_us",
        id=run_id,
        fence=fence,
        worker=worker_id,
    )


def claim_beats(tx: Tx, *, queue: str, worker_id: str, limit: int) -> list[str]:
    """Take up to `limit` runs whose beat is due; their fences stay as they are."""
    rows = tx.all(
        "UPDATE runs SET claimed_by = :worker, due_at = NULL, publishes = 0"
        " WHERE id IN (SELECT id FROM runs WHERE queue = :queue AND beat"
        " AND due_at <= {now} + :slack AND status = 'running'"
        " ORDER BY due_at LIMIT :limit {skip})"
        " AND claimed_by IS NULL RETURNING id",
        worker=worker_id,
        queue=queue,
        limit=limit,
        slack=BEAT_SLACK_US,
    )
    return [row["id"] for row in rows]


def rest_beats(tx: Tx, run_ids: Sequence[str], *, worker_id: str, in_us: int) -> set[str]:
    """Put unchanged runs back to rest until the next beat; return those that were ours."""
    names, params = numbered("i", sorted(run_ids))
    rows = tx.all(
        "UPDATE runs SET claimed_by = NULL, due_at = {now} + :wait"
        " WHERE claimed_by = :worker AND end_requested IS NULL"
        f" AND id IN ({names}) RETURNING id",
        worker=worker_id,
        wait=in_us,
        **params,
    )
    return {row["id"] for row in rows}


def due(tx: Tx, *, limit: int) -> list[Row]:
    """Lock due runs that take a message of their own, the longest due first."""
    return tx.all(
        "SELECT id, queue, step, publishes, fence, lease_id, tenant_id FROM runs"
        " WHERE due_at <= {now} AND NOT beat AND status = 'running'"
        " ORDER BY due_at LIMIT :limit {skip}",
        limit=limit,
    )


def push_on(tx: Tx, table: str, row_id: str, *, wait_us: int) -> None:
    """Say when a due row is looked at again if nobody claims it."""
    tx.run(
        f"UPDATE {table} SET due_at = {{now}} + :wait, publishes = publishes + 1"
        " WHERE id = :id AND claimed_by IS NULL AND due_at IS NOT NULL",
        id=row_id,
        wait=wait_us,
    )


def put_back(tx: Tx, table: str, row_id: str, *, wait_us: int) -> None:
    """Take back one push: its message was not sent, so it is no unclaimed one."""
    tx.run(
        f"UPDATE {table} SET due_at = {{now}} + :wait, publishes = publishes - 1"
        " WHERE id = :id AND claimed_by IS NULL AND due_at IS NOT NULL AND publishes > 0",
        id=row_id,
        wait=wait_us,
    )


def timed_out(tx: Tx, *, limit: int) -> list[str]:
    """Return runs one of whose timers is over."""
    rows = tx.all(
        f"SELECT id FROM runs WHERE timer_at <= {{now}} AND status NOT IN ({_OVER})"
        " AND end_requested IS NULL ORDER BY timer_at LIMIT :limit",
        limit=limit,
    )
    return [row["id"] for row in rows]


_GONE_HOST = (
    "r.host_id IS NOT NULL AND EXISTS (SELECT 1 FROM hosts h"
    " WHERE h.id = r.host_id AND h.alive_at < {now} - :grace AND NOT EXISTS"
    " (SELECT 1 FROM sessions s WHERE s.host_id = h.id AND s.status = 'live'))"
)
# Bound to no host, any that serves its provider may end it: but there is none.
_NOBODY_ENDS_IT = (
    "r.host_id IS NULL AND r.claimed_by IS NULL AND r.end_requested IS NOT NULL"
    " AND r.end_requested_at < {now} - :grace AND NOT EXISTS (SELECT 1 FROM providers p"
    " JOIN sessions s ON s.host_id = p.host_id WHERE s.status = 'live'"
    " AND p.health = 'healthy' AND r.queue = 'leasehold.provider.' || p.key)"
)
LOST_HOST = f"r.status = 'running' AND (({_GONE_HOST}) OR ({_NOBODY_ENDS_IT}))"

_SURELY_OVER = (
    "l.sandbox_expires_at < {now} - :grace AND CAST(:watched_from AS BIGINT)"
    " + (l.sandbox_expires_at - l.renew_at) * 3 / 2 < {now} - :grace"
)
"""`watch.Watch.surely_over` in SQL; never true if ``:watched_from`` is null."""

_NEED_NOT_WAIT = (
    "(r.end_requested IS NOT NULL OR {idempotent} OR NOT EXISTS (SELECT 1 FROM executions x"
    " WHERE x.run_id = r.id AND x.status IN ('starting', 'running')) OR EXISTS (SELECT 1"
    f" FROM leases l WHERE l.id = r.lease_id AND {_SURELY_OVER}))"
)


def on_lost_hosts(
    tx: Tx, *, grace_us: int, watched_from_us: int | None, limit: int
) -> list[str]:
    """
    Return running runs whose host, or whoever could end them, is away for the grace.

    Without those that must wait until their sandboxes have surely ended: any number of them
    must not hold up the others.
    """
    rows = tx.all(
        f"SELECT r.id FROM runs r WHERE {LOST_HOST} AND {_NEED_NOT_WAIT}"
        " ORDER BY r.id LIMIT :limit",
        grace=grace_us,
        watched_from=watched_from_us,
        limit=limit,
    )
    return [row["id"] for row in rows]


def is_on_lost_host(tx: Tx, run_id: str, *, grace_us: int) -> bool:
    text = f"SELECT 1 FROM runs r WHERE r.id = :id AND {LOST_HOST}"
    return tx.value(text, id=run_id, grace=grace_us) is not None


def lease_fence(tx: Tx, lease_id: str) -> int:
    return int(tx.value("SELECT fence FROM leases WHERE id = :id", id=lease_id) or 0)


def to_end_of(tx: Tx, worker_id: str) -> dict[str, str]:
    """Return the runs that this worker holds and that are to end, with the kind."""
    rows = tx.all(
        "SELECT id, end_requested FROM runs WHERE claimed_by = :worker"
        " AND end_requested IS NOT NULL",
        worker=worker_id,
    )
    return {row["id"]: row["end_requested"] for row in rows}


def running_on(tx: Tx, host_id: str) -> list[str]:
    """Return the runs with a command under way on this host."""
    rows = tx.all(
        "SELECT r.id FROM runs r JOIN leases l ON l.id = r.lease_id"
        " WHERE r.status = 'running' AND l.host_id = :host AND r.step = 'heartbeat'",
        host=host_id,
    )
    return [row["id"] for row in rows]


def live_on(tx: Tx, host_id: str) -> list[str]:
    """Return every run that was sent to this host and is not over."""
    rows = tx.all(
        "SELECT id FROM runs WHERE status = 'running' AND host_id = :host", host=host_id
    )
    return [row["id"] for row in rows]


def not_over(tx: Tx, run_ids: Sequence[str]) -> list[str]:
    if not run_ids:
        return []
    names, params = numbered("r", list(run_ids))
    rows = tx.all(
        f"SELECT id FROM runs WHERE id IN ({names}) AND status NOT IN ({_OVER})", **params
    )
    return [row["id"] for row in rows]


def set_timer(tx: Tx, run_id: str, *, timer_at: int | None) -> None:
    """Say when the clock must look at a run's timers again."""
    tx.run("UPDATE runs SET timer_at = :at WHERE id = :id", id=run_id, at=timer_at)


def recall(tx: Tx, *, after_us: int) -> None:
    """Make due what is put off for longer than any wait of ours."""
    tx.run("UPDATE runs SET due_at = {now} WHERE due_at > {now} + :after", after=after_us)
