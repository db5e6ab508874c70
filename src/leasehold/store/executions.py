"""SQL of executions and of their output."""

from collections.abc import Sequence

from leasehold.errors import LostClaimError
from leasehold.store.database import Row, Tx
from leasehold.store.runs import decoded
from leasehold.store.sql import numbered

CHUNK_BYTES = 256 * 1024


def open_of(tx: Tx, run_id: str) -> Row | None:
    """Return the run's execution that is not over, if there is one."""
    row = tx.one(
        "SELECT *, {now} AS now_us FROM executions"
        " WHERE run_id = :run AND status IN ('starting', 'running')",
        run=run_id,
    )
    return decoded(row) if row else None


def of_run(tx: Tx, run_id: str) -> list[Row]:
    """List a run's executions in the order of their starts."""
    rows = tx.all("SELECT * FROM executions WHERE run_id = :run ORDER BY number", run=run_id)
    return [decoded(row) for row in rows]


def beats(tx: Tx, run_ids: Sequence[str]) -> list[Row]:
    """Return what a beat needs of each run: run, lease and execution in one row."""
    if not run_ids:
        return []  # PostgreSQL refuses an empty list
    names, params = numbered("r", list(run_ids))
    return tx.all(
        "SELECT r.id AS run_id, r.tenant_id, r.end_requested, r.follow_until, r.spec,"
        " r.claimed_by, l.id AS lease_id, l.number, l.environment_id, l.fence, l.provider,"
        " l.handle AS lease_handle, l.facts, l.renew_at, l.sandbox_expires_at, l.held_until,"
        " l.retained_until,"
        " x.id AS execution_id, x.handle, x.secrets, x.runtime_url,"
        " x.status AS execution_status,"
        " x.stdout_offset, x.stderr_offset, x.started_at, x.created_at, {now} AS now_us"
        " FROM runs r JOIN leases l ON l.id = r.lease_id"
        " JOIN executions x ON x.run_id = r.id AND x.status IN ('starting', 'running')"
        f" WHERE r.id IN ({names})",
        **params,
    )


def append(tx: Tx, execution_id: str, *, stream: str, offset: int, data: bytes) -> None:
    """
    Store new output at its offset; the offset grows by compare-and-set.

    Raises:
        LostClaimError: Somebody else has stored from this offset already.
    """
    if not data:
        return
    column = f"{stream}_offset"
    moved = tx.run(
        f"UPDATE executions SET {column} = :next WHERE id = :id AND {column} = :offset",
        id=execution_id,
        offset=offset,
        next=offset + len(data),
    )
    if not moved:
        raise LostClaimError(f"output of {execution_id} has grown past {offset}")
    for start in range(0, len(data), CHUNK_BYTES):
        tx.run(
            "INSERT INTO output_chunks (execution_id, stream, start, data)"
            " VALUES (:id, :stream, :start, :data)",
            id=execution_id,
            stream=stream,
            start=offset + start,
            data=data[start : start + CHUNK_BYTES],
        )


def output(
    tx: Tx, execution_id: str, *, stream: str, offset: int, limit_bytes: int = 4 * 1024 * 1024
) -> bytes:
    """Return stored output from a byte offset on, at most about `limit_bytes`."""
    rows = tx.all(
        "SELECT start, data FROM output_chunks WHERE execution_id = :id AND stream = :stream"
        " AND start >= COALESCE((SELECT MAX(start) FROM output_chunks WHERE execution_id = :id"
        " AND stream = :stream AND start <= :offset), 0) ORDER BY start LIMIT :chunks",
        id=execution_id,
        stream=stream,
        offset=offset,
        chunks=max(2, limit_bytes // CHUNK_BYTES + 1),
    )
    parts = [bytes(row["data"])[max(0, offset - row["start"]) :] for row in rows]
    return b"".join(parts)
