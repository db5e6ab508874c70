"""
The promises as SQL: each query returns the rows that break one, so none may return a row.

They hold between any two transactions, whatever was killed: not only at rest. So a test may
ask at any moment, and an operator too (``leasehold verify``). They read whole tables and are
not for a hot path. What only the sandboxes can say (P2's one start, P3's foreign sandboxes,
P6, P7, P10) is tested elsewhere; `store.history` replays the events for P8 and P9 in full.

Some are kept by CHECKs and unique indexes as well. They are asked all the same: a restored
dump or a dropped constraint must not pass in silence.
"""

from dataclasses import dataclass
from typing import Final

from leasehold.domain import lifecycle as life
from leasehold.store import moves
from leasehold.store.columns import among
from leasehold.store.database import Row, Tx

_RUN_OVER: Final = among(life.RUN_ENDS)
_LEASE_OVER: Final = among(life.LEASE_ENDS)
_OPEN: Final = "x.status IN ('starting', 'running')"
_RUN_EVENTS: Final = among(frozenset(f"run.{s}" for s in life.RunStatus))
_RUN_END_EVENTS: Final = among(frozenset(f"run.{s}" for s in life.RUN_ENDS))
_LEASE_EVENTS: Final = among(frozenset(f"lease.{s}" for s in life.LeaseStatus))
_LEASE_END_EVENTS: Final = among(frozenset(f"lease.{s}" for s in life.LEASE_ENDS))


@dataclass(frozen=True, slots=True)
class Invariant:
    """One sentence that must be true of every row."""

    name: str
    promise: str
    query: str


@dataclass(frozen=True, slots=True)
class Violation:
    """A row that breaks a promise."""

    name: str
    promise: str
    row: Row

    def __str__(self) -> str:
        return f"{self.promise} {self.name}: {self.row}"


def _claims_of_nobody(table: str) -> str:
    return (
        f"SELECT t.id, t.status, t.claimed_by, w.status AS worker, s.status AS session"
        f" FROM {table} t LEFT JOIN workers w ON w.id = t.claimed_by"
        " LEFT JOIN sessions s ON s.id = w.session_id WHERE t.claimed_by IS NOT NULL"
        " AND (w.id IS NULL OR w.status = 'gone' OR s.id IS NULL OR s.status <> 'live')"
    )


def _output_with_a_gap(stream: str) -> str:
    # Executions without any piece are left out: retention may have pruned them.
    return (
        f"SELECT x.id, x.{stream}_offset, MIN(c.start) AS first,"
        " SUM(length(c.data)) AS stored, MAX(c.start + length(c.data)) AS last"
        " FROM executions x JOIN output_chunks c ON c.execution_id = x.id"
        f" AND c.stream = '{stream}' GROUP BY x.id, x.{stream}_offset"
        f" HAVING MIN(c.start) <> 0 OR SUM(length(c.data)) <> x.{stream}_offset"
        f" OR MAX(c.start + length(c.data)) <> x.{stream}_offset"
    )


def _not_as_last_event(noun: str, names: str) -> str:
    last = (
        f"SELECT e.name FROM events e WHERE e.{noun}_id = t.id AND e.name IN ({names})"
        " ORDER BY e.id DESC LIMIT 1"
    )
    return (
        f"SELECT t.id, t.status, ({last}) AS event FROM {noun}s t"
        f" WHERE COALESCE(({last}), 'none') <> '{noun}.' || t.status"
    )


def _moved_after_its_end(noun: str, names: str, ends: str) -> str:
    return (
        f"SELECT a.{noun}_id AS id, a.name AS ended, b.name AS later"
        f" FROM events a JOIN events b ON b.{noun}_id = a.{noun}_id AND b.id > a.id"
        f" AND b.name IN ({names}) WHERE a.name IN ({ends})"
    )


INVARIANTS: Final = (
    Invariant(
        "a running run is claimed or due",
        "P1",
        "SELECT id, status, step FROM runs"
        " WHERE status = 'running' AND claimed_by IS NULL AND due_at IS NULL",
    ),
    Invariant(
        "a live run has a timer, at its deadline or before",
        "P1",
        "SELECT id, status, timer_at, deadline_at FROM runs"
        f" WHERE status NOT IN ({_RUN_OVER}) AND end_requested IS NULL"
        " AND (timer_at IS NULL OR timer_at > deadline_at)",
    ),
    Invariant(
        "only a running run is claimed or due",
        "P1",
        "SELECT id, status, claimed_by, due_at FROM runs"
        " WHERE status <> 'running' AND (claimed_by IS NOT NULL OR due_at IS NOT NULL)",
    ),
    Invariant(
        "a run waits for those that it starts after, and no other does",
        "P1",
        "SELECT r.id, r.status, r.waits, (SELECT count(*) FROM predecessors p"
        " WHERE p.run_id = r.id AND p.settled_at IS NULL) AS unsettled FROM runs r"
        " WHERE (r.status = 'queued' AND r.waits <> (SELECT count(*) FROM predecessors p"
        " WHERE p.run_id = r.id AND p.settled_at IS NULL))"
        " OR (r.status <> 'queued' AND r.waits <> 0)",
    ),
    Invariant(
        "what is waited for is looked at, or tells of its end",
        "P1",
        "SELECT p.run_id, p.after_id, r.status, r.awaited FROM predecessors p LEFT JOIN runs r"
        " ON r.id = p.after_id WHERE NOT p.due AND p.settled_at IS NULL"
        f" AND (r.id IS NULL OR NOT r.awaited OR r.status IN ({_RUN_OVER}))",
    ),
    Invariant(
        "a run that was started had the ends before it that it needs",
        "P1",
        "SELECT p.run_id, p.after_id, p.outcome, p.ended, r.status FROM predecessors p"
        " JOIN runs r ON r.id = p.run_id LEFT JOIN runs a ON a.id = p.after_id"
        " WHERE r.admitted_at IS NOT NULL AND (p.ended IS NULL"
        f" OR a.status NOT IN ({_RUN_OVER})"
        " OR (p.outcome = 'succeeded' AND p.ended <> 'succeeded')"
        " OR (p.outcome = 'failed' AND p.ended = 'succeeded'))",
    ),
    Invariant("the claimer of a run lives", "P1", _claims_of_nobody("runs")),
    Invariant("the claimer of a lease lives", "P1", _claims_of_nobody("leases")),
    Invariant(
        "a run that rests until its beat can be found by the beat",
        "P1",
        "SELECT r.id, r.queue, r.lease_id, r.end_requested FROM runs r"
        " WHERE r.status = 'running' AND r.beat AND r.claimed_by IS NULL AND (r.queue IS NULL"
        " OR r.lease_id IS NULL OR r.end_requested IS NOT NULL OR NOT EXISTS"
        f" (SELECT 1 FROM executions x WHERE x.run_id = r.id AND {_OPEN}))",
    ),
    Invariant(
        "a lease that is owed to the provider is claimed or due",
        "P1",
        "SELECT id, status, mode FROM leases WHERE claimed_by IS NULL AND due_at IS NULL"
        " AND (status = 'releasing' OR (status = 'acquiring' AND run_id IS NULL))",
    ),
    Invariant(
        "an idle or retained lease has an end",
        "P1",
        "SELECT id, status FROM leases"
        " WHERE status IN ('idle', 'retained') AND timer_at IS NULL",
    ),
    Invariant(
        "a retained lease that a run looks into stays what it is, or is lost",
        "P3",
        "SELECT id, status, mode, final, retained_until FROM leases"
        " WHERE retained_until IS NOT NULL AND NOT (status IN ('active', 'failed')"
        " OR (status = 'releasing' AND final IN ('retained', 'failed')))",
    ),
    Invariant(
        "a run has at most one open execution",
        "P2",
        f"SELECT x.run_id, count(*) AS n FROM executions x WHERE {_OPEN}"
        " GROUP BY x.run_id HAVING count(*) > 1",
    ),
    Invariant(
        "an execution's number was counted by its run",
        "P2",
        "SELECT x.id, x.number, r.starts FROM executions x JOIN runs r ON r.id = x.run_id"
        " WHERE x.number > r.starts",
    ),
    Invariant("stdout is stored without a gap", "P2", _output_with_a_gap("stdout")),
    Invariant("stderr is stored without a gap", "P2", _output_with_a_gap("stderr")),
    Invariant(
        "a lease that holds a sandbox has its handle",
        "P3",
        "SELECT id, status, sandbox_id FROM leases"
        " WHERE status IN ('active', 'idle', 'retained')"
        " AND (sandbox_id IS NULL OR handle IS NULL)",
    ),
    Invariant(
        "a finished lease was cleaned up",
        "P3",
        "SELECT id, status, cleanup_status FROM leases"
        f" WHERE status IN ({_LEASE_OVER}) AND COALESCE(cleanup_status, 'none') <> 'success'",
    ),
    Invariant(
        "a finished lease rests",
        "P3",
        "SELECT id, status, claimed_by, due_at, timer_at FROM leases"
        f" WHERE status IN ({_LEASE_OVER})"
        " AND (claimed_by IS NOT NULL OR due_at IS NOT NULL OR timer_at IS NOT NULL)",
    ),
    Invariant(
        "a held lease belongs to a running run that names it",
        "P3",
        "SELECT l.id, l.status, l.run_id, r.status AS run_status, r.lease_id AS names"
        " FROM leases l LEFT JOIN runs r ON r.id = l.run_id"
        " WHERE (l.status = 'active' OR (l.status = 'acquiring' AND l.run_id IS NOT NULL))"
        " AND (r.id IS NULL OR r.status <> 'running' OR r.lease_id IS NULL"
        " OR r.lease_id <> l.id)",
    ),
    Invariant(
        "a running run holds the lease that it names",
        "P4",
        "SELECT r.id, r.lease_id, l.status AS lease_status, l.run_id AS holder"
        " FROM runs r LEFT JOIN leases l ON l.id = r.lease_id WHERE r.status = 'running'"
        " AND r.lease_id IS NOT NULL AND (l.id IS NULL OR l.run_id IS NULL"
        " OR l.run_id <> r.id OR l.status NOT IN ('acquiring', 'active'))",
    ),
    Invariant(
        "a lease has at most one running run",
        "P4",
        "SELECT lease_id, count(*) AS n FROM runs WHERE status = 'running'"
        " AND lease_id IS NOT NULL GROUP BY lease_id HAVING count(*) > 1",
    ),
    Invariant(
        "a run holds at most one lease",
        "P4",
        "SELECT run_id, count(*) AS n FROM leases WHERE status IN ('acquiring', 'active')"
        " AND run_id IS NOT NULL GROUP BY run_id HAVING count(*) > 1",
    ),
    Invariant(
        "a sandbox has at most one live lease",
        "P4",
        "SELECT provider, sandbox_id, count(*) AS n FROM leases WHERE sandbox_id IS NOT NULL"
        f" AND status NOT IN ({_LEASE_OVER}) GROUP BY provider, sandbox_id"
        " HAVING count(*) > 1",
    ),
    Invariant(
        "a run that is over runs nothing, or its sandbox is owed destruction",
        "P4",
        "SELECT x.id, x.status, r.status AS run_status, l.status AS lease_status, l.mode"
        " FROM executions x JOIN runs r ON r.id = x.run_id"
        f" LEFT JOIN leases l ON l.id = x.lease_id WHERE {_OPEN}"
        f" AND r.status IN ({_RUN_OVER})"
        " AND NOT (COALESCE(l.status, 'none') = 'releasing'"
        " AND COALESCE(l.mode, 'none') = 'destroy')",
    ),
    Invariant(
        "a live run's open execution is in the lease that the run holds",
        "P4",
        "SELECT x.id, x.lease_id, r.status AS run_status, r.lease_id AS names"
        " FROM executions x JOIN runs r ON r.id = x.run_id"
        f" WHERE {_OPEN} AND r.status NOT IN ({_RUN_OVER})"
        " AND (r.lease_id IS NULL OR r.lease_id <> x.lease_id)",
    ),
    Invariant(
        "a parked run holds nothing",
        "P4",
        "SELECT r.id, r.lease_id, l.id AS lease FROM runs r LEFT JOIN leases l"
        " ON l.run_id = r.id AND l.status IN ('acquiring', 'active')"
        " WHERE r.status = 'parked' AND (r.lease_id IS NOT NULL OR l.id IS NOT NULL)",
    ),
    Invariant(
        "a run whose end is decided runs nothing any more",
        "P4",
        "SELECT r.id, r.status, r.step, x.id AS execution FROM runs r LEFT JOIN executions x"
        f" ON x.run_id = r.id AND {_OPEN} WHERE r.ending IS NOT NULL"
        " AND (r.status <> 'running' OR r.step <> 'heartbeat' OR x.id IS NOT NULL)",
    ),
    Invariant(
        "a workspace has at most one live run",
        "P4",
        "SELECT tenant_id, workspace, count(*) AS n FROM runs WHERE status = 'running'"
        " AND workspace IS NOT NULL GROUP BY tenant_id, workspace HAVING count(*) > 1",
    ),
    Invariant(
        "a claimed row is not due",
        "P5",
        "SELECT id, claimed_by, due_at FROM runs"
        " WHERE claimed_by IS NOT NULL AND due_at IS NOT NULL UNION ALL"
        " SELECT id, claimed_by, due_at FROM leases"
        " WHERE claimed_by IS NOT NULL AND due_at IS NOT NULL",
    ),
    Invariant(
        "whoever holds something has a fence",
        "P5",
        "SELECT id, status, fence FROM leases"
        " WHERE status IN ('acquiring', 'active', 'releasing') AND fence < 1 UNION ALL"
        " SELECT id, status, fence FROM runs WHERE claimed_by IS NOT NULL AND fence < 1",
    ),
    Invariant(
        "nothing follows a run's end",
        "P8",
        _moved_after_its_end("run", _RUN_EVENTS, _RUN_END_EVENTS),
    ),
    Invariant(
        "nothing follows a lease's end",
        "P8",
        _moved_after_its_end("lease", _LEASE_EVENTS, _LEASE_END_EVENTS),
    ),
    Invariant(
        "a run's status is that of its last event",
        "P9",
        _not_as_last_event("run", _RUN_EVENTS),
    ),
    Invariant(
        "a lease's status is that of its last event",
        "P9",
        _not_as_last_event("lease", _LEASE_EVENTS),
    ),
)
"""Named as sentences that are true; a row that a query returns makes the sentence false."""


def check(tx: Tx) -> list[Violation]:
    """Return every row that breaks a promise; an empty list is the only good answer."""
    moves.flush(tx)
    return [
        Violation(invariant.name, invariant.promise, row)
        for invariant in INVARIANTS
        for row in tx.all(invariant.query)
    ]
