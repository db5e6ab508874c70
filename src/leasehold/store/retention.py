"""
SQL of retention: how long a tenant keeps what is over, and its deletion in small batches.

Only what is *over* goes, and only if nothing refers to it that is not. Each function takes a
bounded number of rows, found by an index, and deletes them with all that belongs to them; so a
transaction is short, and killed between two of them the next turn goes on. A line of history
that names a run and a lease goes with the one that goes last, since both are replayed by it.
"""

from collections.abc import Sequence
from typing import Final

from leasehold.domain.retention import DEFAULT, Retention
from leasehold.store import blobs, predecessors
from leasehold.store.database import Row, Tx
from leasehold.store.sql import numbered

SECOND_US: Final = 1_000_000
LOCK: Final = 8_472_003
_BUSY: Final = (
    # Its sandbox, or that of an execution of it, is still owed something.
    " AND NOT EXISTS (SELECT 1 FROM leases l WHERE l.run_id = r.id AND l.finished_at IS NULL)"
    " AND NOT EXISTS (SELECT 1 FROM leases l WHERE l.id = r.lease_id"
    " AND l.status = 'releasing')"
    " AND NOT EXISTS (SELECT 1 FROM executions x WHERE x.run_id = r.id"
    " AND x.status IN ('starting', 'running'))"
    # A run that is not over names it.
    " AND NOT EXISTS (SELECT 1 FROM runs o WHERE o.retry_of = r.id AND o.finished_at IS NULL)"
    # One that starts after it does not know its end yet.
    " AND NOT EXISTS (SELECT 1 FROM predecessors p WHERE p.after_id = r.id"
    " AND p.settled_at IS NULL)"
    # Somebody is to be told of its end.
    " AND NOT EXISTS (SELECT 1 FROM webhook_deliveries d WHERE d.run_id = r.id"
    " AND d.next_at IS NOT NULL)"
)
OUTPUT: Final = (
    "FROM runs r WHERE r.tenant_id = :tenant AND r.finished_at < {now} - :kept"
    f" AND r.finished_at IS NOT NULL AND r.output_pruned_at IS NULL{_BUSY}"
)
RUNS: Final = (
    "FROM runs r WHERE r.tenant_id = :tenant AND r.finished_at < {now} - :kept"
    " AND r.output_pruned_at IS NOT NULL"
    f" AND (r.idempotency_key IS NULL OR r.finished_at < {{now}} - :key_kept){_BUSY}"
)
LEASES: Final = (
    "FROM leases l WHERE l.tenant_id = :tenant AND l.finished_at < {now} - :kept"
    " AND l.cleanup_status = 'success'"
    " AND (l.idempotency_key IS NULL OR l.finished_at < {now} - :key_kept)"
    # The highest number, and the configs of the newest, are the sweep's.
    " AND l.number <= (SELECT MAX(number) FROM leases) - :spared"
    " AND NOT EXISTS (SELECT 1 FROM runs r WHERE r.id = l.run_id AND r.finished_at IS NULL)"
    " AND NOT EXISTS (SELECT 1 FROM runs r WHERE r.wanted_lease_id = l.id"
    " AND r.finished_at IS NULL)"
    " AND NOT EXISTS (SELECT 1 FROM executions x JOIN runs r ON r.id = x.run_id"
    " WHERE x.lease_id = l.id AND r.finished_at IS NULL)"
)
EVENTS: Final = (
    "FROM events WHERE tenant_id = :tenant AND run_id IS NULL AND lease_id IS NULL"
    " AND at < {now} - :kept"
)
WORKERS: Final = (
    "FROM workers w WHERE w.gone_at < {now} - :kept"
    " AND NOT EXISTS (SELECT 1 FROM runs r WHERE r.claimed_by = w.id)"
    " AND NOT EXISTS (SELECT 1 FROM leases l WHERE l.claimed_by = w.id)"
)
SESSIONS: Final = (
    "FROM sessions s WHERE s.ended_at < {now} - :kept"
    " AND NOT EXISTS (SELECT 1 FROM workers w WHERE w.session_id = s.id)"
)


def of(tx: Tx, tenant_id: str) -> Retention:
    """Return how long a tenant keeps what is over."""
    row = tx.one("SELECT * FROM retention WHERE tenant_id = :tenant", tenant=tenant_id)
    return _read(row) if row else DEFAULT


def _read(row: Row) -> Retention:
    # What stands in SQL was checked at the border; a test may have put less there.
    return Retention.model_construct(runs_s=row["runs_s"], output_s=row["output_s"])


def of_all(tx: Tx) -> dict[str, Retention]:
    """Return it for every tenant there is."""
    rows = tx.all(
        "SELECT t.id, k.tenant_id, k.runs_s, k.output_s FROM tenants t"
        " LEFT JOIN retention k ON k.tenant_id = t.id ORDER BY t.id"
    )
    return {row["id"]: _read(row) if row["tenant_id"] else DEFAULT for row in rows}


def put(tx: Tx, tenant_id: str, kept: Retention) -> None:
    """Write how long a tenant keeps what is over."""
    tx.run(
        "INSERT INTO retention (tenant_id, runs_s, output_s, updated_at)"
        " VALUES (:tenant, :runs, :output, {now}) ON CONFLICT (tenant_id)"
        " DO UPDATE SET runs_s = :runs, output_s = :output, updated_at = {now}",
        tenant=tenant_id,
        runs=None if kept.runs_s is None else int(kept.runs_s),
        output=None if kept.output_s is None else int(kept.output_s),
    )


def lock(tx: Tx) -> bool:
    """Be the one who prunes until the transaction ends; False: somebody else does."""
    if tx.dialect == "sqlite":
        return True
    return bool(tx.value("SELECT pg_try_advisory_xact_lock(:key)", key=LOCK))


def _some(
    tx: Tx, column: str, text: str, order: str, limit: int, **params: object
) -> list[str]:
    rows = tx.all(
        f"SELECT {column} AS id {text} ORDER BY {order} LIMIT :limit", limit=limit, **params
    )
    return [row["id"] for row in rows]


def _us(seconds: float) -> int:
    return int(seconds * SECOND_US)


def drop_output(
    tx: Tx, tenant_id: str, *, kept_s: float, grace_s: float, limit: int
) -> list[str]:
    """Delete output and artifacts of runs that ended long ago; return the runs."""
    run_ids = _some(
        tx, "r.id", OUTPUT, "r.finished_at", limit, tenant=tenant_id, kept=_us(kept_s)
    )
    if not run_ids:
        return []
    names, params = numbered("r", run_ids)
    blobs.release(
        tx,
        tenant_id,
        f"SELECT sha256 FROM artifacts WHERE run_id IN ({names})",
        grace_us=_us(grace_s),
        **params,
    )
    tx.run(f"DELETE FROM artifacts WHERE run_id IN ({names})", **params)
    tx.run(
        "DELETE FROM output_chunks WHERE execution_id IN"
        f" (SELECT id FROM executions WHERE run_id IN ({names}))",
        **params,
    )
    tx.run(f"UPDATE runs SET output_pruned_at = {{now}} WHERE id IN ({names})", **params)
    return run_ids


def drop_runs(
    tx: Tx, tenant_id: str, *, kept_s: float, key_kept_s: float, grace_s: float, limit: int
) -> list[str]:
    """Delete runs that have no output any more, with their history; return them."""
    run_ids = _some(
        tx,
        "r.id",
        RUNS,
        "r.finished_at",
        limit,
        tenant=tenant_id,
        kept=_us(kept_s),
        key_kept=_us(key_kept_s),
    )
    if not run_ids:
        return []
    names, params = numbered("r", run_ids)
    blobs.release(
        tx,
        tenant_id,
        f"SELECT blob FROM runs WHERE id IN ({names})",
        grace_us=_us(grace_s),
        **params,
    )
    _drop_events(tx, "run_id", run_ids, other="leases l WHERE l.id = events.lease_id")
    tx.run(f"DELETE FROM executions WHERE run_id IN ({names})", **params)
    predecessors.drop(tx, run_ids)
    tx.run(f"DELETE FROM webhook_deliveries WHERE run_id IN ({names})", **params)
    tx.run(f"DELETE FROM runs WHERE id IN ({names})", **params)
    return run_ids


def drop_leases(
    tx: Tx, tenant_id: str, *, kept_s: float, key_kept_s: float, spared: int, limit: int
) -> list[str]:
    """Delete leases whose sandboxes are proven gone, with their history; return them."""
    lease_ids = _some(
        tx,
        "l.id",
        LEASES,
        "l.finished_at",
        limit,
        tenant=tenant_id,
        kept=_us(kept_s),
        key_kept=_us(key_kept_s),
        spared=spared,
    )
    if not lease_ids:
        return []
    names, params = numbered("l", lease_ids)
    _drop_events(tx, "lease_id", lease_ids, other="runs r WHERE r.id = events.run_id")
    tx.run(f"DELETE FROM secret_uses WHERE lease_id IN ({names})", **params)
    tx.run(f"DELETE FROM leases WHERE id IN ({names})", **params)
    return lease_ids


def _drop_events(tx: Tx, column: str, ids: Sequence[str], *, other: str) -> None:
    """Delete the lines of these rows, but for those that the other row needs as well."""
    names, params = numbered("i", ids)
    tx.run(
        f"DELETE FROM events WHERE {column} IN ({names})"
        f" AND NOT EXISTS (SELECT 1 FROM {other})",
        **params,
    )


def drop_events(tx: Tx, tenant_id: str, *, kept_s: float, limit: int) -> int:
    """Delete lines of history about neither run nor lease; return how many."""
    return tx.run(
        f"DELETE FROM events WHERE id IN (SELECT id {EVENTS} ORDER BY at LIMIT :limit)",
        tenant=tenant_id,
        kept=_us(kept_s),
        limit=limit,
    )


def drop_workers(tx: Tx, *, kept_s: float, limit: int) -> int:
    """Delete workers that are gone and claim nothing; return how many."""
    return tx.run(
        f"DELETE FROM workers WHERE id IN (SELECT w.id {WORKERS} ORDER BY w.gone_at"
        " LIMIT :limit)",
        kept=_us(kept_s),
        limit=limit,
    )


def drop_sessions(tx: Tx, *, kept_s: float, limit: int) -> int:
    """Delete sessions that are over and have no workers any more; return how many."""
    return tx.run(
        f"DELETE FROM sessions WHERE id IN (SELECT s.id {SESSIONS} ORDER BY s.ended_at"
        " LIMIT :limit)",
        kept=_us(kept_s),
        limit=limit,
    )


def forecast_output(tx: Tx, tenant_id: str, *, kept_s: float) -> Row:
    """Count what `drop_output` would delete: `runs`, `output_bytes`, `artifacts` and theirs."""
    whose = f"(SELECT r.id {OUTPUT})"
    row = tx.one(
        f"SELECT (SELECT count(*) {OUTPUT}) AS output_of,"
        " (SELECT COALESCE(SUM(x.stdout_offset + x.stderr_offset), 0) FROM executions x"
        f" WHERE x.run_id IN {whose}) AS output_bytes,"
        f" (SELECT count(*) FROM artifacts WHERE run_id IN {whose}) AS artifacts,"
        f" (SELECT COALESCE(SUM(bytes), 0) FROM artifacts WHERE run_id IN {whose}"
        " AND sha256 IS NOT NULL) AS artifact_bytes",
        tenant=tenant_id,
        kept=_us(kept_s),
    )
    assert row is not None
    return {name: int(value) for name, value in row.items()}


def forecast_rows(
    tx: Tx, tenant_id: str, *, kept_s: float, key_kept_s: float, spared: int
) -> Row:
    """Count the runs, leases and lines of neither that are to go."""
    # A run's output goes before its row, in the same turn.
    runs = RUNS.replace(" AND r.output_pruned_at IS NOT NULL", " AND r.finished_at IS NOT NULL")
    row = tx.one(
        f"SELECT (SELECT count(*) {runs}) AS runs, (SELECT count(*) {LEASES}) AS leases,"
        f" (SELECT count(*) {EVENTS}) AS events",
        tenant=tenant_id,
        kept=_us(kept_s),
        key_kept=_us(key_kept_s),
        spared=spared,
    )
    assert row is not None
    return {name: int(value) for name, value in row.items()}


def forecast_fleet(tx: Tx, *, kept_s: float) -> Row:
    """Count the workers and sessions that are to go."""
    sessions = SESSIONS.replace(
        "w.session_id = s.id",
        "w.session_id = s.id AND (w.gone_at IS NULL OR w.gone_at >= {now} - :kept)",
    )
    row = tx.one(
        f"SELECT (SELECT count(*) {WORKERS}) AS workers,"
        f" (SELECT count(*) {sessions}) AS sessions",
        kept=_us(kept_s),
    )
    assert row is not None
    return {name: int(value) for name, value in row.items()}
