"""
What a tenant has under way and how it went lately: numbers for people.

All of it is read from partial indexes of what is not over, or from the ends of the last hour
and day; nothing grows with history. A count stops at `MOST`, which is then a lower bound.
"""

from typing import Final

from leasehold.domain.lifecycle import LEASE_ENDS
from leasehold.store.columns import among
from leasehold.store.database import Row, Tx

MOST: Final = 50_000
HOUR_US: Final = 3_600_000_000
MINUTE_US: Final = 60_000_000
_ENDED: Final = (
    "SELECT finished_at, status FROM runs WHERE tenant_id = :tenant AND finished_at > :since"
    " AND finished_at IS NOT NULL AND output_pruned_at IS NULL"
    " UNION ALL SELECT finished_at, status FROM runs WHERE tenant_id = :tenant"
    " AND finished_at > :since AND output_pruned_at IS NOT NULL LIMIT :most"
)


def waiting(tx: Tx, *, tenant_id: str) -> Row:
    """Return how many runs are queued and since when, and how many are parked."""
    row = tx.one(
        "SELECT (SELECT count(*) FROM (SELECT 1 AS one FROM runs WHERE status = 'queued'"
        " AND tenant_id = :tenant LIMIT :most) q) AS queued,"
        " (SELECT MIN(created_at) FROM (SELECT created_at FROM runs WHERE status = 'queued'"
        " AND tenant_id = :tenant LIMIT :most) q) AS oldest_at,"
        " (SELECT count(*) FROM (SELECT 1 AS one FROM runs WHERE status = 'parked'"
        " AND tenant_id = :tenant LIMIT :most) q) AS parked, {now} AS now_us",
        tenant=tenant_id,
        most=MOST,
    )
    assert row is not None
    return row


def steps(tx: Tx, *, tenant_id: str) -> dict[str, int]:
    """Count the running runs by their step."""
    rows = tx.all(
        "SELECT step, count(*) AS runs FROM runs WHERE status = 'running'"
        " AND tenant_id = :tenant GROUP BY step",
        tenant=tenant_id,
    )
    return {row["step"]: row["runs"] for row in rows}


def ends_by_minute(tx: Tx, *, tenant_id: str, since: int) -> list[Row]:
    """Count the runs that ended since then, by minute of the epoch and status."""
    return tx.all(
        f"SELECT finished_at / {MINUTE_US} AS minute, status, count(*) AS runs"
        f" FROM ({_ENDED}) q GROUP BY finished_at / {MINUTE_US}, status",
        tenant=tenant_id,
        since=since,
        most=MOST,
    )


def failures(tx: Tx, *, tenant_id: str, since: int) -> list[Row]:
    """Count the runs created since then that failed, by code, the most first."""
    return tx.all(
        "SELECT code, count(*) AS runs, MIN(finished_at) AS first_at,"
        " MAX(finished_at) AS last_at, MAX(id) AS run_id FROM (SELECT code, finished_at, id"
        " FROM runs WHERE tenant_id = :tenant AND status IN ('failed', 'timed_out')"
        " AND created_at > :since LIMIT :most) q GROUP BY code ORDER BY runs DESC, code",
        tenant=tenant_id,
        since=since,
        most=MOST,
    )


def leases(tx: Tx, *, tenant_id: str) -> list[Row]:
    """Count the leases that are not over by status, and those whose cleanup has failed."""
    return tx.all(
        "SELECT status, count(*) AS leases,"
        " SUM(CASE WHEN status = 'releasing' AND last_error IS NOT NULL THEN 1 ELSE 0 END)"
        f" AS failing FROM leases WHERE status NOT IN ({among(LEASE_ENDS)})"
        " AND tenant_id = :tenant GROUP BY status",
        tenant=tenant_id,
    )
