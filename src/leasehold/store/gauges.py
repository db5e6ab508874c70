"""
What a whole deployment does now and has done lately, in numbers: for programs that watch it.

All of it is read from partial indexes of what is not over, from the ends of the last minutes,
or from the newest lines of history; nothing grows with history. What a look takes of history is
bounded by `MOST`.
"""

from dataclasses import dataclass, field
from typing import Any, Final

from leasehold.domain.lifecycle import LEASE_ENDS
from leasehold.store import restored
from leasehold.store.columns import among
from leasehold.store.database import Row, Tx
from leasehold.store.tables import ADMISSIBLE

WINDOW_US: Final = 300_000_000
"""How far back "lately" goes."""

MOST: Final = 5_000
_HOUR_US: Final = 3_600_000_000
_ENDED: Final = (
    "SELECT {columns} FROM runs WHERE tenant_id IN (SELECT id FROM tenants)"
    " AND finished_at > :since AND finished_at IS NOT NULL AND output_pruned_at IS NULL"
    " UNION ALL SELECT {columns} FROM runs WHERE tenant_id IN (SELECT id FROM tenants)"
    " AND finished_at > :since AND output_pruned_at IS NOT NULL"
)
_QUEUED: Final = (
    "SELECT (SELECT count(*) FROM runs WHERE status = 'queued' AND waits = 0) AS ready,"
    " (SELECT count(*) FROM runs WHERE waits > 0) AS waiting,"
    f" (SELECT MIN(created_at) FROM runs WHERE {ADMISSIBLE}) AS oldest_at,"
    " (SELECT count(*) FROM runs WHERE tenant_id IN (SELECT id FROM tenants)"
    "  AND status = 'parked') AS parked,"
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
    """How late the row is that is due for longest."""

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
    row = tx.one(_QUEUED)
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
    )
    found.ended = {(row["status"], row["code"] or ""): int(row["n"]) for row in rows}
    started = "created_at, started_at"
    union = f"{_ENDED.format(columns=started)} UNION ALL {running.format(what=started)}"
    rows = tx.all(
        f"SELECT started_at - created_at AS us FROM ({union}) q WHERE started_at > :since"
        " ORDER BY started_at DESC LIMIT :most",
        since=since,
        most=MOST,
    )
    found.waits_us = [int(row["us"]) for row in rows]


def _steps(tx: Tx, found: Gauges) -> None:
    """Pair beginnings and ends of steps among the newest lines of history."""
    rows = tx.all(
        "SELECT name, run_id, lease_id, at FROM events ORDER BY id DESC LIMIT :most", most=MOST
    )
    begun: dict[tuple[Any, str], int] = {}
    for row in reversed(rows):
        noun, _, rest = row["name"].partition(".")
        step, _, what = rest.partition(".")
        if noun != "step" or row["at"] < found.now_us - WINDOW_US:
            continue
        of = (row["run_id"] or row["lease_id"], step)
        if what == "started":
            begun[of] = int(row["at"])
        elif (at := begun.pop(of, None)) is not None:
            found.steps_us.setdefault(step, []).append(int(row["at"]) - at)


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
