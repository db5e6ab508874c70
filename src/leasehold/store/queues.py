"""
What waits, for how long, and how fast it goes: queues of a tenant, in numbers for people.

There are two: runs wait to be admitted, by environment; admitted ones wait for a worker, by the
Celery queue that they are sent to. What waits is read from partial indexes of what is not over,
how it went from the ends of the last hour. `MOST` bounds each look.
"""

from dataclasses import dataclass, field
from typing import Any, Final

from leasehold.store.database import Row, Tx

MOST: Final = 20_000
WINDOW_US: Final = 3_600_000_000
_SHARES: Final = (0.5, 0.95, 0.99)
_WAITING: Final = (
    "SELECT environment_id, count(*) AS depth, MIN(created_at) AS oldest_at FROM (SELECT"
    " environment_id, created_at FROM runs WHERE status = 'queued' AND waits = 0"
    " AND tenant_id = :tenant LIMIT :most) q GROUP BY environment_id"
)
_LANES: Final = (
    "SELECT queue, count(*) AS running,"
    " SUM(CASE WHEN claimed_by IS NULL AND NOT beat AND due_at <= :now THEN 1 ELSE 0 END)"
    " AS due, MIN(CASE WHEN claimed_by IS NULL AND NOT beat AND due_at <= :now"
    " THEN due_at END) AS oldest_at, SUM(CASE WHEN claimed_by IS NOT NULL THEN 1 ELSE 0 END)"
    " AS claimed, SUM(CASE WHEN beat THEN 1 ELSE 0 END) AS beating FROM runs"
    " WHERE status = 'running' AND tenant_id = :tenant AND queue IS NOT NULL GROUP BY queue"
)
_COLUMNS: Final = "environment_id, created_at, started_at, finished_at"
_LATELY: Final = (
    f"SELECT {_COLUMNS} FROM (SELECT {_COLUMNS} FROM runs WHERE tenant_id = :tenant"
    " AND finished_at > :since AND finished_at IS NOT NULL AND output_pruned_at IS NULL"
    f" UNION ALL SELECT {_COLUMNS} FROM runs WHERE tenant_id = :tenant"
    " AND finished_at > :since AND output_pruned_at IS NOT NULL"
    f" UNION ALL SELECT {_COLUMNS} FROM runs WHERE tenant_id = :tenant AND status = 'running'"
    ") q ORDER BY COALESCE(finished_at, started_at) DESC LIMIT :most"
)


@dataclass(slots=True)
class Queue:
    """One environment's: what waits to be admitted, and how it went in the last hour."""

    environment_id: str
    depth: int = 0
    oldest_us: int | None = None
    started: int = 0
    ended: int = 0
    waits_us: list[int] = field(default_factory=list)
    """From created to started, of runs that have started lately; sorted by `look`."""

    def shares(self) -> list[int | None]:
        """Return within how many microseconds half, 95 and 99 per cent had started."""
        return [_share(self.waits_us, share) for share in _SHARES]


@dataclass(slots=True)
class Queues:
    """One look; times are microseconds."""

    now_us: int
    queues: list[Queue]
    """Those where most waits first."""

    lanes: list[Row]
    """By queue: `running`, `due` and unclaimed, since when, `claimed`, `beating`."""

    preceded: int
    """Queued runs that wait for others to end."""

    is_cut: bool
    """There is more than was looked at: depths are lower bounds, shares of the newest runs."""


def _share(waits: list[int], share: float) -> int | None:
    return waits[min(len(waits) - 1, int(len(waits) * share))] if waits else None


def look(tx: Tx, *, tenant_id: str) -> Queues:
    """Return a tenant's queues."""
    now = tx.now()
    found: dict[str, Queue] = {}
    waiting = tx.all(_WAITING, tenant=tenant_id, most=MOST)
    for row in waiting:
        queue = found.setdefault(row["environment_id"], Queue(row["environment_id"]))
        queue.depth, queue.oldest_us = row["depth"], max(0, now - row["oldest_at"])
    since = now - WINDOW_US
    lately = tx.all(_LATELY, tenant=tenant_id, since=since, most=MOST)
    for row in lately:
        _count(found, row, since)
    for queue in found.values():
        queue.waits_us.sort()
    preceded = tx.value(
        "SELECT count(*) FROM (SELECT 1 AS one FROM runs WHERE tenant_id = :tenant"
        " AND waits > 0 LIMIT :most) q",
        tenant=tenant_id,
        most=MOST,
    )
    lanes = tx.all(_LANES, now=now, tenant=tenant_id)
    return Queues(
        now,
        sorted(found.values(), key=lambda one: (-one.depth, -one.started, one.environment_id)),
        sorted(lanes, key=lambda row: (-row["due"], row["queue"])),
        int(preceded),
        sum(row["depth"] for row in waiting) >= MOST or len(lately) >= MOST,
    )


def _count(found: dict[str, Queue], row: Row, since: int) -> None:
    queue = found.setdefault(row["environment_id"], Queue(row["environment_id"]))
    if row["finished_at"] is not None:
        queue.ended += 1
    if row["started_at"] is not None and row["started_at"] > since:
        queue.started += 1
        queue.waits_us.append(max(0, row["started_at"] - row["created_at"]))


def queue_view(queue: Queue, names: dict[str, str]) -> dict[str, Any]:
    """Return what is shown of a queue, in seconds and per minute."""
    p50, p95, p99 = (None if one is None else one / 1e6 for one in queue.shares())
    minutes = WINDOW_US / 60_000_000
    return {
        "id": queue.environment_id,
        "environment": names.get(queue.environment_id, queue.environment_id),
        "is_there": queue.environment_id in names,
        "depth": queue.depth,
        "oldest_s": None if queue.oldest_us is None else queue.oldest_us / 1e6,
        "started": queue.started,
        "started_per_minute": queue.started / minutes,
        "ended_per_minute": queue.ended / minutes,
        "p50_s": p50,
        "p95_s": p95,
        "p99_s": p99,
    }
