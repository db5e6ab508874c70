"""
What is stuck or orphaned: why, what happens to it next by itself, and when.

The rows are found by what the engine's own rules leave behind (`store.troubles`); what is said
of the next step is what the clock, the observers of sessions and `maintenance.hosts_lost` do
with such a row. If no host agent beats, nobody does anything, and that is said instead.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from leasehold.domain.lifecycle import LeaseStatus
from leasehold.orchestrator import explaining
from leasehold.orchestrator.jobs import Context, us
from leasehold.store import hosts, restored, troubles, views
from leasehold.store.database import Row, Tx
from leasehold.store.sql import load

LATE: Final = timedelta(seconds=10)
"""So long due and not taken up: a clock that turns has sent it, or pushed it on, by then."""

ENDING: Final = timedelta(seconds=60)
"""So long after it was to end, a run that is not over needs a look."""

TRIES: Final = 2
"""Messages that nobody took, before it is said."""

_NOBODY: Final = "nothing: start `leasehold up` or `leasehold worker`"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """One row that does not simply go on; times are ISO 8601."""

    id: str
    kind: str
    """parked, ending, retrying, late, unclaimed; orphaned, host away, cleanup failing."""

    environment: str
    status: str
    since: str | None
    reason: str
    next: str
    """What happens by itself."""

    when: str | None
    """When that happens; None: it depends on no time."""

    at_least: bool = False
    """`when` is the earliest time, not the latest."""

    run_id: str | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """Queued runs that wait for the same."""

    environment: str
    runs: int
    oldest_at: str | None
    run_id: str
    reason: str
    changes: str


@dataclass(frozen=True, slots=True)
class _Fleet:
    """Who is there to do anything."""

    agents: int
    read: frozenset[str]
    """Queues that a live worker reads."""


def _fleet(tx: Tx, *, silent_us: int) -> _Fleet:
    live = {row["id"] for row in hosts.ready_workers(tx)}
    queues = {q for row in hosts.workers(tx) if row["id"] in live for q in row["queues"]}
    return _Fleet(troubles.agents(tx, silent_us=silent_us), frozenset(queues))


def look(tx: Tx, context: Context, *, tenant_id: str) -> dict[str, Any]:
    """Return what of a tenant is stuck, orphaned, or waits in the queue and why."""
    silent = us(context.timers.session_ttl)
    fleet = _fleet(tx, silent_us=silent)
    running = troubles.runs(
        tx,
        tenant_id=tenant_id,
        silent_us=silent,
        late_us=us(LATE),
        ending_us=us(ENDING),
        tries=TRIES,
    )
    parked = troubles.parked(tx, tenant_id=tenant_id, silent_us=silent)
    leases = troubles.leases(tx, tenant_id=tenant_id, silent_us=silent, late_us=us(LATE))
    found = [_of_run(row, context, fleet) for row in running]
    return {
        "alarm": restored.alarm(tx),
        "agents": fleet.agents,
        "orphaned_runs": [one for one in found if one.kind in _ORPHANED],
        "stuck": [*(one for one in found if one.kind not in _ORPHANED), *map(_parked, parked)],
        "leases": [_of_lease(row, context, fleet) for row in leases],
        "waiting": _waiting(tx, context, tenant_id=tenant_id),
        "most": troubles.MOST,
    }


_ORPHANED: Final = frozenset({"orphaned", "host away"})


def _waiting(tx: Tx, context: Context, *, tenant_id: str) -> list[Group]:
    groups = troubles.waiting(tx, tenant_id=tenant_id)
    found = []
    for group in groups:
        why = explaining.run(tx, context, group["run_id"])
        found.append(
            Group(
                group["environment"],
                group["runs"],
                views.iso(group["oldest_at"]),
                group["run_id"],
                why.reason,
                why.changes,
            )
        )
    return found


def _parked(row: Row) -> Trouble:
    return Trouble(
        id=row["id"],
        kind="parked",
        environment=row["environment"],
        status=row["status"],
        since=None,
        reason=row["message"] or row["code"] or "the infrastructure failed too often",
        next="it ends as timed_out at its deadline, unless somebody resumes it before",
        when=views.iso(row["deadline_at"]),
        run_id=row["id"],
    )


def _of_run(row: Row, context: Context, fleet: _Fleet) -> Trouble:
    kind, since, reason, what, when, at_least = _words(row, context, fleet)
    if not fleet.agents:
        what, when, at_least = _NOBODY, None, False
    return Trouble(
        id=row["id"],
        kind=kind,
        environment=row["environment"],
        status=row["step"] or row["status"],
        since=views.iso(since),
        reason=reason,
        next=what,
        when=views.iso(when),
        at_least=at_least,
        run_id=row["id"],
    )


_Words = tuple[str, int | None, str, str, int | None, bool]


def _words(row: Row, context: Context, fleet: _Fleet) -> _Words:
    """Return kind, since when, reason, what is next, when, and whether at the earliest."""
    turn = us(context.timers.clock_max_sleep)
    if row["away"]:
        return _away(row, context)
    if row["unheld"]:
        return (
            "orphaned",
            None,
            f"worker {row['claimed_by']}, which holds step {row['step']}, does not live",
            "its claim is given up as soon as its death is proven; another worker goes on",
            row["now_us"] + us(context.timers.session_ttl) + turn,
            False,
        )
    asked = row["end_requested_at"]
    if row["end_requested"] and asked is not None and asked < row["now_us"] - us(ENDING):
        return (
            "ending",
            asked,
            f"it is to end ({row['end_requested']}) and something of it may still run",
            "a worker ends what runs of it, or destroys its sandbox",
            row["due_at"],
            False,
        )
    lane = f"{row['queue']}.beat" if row["beat"] else row["queue"]
    if lane is not None and lane not in fleet.read and row["claimed_by"] is None:
        said = f"no live worker reads the queue {lane}"
        return "unclaimed", None, said, "it is sent again", _ahead(row, turn), False
    if row["code"] and not row["beat"] and row["claimed_by"] is None:
        said = f"step {row['step']} failed: {row['code']}: {row['message']}"
        tried = row["infra_attempts"]
        what = "it is tried again" + (f", after {tried} lost attempts" if tried else "")
        return "retrying", None, said, what, _ahead(row, turn), False
    if row["due_at"] is not None and row["due_at"] < row["now_us"]:
        said = f"step {row['step']} is due and nobody has taken it up"
        return "late", row["due_at"], said, "a clock sends it", _ahead(row, turn), False
    said = f"step {row['step']} was sent {row['publishes']} times and no worker has claimed it"
    return "unclaimed", None, said, "it is sent again", _ahead(row, turn), False


def _ahead(row: Row, turn: int) -> int | None:
    """Return when a row is looked at: a clock that lives takes what is due in one turn."""
    if row["due_at"] is None:
        return None
    return max(int(row["due_at"]), int(row["now_us"]) + turn)


def _away(row: Row, context: Context) -> _Words:
    """Say what `maintenance.hosts_lost` does with it."""
    gone = row["alive_at"]
    name = row["host"] or row["host_id"]
    grace = None if gone is None else gone + us(context.timers.host_grace)
    spec: Mapping[str, Any] = load(row["spec"]) or {}
    said = f"its host {name} is away"
    if not row["started"] or spec.get("idempotent"):
        what = "it starts anew on another host, unless its host is back before"
        return "host away", gone, said, what, grace, True
    what = (
        "it goes on when its host is back; once its sandbox has surely ended by itself, it"
        " fails as execution_lost"
    )
    return "host away", gone, said, what, row["sandbox_expires_at"], True


def _of_lease(row: Row, context: Context, fleet: _Fleet) -> Trouble:
    kind, reason, what, when, at_least = _lease_words(row, context, fleet)
    if not fleet.agents:
        what, when, at_least = _NOBODY, None, False
    return Trouble(
        id=row["id"],
        kind=kind,
        environment=row["environment"],
        status=row["status"],
        since=views.iso(row["alive_at"]) if row["away"] else None,
        reason=reason,
        next=what,
        when=views.iso(when),
        at_least=at_least,
        run_id=row["run_id"],
    )


def _lease_words(
    row: Row, context: Context, fleet: _Fleet
) -> tuple[str, str, str, int | None, bool]:
    turn = us(context.timers.clock_max_sleep)
    releasing = row["status"] == LeaseStatus.RELEASING
    failed = f"; {row['cleanup_attempts']} attempts failed, the last one: {row['last_error']}"
    owed = f"{row['mode']} is owed" + (failed if row["last_error"] else "")
    if row["away"]:
        name = row["host"] or row["host_id"]
        said = f"its host {name} is away" + (f"; {owed}" if releasing else "")
        what = "its host looks after it when it is back; the sandbox ends by itself"
        if row["sandbox_expires_at"] is None:
            return "host away", said, "its host looks after it when it is back", None, False
        return "host away", said, what, row["sandbox_expires_at"], True
    if row["unheld"]:
        said = f"worker {row['claimed_by']}, which is at it, does not live"
        what = "its claim is given up as soon as its death is proven; another worker goes on"
        when = row["now_us"] + us(context.timers.session_ttl) + turn
        return "orphaned", said, what, when, False
    if releasing and row["last_error"]:
        what = "the next attempt; it is tried for ever"
        return "cleanup failing", owed, what, _ahead(row, turn), False
    if row["queue"] not in fleet.read:
        said = f"no live worker reads the queue {row['queue']}"
        return "unclaimed", said, "it is sent again", _ahead(row, turn), False
    return (
        "late",
        "it is due and nobody has taken it up",
        "a clock sends it",
        _ahead(row, turn),
        False,
    )
