"""
What a clock must know of everything, in one statement: an idle system costs next to nothing.
"""

from dataclasses import dataclass
from typing import Final

from leasehold.store.claims import ORPHANED
from leasehold.store.database import Tx
from leasehold.store.runs import LOST_HOST

_TEXT: Final = (
    "SELECT {now} AS now_us,"
    " (SELECT MIN(timer_at) FROM runs WHERE timer_at IS NOT NULL AND finished_at IS NULL"
    " AND end_requested IS NULL) AS run_timer,"
    " (SELECT MIN(timer_at) FROM leases WHERE timer_at IS NOT NULL"
    " AND status IN ('idle', 'retained')) AS lease_timer,"
    " (SELECT MIN(due_at) FROM runs WHERE due_at IS NOT NULL AND NOT beat"
    " AND status = 'running') AS run_due,"
    " (SELECT MIN(due_at) FROM leases WHERE due_at IS NOT NULL) AS lease_due,"
    " (SELECT MIN(due_at) FROM runs WHERE due_at IS NOT NULL AND beat"
    " AND status = 'running') AS beat_due,"
    " (SELECT MIN(due_at) FROM runs WHERE due_at > {now} AND beat"
    " AND status = 'running') AS beat_next,"
    " (SELECT MIN(next_at) FROM schedules WHERE next_at IS NOT NULL) AS schedule_next,"
    " EXISTS (SELECT 1 FROM runs WHERE status = 'queued' AND waits = 0) AS queued,"
    " EXISTS (SELECT 1 FROM predecessors WHERE due) AS preceding,"
    " EXISTS (SELECT 1 FROM webhook_deliveries WHERE next_at <= {now}) AS letters,"
    f" EXISTS (SELECT 1 FROM runs r WHERE {LOST_HOST}) AS lost,"
    f" (EXISTS ({ORPHANED.replace('{table}', 'runs')})"
    f" OR EXISTS ({ORPHANED.replace('{table}', 'leases')})) AS orphaned,"
    " EXISTS (SELECT 1 FROM facts WHERE name = 'alarm') AS halted,"
    " (SELECT value FROM facts WHERE name = 'clock_offset_us') AS offset_us,"
    " (SELECT value FROM facts WHERE name = 'clock_seen_us') AS seen_us,"
    " (SELECT {list} FROM sessions WHERE status = 'live') AS sessions"
)
_PULSE: Final = {
    "sqlite": _TEXT.replace("{list}", "group_concat(id || ' ' || counter)"),
    "postgresql": _TEXT.replace("{list}", "string_agg(id || ' ' || counter, ',')"),
}


@dataclass(frozen=True, slots=True)
class Pulse:
    """The earliest of each kind of due thing, in microseconds; None: there is none."""

    now_us: int
    offset_us: int
    """The stored part of `now_us`."""

    seen_us: int | None
    """When a clock last vouched for the time (`store.watch`)."""

    sessions: dict[str, int]
    """The live sessions and their counters."""

    run_timer: int | None
    lease_timer: int | None
    run_due: int | None
    lease_due: int | None
    beat_due: int | None
    beat_next: int | None
    """The earliest beat that is not due yet: one lane may stay due for long."""

    schedule_next: int | None
    letters: bool
    """A webhook is owed something now, or rests while it is."""

    queued: bool
    preceding: bool
    """Something of `predecessors` is to be looked at."""

    lost: bool
    orphaned: bool
    """A worker that is gone claims something (`claims.of_the_gone`)."""

    halted: bool
    """The alarm stands: this database may be of yesterday (`store.restored`)."""

    def is_due(self, at: int | None) -> bool:
        return at is not None and at <= self.now_us

    @property
    def steps_due(self) -> bool:
        return self.is_due(self.run_due) or self.is_due(self.lease_due)

    def next_in_s(self, *times: int | None) -> float | None:
        """Return the seconds until the first of these times, or None."""
        there = [at for at in times if at is not None]
        return (min(there) - self.now_us) / 1_000_000 if there else None


def read(tx: Tx, *, grace_us: int) -> Pulse:
    """Take the pulse; every part of it is answered by an index."""
    row = tx.one(_PULSE[tx.dialect], grace=grace_us)
    assert row is not None
    row["offset_us"] = int(row["offset_us"] or 0)
    row["seen_us"] = None if row["seen_us"] is None else int(row["seen_us"])
    pairs = (pair.partition(" ") for pair in (row["sessions"] or "").split(",") if pair)
    row["sessions"] = {session_id: int(counter) for session_id, _, counter in pairs}
    for name in ("letters", "queued", "preceding", "lost", "orphaned", "halted"):
        row[name] = bool(row[name])
    return Pulse(**row)


def due_lanes(tx: Tx) -> list[tuple[str, int]]:
    """Return the queues with a beat due, and for how many microseconds the oldest one is."""
    rows = tx.all(
        "SELECT queue, MIN(due_at) AS due_at, {now} AS now_us FROM runs WHERE due_at <= {now}"
        " AND beat AND status = 'running' AND queue IS NOT NULL GROUP BY queue"
    )
    return [(row["queue"], row["now_us"] - row["due_at"]) for row in rows]
