"""
The guarded move: the only way in which a status changes.

A move is ``UPDATE … WHERE id = … AND status IN (sources)`` plus whatever guards the caller
brings (a fence, a claim); zero rows mean that the caller lost. Its event goes into the same
transaction. The statements are built once per shape and sent ready.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Final

from leasehold.domain import lifecycle as life
from leasehold.store.columns import among
from leasehold.store.database import Row, Tx
from leasehold.store.sql import dump, load, plain

_MOVES: Final[Mapping[str, Mapping[Any, frozenset[Any]]]] = {
    "runs": life.RUN_MOVES,
    "leases": life.LEASE_MOVES,
    "executions": life.EXECUTION_MOVES,
    "tenants": life.TENANT_MOVES,
    "environments": life.ENVIRONMENT_MOVES,
    "schedules": life.SCHEDULE_MOVES,
    "webhook_deliveries": life.DELIVERY_MOVES,
    "workers": life.WORKER_MOVES,
    "sessions": life.SESSION_MOVES,
}


@cache
def _statement(
    table: str,
    to: str | None,
    values: tuple[str, ...],
    raw: tuple[str, ...],
    guard: str,
    back: str,
) -> str:
    sets = [f"{name} = :{name}" for name in values]
    sets += raw
    where = ["id = :id"]
    if to is not None:
        sets.insert(0, "status = :to_status")
        where.append(f"status IN ({among(life.sources(_MOVES[table], to))})")
    if guard:
        where.append(guard)
    text = f"UPDATE {table} SET {', '.join(sets)} WHERE {' AND '.join(where)}"
    return f"{text} RETURNING {back}" if back else text


def move(
    tx: Tx,
    table: str,
    row_id: str,
    to: str | None,
    *,
    guard: str = "",
    guard_values: Mapping[str, Any] | None = None,
    raw: Sequence[str] = (),
    held: Row | None = None,
    **values: Any,
) -> Row | None:
    """
    Move one row, or change it in place if `to` is None; return the new row, or None if lost.

    Args:
        guard: SQL condition with ``:names`` from `guard_values`; must not reuse column names.
        raw: Assignments as SQL, for what the database computes (``fence = fence + 1``).
        held: The row as it is under the lock that this transaction holds. So its outcome is
            known, and the write waits for the next statement or the commit (`Tx.later`).
        values: Columns and their new values; dicts and lists are stored as JSON.
    """
    params: dict[str, Any] = {name: _stored(value) for name, value in values.items()}
    params.update(guard_values or {}, id=row_id)
    if to is not None:
        params["to_status"] = to
    if held is None:
        return tx.one(_statement(table, to, tuple(values), tuple(raw), guard, "*"), **params)
    assert not raw, "what the database computes is not known beforehand"
    assert not guard, "the lock is the guard"
    if to is not None and held["status"] not in life.sources(_MOVES[table], to):
        return None
    if "fence" in values:
        # A row in memory that is older than a move of this transaction must not set it back.
        guard, params["held_fence"] = "fence = :held_fence", held["fence"]
    text = _statement(table, to, tuple(values), (), guard, "")
    tx.later(table, text, params, what=f"{table[:-1]} {row_id}")
    status = {} if to is None else {"status": to}
    return {**held, **values, **status}


def _stored(value: Any) -> Any:
    if isinstance(value, str):
        return plain(value)
    return dump(value) if isinstance(value, dict | list) else value


@cache
def _event_statement(subjects: tuple[int, ...]) -> str:
    """Return the insert of one line per item; the item tells which subject it is about."""
    rows = ", ".join(
        f"(:tenant{subject}, :run{subject}, :lease{subject}, :at, :name{line}, :data{line})"
        for line, subject in enumerate(subjects)
    )
    return f"INSERT INTO events (tenant_id, run_id, lease_id, at, name, data) VALUES {rows}"


def record(
    tx: Tx,
    *names: str | tuple[str, Mapping[str, Any]],
    tenant_id: str,
    run_id: str | None = None,
    lease_id: str | None = None,
) -> None:
    """
    Write lines of history about one run and its lease, in the order given.

    They are kept until just before the commit and sent in one statement; who takes a
    transaction of somebody else's calls `flush` itself.
    """
    if not tx.history:
        tx.before_commit.append(lambda: flush(tx))
    for item in names:
        name, data = item if isinstance(item, tuple) else (item, {})
        tx.history.append((tenant_id, run_id, lease_id, name, dump(dict(data))))


def flush(tx: Tx) -> None:
    """Write the transaction's lines of history, in one statement."""
    if not tx.history:
        return
    params: dict[str, Any] = {"at": tx.stamp()}
    subjects: dict[tuple[str, str | None, str | None], int] = {}
    about: list[int] = []
    for index, (tenant, run, lease, name, data) in enumerate(tx.history):
        subject = subjects.setdefault((tenant, run, lease), len(subjects))
        params |= {f"tenant{subject}": tenant, f"run{subject}": run, f"lease{subject}": lease}
        params |= {f"name{index}": name, f"data{index}": data}
        about.append(subject)
    tx.later("events", _event_statement(tuple(about)), params, what="history")
    tx.history.clear()


def events_of(
    tx: Tx,
    *,
    run_id: str | None = None,
    lease_id: str | None = None,
    limit: int = 1000,
    after: int = 0,
) -> list[Row]:
    """Return the history of a run or a lease, the oldest line first, from an event on."""
    flush(tx)
    column, value = ("run_id", run_id) if run_id else ("lease_id", lease_id)
    rows = tx.all(
        f"SELECT * FROM events WHERE {column} = :value AND id > :after"
        " ORDER BY id LIMIT :limit",
        value=value,
        after=after,
        limit=limit,
    )
    for row in rows:
        row["data"] = load(row["data"])
    return rows
