"""
Sessions: who is alive, decided by observation and not by clocks that may jump.

A host agent counts a counter on in SQL. An observer (every clock) calls a session dead when
it read *the same counter* in an unbroken series of successful reads, at most `observe_gap`
apart on its own boot-time clock, that spans one whole time to live. A longer gap (an outage,
the observer's own pause, a suspend) starts the series anew. So a wall clock that jumps, a
database that was away, or a paused observer cannot kill the living.

Expiring is a compare-and-set on the counter that stood still: a beat that came in between
wins. Whoever wins gives up the claims of the session's workers in the same transaction.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from leasehold.domain.lifecycle import SessionStatus, WorkerStatus
from leasehold.log import get_logger
from leasehold.orchestrator.jobs import Context
from leasehold.provider.budget import boot_time
from leasehold.store import hosts
from leasehold.store.claims import give_up, hurry
from leasehold.store.database import Tx

log = get_logger(__name__)


@dataclass(slots=True)
class _Series:
    counter: int
    since: float


@dataclass(slots=True)
class Report:
    """What one look at the sessions did."""

    live: int = 0
    expired: int = 0
    given_up: int = 0


@dataclass(slots=True)
class Observer:
    """One observer's memory: since when each session's counter stands still."""

    _series: dict[str, _Series] = field(default_factory=dict)
    _last_read: float | None = None

    def run_once(self, context: Context, *, own: str | None = None) -> Report:
        """Read all live sessions once; expire those that stood still for a whole ttl."""
        sent = boot_time()
        with context.database.read() as tx:
            counters = {row["id"]: row["counter"] for row in hosts.live_sessions(tx)}
        return self.look(context, counters, sent=sent, received=boot_time(), own=own)

    def look(
        self,
        context: Context,
        counters: Mapping[str, int],
        *,
        sent: float,
        received: float,
        own: str | None,
    ) -> Report:
        """
        Judge the counters of all live sessions, as one statement has read them.

        Args:
            sent: Boot time before asking.
            received: Boot time after the answer.
        """
        gap = context.timers.observe_gap.total_seconds()
        if self._last_read is None or received - self._last_read > gap:
            self._series.clear()
        self._last_read = received
        report = Report(live=len(counters))
        ttl = context.timers.session_ttl.total_seconds()
        seen: dict[str, _Series] = {}
        for session_id, counter in counters.items():
            series = self._series.get(session_id)
            if series is None or series.counter != counter:
                # Counted from after the read: the beat may be as young as the answer.
                series = _Series(counter, received)
            seen[session_id] = series
            if sent - series.since >= ttl and session_id != own:
                report.given_up += self._expire(context, session_id, counter)
                report.expired += 1
        self._series = seen
        return report

    def _expire(self, context: Context, session_id: str, counter: int) -> int:
        with context.database.write("session.expire") as tx:
            given_up = end(tx, session_id, to=SessionStatus.EXPIRED, counter=counter)
        if given_up is None:
            return 0
        log.warning("session.expired", session=session_id, given_up=given_up)
        context.nudge()
        return given_up


def end(
    tx: Tx, session_id: str, *, to: SessionStatus, counter: int | None = None
) -> int | None:
    """End a session and give up its workers' claims; None if it was not ours to end."""
    if not hosts.end_session(tx, session_id, to=to, counter=counter):
        return None
    workers = hosts.workers_of(tx, session_id)
    given_up = give_up(tx, workers)
    hurry(tx, workers)
    for worker_id in workers:
        hosts.move_worker(tx, worker_id, WorkerStatus.GONE)
    return given_up


def worker_gone(tx: Tx, worker_id: str) -> int:
    """Give up the claims of one worker whose end its agent has seen."""
    given_up = give_up(tx, [worker_id])
    hurry(tx, [worker_id])
    hosts.move_worker(tx, worker_id, WorkerStatus.GONE)
    return given_up
