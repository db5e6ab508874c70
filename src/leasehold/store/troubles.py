"""
SQL of what does not go on by itself: stuck runs, and sandboxes that nobody may look after.

All of it is read from partial indexes of what is not over. A list stops at `MOST`; those that
have been so for longest come first.
"""

from typing import Final

from leasehold.domain.lifecycle import EXECUTION_ENDS, LEASE_ENDS
from leasehold.store.columns import among
from leasehold.store.database import Row, Tx
from leasehold.store.runs import decoded

MOST: Final = 100
WAITING_MOST: Final = 1000
"""Of the queue, from its head on, so many runs are looked at for why they wait."""

GROUPS: Final = 10
"""Of runs that wait alike, so many are explained."""

_AWAY: Final = (
    "({t}.host_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM sessions hs"
    " WHERE hs.host_id = {t}.host_id AND hs.status = 'live'))"
)
_UNHELD: Final = (
    "({t}.claimed_by IS NOT NULL AND (w.id IS NULL OR w.status = 'gone'"
    " OR s.status <> 'live' OR s.beat_at < {now} - :silent))"
)
"""Claimed by a worker that is gone, or whose host agent does not beat any more."""

_HOLDER: Final = (
    "LEFT JOIN workers w ON w.id = {t}.claimed_by LEFT JOIN sessions s ON s.id = w.session_id"
    " LEFT JOIN hosts h ON h.id = {t}.host_id"
)


def _for(text: str, table: str) -> str:
    return text.replace("{t}", table)


_SAID: Final = (
    f"{_for(_UNHELD, 'r')} AS unheld, {_for(_AWAY, 'r')} AS away, h.name AS host,"
    " h.alive_at, {now} AS now_us"
)
_STUCK: Final = (
    "SELECT r.id, r.status, r.step, r.queue, r.beat, r.code, r.message, r.claimed_by,"
    " r.due_at, r.timer_at, r.deadline_at, r.end_requested, r.end_requested_at, r.publishes,"
    " r.infra_attempts, r.created_at, r.lease_id, r.host_id, r.spec,"
    " COALESCE(e.name, r.environment_id) AS environment, l.sandbox_expires_at,"
    " EXISTS (SELECT 1 FROM executions x WHERE x.run_id = r.id AND x.status NOT IN"
    f" ({among(EXECUTION_ENDS)})) AS started, {_SAID} FROM runs r"
    " LEFT JOIN environments e ON e.id = r.environment_id"
    f" LEFT JOIN leases l ON l.id = r.lease_id {_for(_HOLDER, 'r')}"
    " WHERE r.tenant_id = :tenant"
)
_RUNNING: Final = (
    f"{_STUCK} AND r.status = 'running' AND ({_for(_UNHELD, 'r')} OR {_for(_AWAY, 'r')}"
    " OR (r.claimed_by IS NULL AND (r.due_at < {now} - :late OR (r.publishes > :tries"
    " AND r.step IN ('validate', 'acquire')) OR (r.code IS NOT NULL AND NOT r.beat)))"
    " OR r.end_requested_at < {now} - :ending) ORDER BY r.created_at + 0, r.id LIMIT :most"
)
_PARKED: Final = (
    f"{_STUCK} AND r.status = 'parked' ORDER BY r.created_at DESC, r.id LIMIT :most"
)
_LEASES: Final = (
    "SELECT r.id, r.status, r.mode, r.reason, r.claimed_by, r.due_at, r.queue, r.run_id,"
    " r.provider, r.sandbox_id, r.last_error, r.cleanup_attempts, r.created_at, r.host_id,"
    f" r.environment_name AS environment, r.sandbox_expires_at, {_SAID}"
    f" FROM leases r {_for(_HOLDER, 'r')} WHERE r.tenant_id = :tenant"
    f" AND r.status NOT IN ({among(LEASE_ENDS)}) AND ({_for(_UNHELD, 'r')}"
    f" OR {_for(_AWAY, 'r')} OR (r.status = 'releasing' AND r.last_error IS NOT NULL)"
    " OR (r.claimed_by IS NULL AND r.due_at < {now} - :late))"
    " ORDER BY r.number + 0 LIMIT :most"
)


def runs(
    tx: Tx, *, tenant_id: str, silent_us: int, late_us: int, ending_us: int, tries: int
) -> list[Row]:
    """
    List running runs that may not go on, those that were created first.

    Args:
        silent_us: So long without a beat, and a host agent counts as dead.
        late_us: So long due and unclaimed, and a row counts as late.
        ending_us: So long after it was asked for, and an end counts as late.
        tries: More messages than this, and nobody takes it.
    """
    return _flags(
        tx.all(
            _RUNNING,
            tenant=tenant_id,
            silent=silent_us,
            late=late_us,
            ending=ending_us,
            tries=tries,
            most=MOST,
        )
    )


def parked(tx: Tx, *, tenant_id: str, silent_us: int) -> list[Row]:
    """List parked runs, the newest first."""
    return _flags(tx.all(_PARKED, tenant=tenant_id, silent=silent_us, most=MOST))


def leases(tx: Tx, *, tenant_id: str, silent_us: int, late_us: int) -> list[Row]:
    """List live leases that may have lost who looks after them, the oldest first."""
    return _flags(tx.all(_LEASES, tenant=tenant_id, silent=silent_us, late=late_us, most=MOST))


def _flags(rows: list[Row]) -> list[Row]:
    for row in rows:
        row["unheld"], row["away"] = bool(row["unheld"]), bool(row["away"])
    return rows


def agents(tx: Tx, *, silent_us: int) -> int:
    """Count the host agents that beat: each of them has a clock."""
    return int(
        tx.value(
            "SELECT count(*) FROM sessions WHERE status = 'live'"
            " AND beat_at >= {now} - :silent",
            silent=silent_us,
        )
    )


def waiting(tx: Tx, *, tenant_id: str) -> list[Row]:
    """
    Group the head of the queue by what runs of it have in common.

    Returns `runs`, `oldest_at` and `run_id` (the first of its group) of each, the most first.
    """
    rows = tx.all(
        "SELECT q.environment_id, COALESCE(e.name, q.environment_id) AS environment,"
        " count(*) AS runs, MIN(q.created_at) AS oldest_at, MIN(q.id) AS run_id,"
        " {now} AS now_us FROM (SELECT id, environment_id, requires, workspace,"
        " wanted_lease_id, created_at FROM runs WHERE status = 'queued' AND waits = 0"
        " AND tenant_id = :tenant ORDER BY priority DESC, id LIMIT :most) q"
        " LEFT JOIN environments e ON e.id = q.environment_id"
        " GROUP BY q.environment_id, e.name, q.requires, q.workspace, q.wanted_lease_id"
        " ORDER BY runs DESC, run_id LIMIT :groups",
        tenant=tenant_id,
        most=WAITING_MOST,
        groups=GROUPS,
    )
    return [decoded(row) for row in rows]
