"""
What a whole deployment does now and has done lately, in numbers: for programs that watch it.

All of it is read from partial indexes of what is not over, from the ends of the last minutes,
or from the newest lines of history; nothing grows with history, and counts stop at `MOST`.
"""

from dataclasses import dataclass, field
from typing import Final

from leasehold.domain.lifecycle import LEASE_ENDS
from leasehold.store import restored
from leasehold.store.columns import among
from leasehold.store.database import Row, Tx
from leasehold.store.tables import ADMISSIBLE

WINDOW_US: Final = 300_000_000
"""How far back "lately" goes."""

MOST: Final = 50_000
"""Where a count stops: it is a lower bound then."""

_LINES: Final = 5_000
_ENDS: Final = 500
UNANSWERED: Final = 3
"""So often a step is sent before it counts as unanswered."""

_HOUR_US: Final = 3_600_000_000
_ENDED: Final = (
    "SELECT {columns} FROM runs WHERE tenant_id IN (SELECT id FROM tenants)"
    " AND finished_at > :since AND finished_at IS NOT NULL AND output_pruned_at IS NULL"
    " UNION ALL SELECT {columns} FROM runs WHERE tenant_id IN (SELECT id FROM tenants)"
    " AND finished_at > :since AND output_pruned_at IS NOT NULL LIMIT :most"
)
_PRIORITIES: Final = " UNION ALL ".join(f"SELECT {n} AS priority" for n in range(10))
_COUNT: Final = "(SELECT count(*) FROM (SELECT 1 AS one FROM runs WHERE {where} LIMIT :most) q)"
_PARKED: Final = "tenant_id IN (SELECT id FROM tenants) AND status = 'parked'"
_QUEUED: Final = (
    f"SELECT {_COUNT.format(where=ADMISSIBLE)} AS ready,"
    f" {_COUNT.format(where='waits > 0')} AS waiting,"
    f" {_COUNT.format(where=_PARKED)} AS parked,"
    # The first of each priority by the index that admission reads; ids are in order of time.
    " (SELECT MIN(q.at) FROM (SELECT (SELECT r.created_at FROM runs r WHERE"
    " r.status = 'queued' AND r.waits = 0 AND r.priority = p.priority ORDER BY r.id LIMIT 1)"
    f" AS at FROM ({_PRIORITIES}) p) q) AS oldest_at,"
    " (SELECT MIN(due_at) FROM runs WHERE due_at IS NOT NULL) AS run_due,"
    " (SELECT MIN(due_at) FROM leases WHERE due_at IS NOT NULL) AS lease_due,"
    " {now} AS now_us"
)


@dataclass(slots=True)
class Gauges:
    """One look at a deployment; times are microseconds."""

    now_us: int
    ready: int
    """Queued runs that nothing but room is missing to."""

    waiting: int
    """Queued runs that wait for others (`after`)."""

    parked: int
    oldest_us: int
    """How long the oldest run that only lacks room has been queued."""

    late_us: int
    """How late the row is that is due for longest; a clock that sends it puts it off."""

    unanswered: int = 0
    """Runs whose step was sent several times, and nobody has taken it."""

    running: dict[str, int] = field(default_factory=dict)
    """By step."""

    leases: dict[str, int] = field(default_factory=dict)
    cleanup_failing: int = 0
    ended: dict[tuple[str, str], int] = field(default_factory=dict)
    """By status and code, lately."""

    waits_us: list[int] = field(default_factory=list)
    """From created to started, of runs that have started lately."""

    steps_us: dict[str, list[int]] = field(default_factory=dict)
    """How long each step took lately."""

    sessions_lost: int = 0
    """In the last hour."""

    live_hosts: int = 0
    workers: dict[str, int] = field(default_factory=dict)
    """Those that are ready, by kind."""

    deliveries: int = 0
    """That webhooks are owed."""

    alarm: bool = False


def look(tx: Tx) -> Gauges:
    """Return the numbers of all tenants together."""
    row = tx.one(_QUEUED, most=MOST)
    assert row is not None
    now = int(row["now_us"])
    found = Gauges(
        now_us=now,
        ready=int(row["ready"]),
        waiting=int(row["waiting"]),
        parked=int(row["parked"]),
        oldest_us=_since(row["oldest_at"], now),
        late_us=max(_since(row[name], now) for name in ("run_due", "lease_due")),
        alarm=restored.alarm(tx) is not None,
    )
    _leases(tx, found)
    _runs(tx, found)
    _steps(tx, found)
    _fleet(tx, found)
    return found


def _since(at: int | None, now: int) -> int:
    return 0 if at is None else max(0, now - int(at))


def _counts(rows: list[Row], name: str) -> dict[str, int]:
    return {row[name]: int(row["n"]) for row in rows}


def _leases(tx: Tx, found: Gauges) -> None:
    rows = tx.all(
        "SELECT status, count(*) AS n,"
        " SUM(CASE WHEN status = 'releasing' AND last_error IS NOT NULL THEN 1 ELSE 0 END)"
        f" AS failing FROM leases WHERE status NOT IN ({among(LEASE_ENDS)}) GROUP BY status"
    )
    found.leases = _counts(rows, "status")
    found.cleanup_failing = sum(int(row["failing"] or 0) for row in rows)


def _runs(tx: Tx, found: Gauges) -> None:
    running = "SELECT {what} FROM runs WHERE status = 'running'"
    rows = tx.all(running.format(what="step, count(*) AS n") + " GROUP BY step")
    found.running = _counts(rows, "step")
    since = found.now_us - WINDOW_US
    ended = _ENDED.format(columns="status, code")
    rows = tx.all(
        f"SELECT status, code, count(*) AS n FROM ({ended}) q GROUP BY status, code",
        since=since,
        most=MOST,
    )
    found.ended = {(row["status"], row["code"] or ""): int(row["n"]) for row in rows}
    started = "created_at, started_at"
    union = f"SELECT * FROM ({_ENDED.format(columns=started)}) e"
    rows = tx.all(
        f"SELECT started_at - created_at AS us FROM ({running.format(what=started)}"
        f" UNION ALL {union}) q WHERE started_at > :since"
        " ORDER BY started_at DESC LIMIT :lines",
        since=since,
        most=MOST,
        lines=_LINES,
    )
    found.waits_us = [int(row["us"]) for row in rows]
    unanswered = tx.value(
        "SELECT count(*) FROM runs WHERE status = 'running' AND claimed_by IS NULL"
        " AND NOT beat AND publishes >= :sent",
        sent=UNANSWERED,
    )
    found.unanswered = int(unanswered)


def _steps(tx: Tx, found: Gauges) -> None:
    """Find the beginnings of the steps that have ended among the newest lines of history."""
    rows = tx.all(
        "SELECT e.name, e.at, (SELECT MAX(s.at) FROM events s WHERE s.run_id = e.run_id"
        "  AND s.id < e.id AND s.name = REPLACE(e.name, '.finished', '.started')) AS began"
        " FROM (SELECT id, name, run_id, at FROM events ORDER BY id DESC LIMIT :lines) e"
        " WHERE e.name LIKE 'step.%.finished' AND e.run_id IS NOT NULL AND e.at > :since"
        " ORDER BY e.id DESC LIMIT :ends",
        lines=_LINES,
        since=found.now_us - WINDOW_US,
        ends=_ENDS,
    )
    for row in rows:
        if row["began"] is not None:
            step = row["name"].split(".")[1]
            found.steps_us.setdefault(step, []).append(int(row["at"]) - int(row["began"]))


def _fleet(tx: Tx, found: Gauges) -> None:
    row = tx.one(
        "SELECT (SELECT count(DISTINCT host_id) FROM sessions WHERE status = 'live') AS hosts,"
        " (SELECT count(*) FROM sessions WHERE ended_at IS NOT NULL AND ended_at > :since"
        "  AND status = 'expired') AS lost,"
        " (SELECT count(*) FROM webhook_deliveries WHERE next_at IS NOT NULL) AS owed",
        since=found.now_us - _HOUR_US,
    )
    assert row is not None
    found.live_hosts, found.sessions_lost = int(row["hosts"]), int(row["lost"])
    found.deliveries = int(row["owed"])
    rows = tx.all(
        "SELECT kind, count(*) AS n FROM workers WHERE status <> 'gone' AND status = 'ready'"
        " GROUP BY kind"
    )
    found.workers = _counts(rows, "kind")
