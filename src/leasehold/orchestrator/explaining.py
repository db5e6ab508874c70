"""
Why a run or a lease is where it is: one dominant reason, what would change it, and when.

The reasons come from the predicates that the engine itself uses (admission, claims), so that
an explanation cannot disagree with what happens.
"""

from dataclasses import dataclass, field, replace
from typing import Any, Final

from leasehold.domain.lifecycle import LEASE_ENDS, RUN_ENDS, LeaseStatus, RunStatus
from leasehold.errors import RUN_CODES, NotFoundError
from leasehold.orchestrator import admission, placing
from leasehold.orchestrator.jobs import Context
from leasehold.store import hosts, leases, moves, predecessors, restored, slots, views
from leasehold.store.database import Row, Tx

_NOBODY: Final = "start `leasehold up` or `leasehold worker`"


@dataclass(frozen=True, slots=True)
class Explanation:
    """One answer; times are ISO 8601."""

    id: str
    noun: str
    status: str
    reason: str
    changes: str
    """What would change it."""

    when: str | None = None
    """When it is looked at again, or ends, at the latest."""

    details: dict[str, Any] = field(default_factory=dict)


def under_alarm(tx: Tx, found: Explanation) -> Explanation:
    """Let the alarm be the reason of whatever waits, while it stands."""
    alarm = restored.alarm(tx)
    over = {*RUN_ENDS, *LEASE_ENDS}
    if alarm is None or found.status in over:
        return found
    details = {**found.details, "else": found.reason}
    return replace(
        found,
        reason=alarm,
        changes=f"`{restored.COMMAND}`",
        when=None,
        details=details,
    )


def run(tx: Tx, context: Context, run_id: str) -> Explanation:
    """Explain one run."""
    row = views.run_row(tx, run_id)
    assert row is not None
    found = _of_status(tx, context, row)
    events = moves.events_of(tx, run_id=run_id, limit=1)
    if not events:
        return found
    chosen = {"environment": row["environment"], "chosen_by": views.chosen_by(events)}
    return replace(found, details=chosen | found.details)


def _of_status(tx: Tx, context: Context, row: Row) -> Explanation:
    if row["status"] in RUN_ENDS:
        return _ended(row)
    match RunStatus(row["status"]):
        case RunStatus.QUEUED:
            return _queued(tx, context, row)
        case RunStatus.PARKED:
            return _of_run(
                row,
                f"parked: {row['message'] or row['code']}",
                f"`leasehold runs resume {row['id']}`; at its deadline it ends as timed_out",
                row["deadline_at"],
            )
        case _:
            return _running(tx, row)


def _of_run(
    row: Row, reason: str, changes: str, when: int | None, **details: Any
) -> Explanation:
    known = {name: value for name, value in details.items() if value is not None}
    return Explanation(row["id"], "run", row["status"], reason, changes, views.iso(when), known)


def _ended(row: Row) -> Explanation:
    meaning = RUN_CODES.get(row["code"] or "", "")
    words = row["message"] or meaning or "every command ended with exit code 0"
    return _of_run(
        row,
        f"{row['status']}: {words}",
        "nothing: an end is final; `leasehold runs retry` submits it anew",
        row["finished_at"],
        code=row["code"],
        meaning=meaning or None,
        exit_code=row["exit_code"],
    )


def _queued(tx: Tx, context: Context, row: Row) -> Explanation:
    ahead = slots.ahead_of(tx, row)
    until = row["timer_at"]
    if not hosts.live_sessions(tx):
        return _of_run(row, "no worker and no clock is alive", _NOBODY, until, ahead=ahead)
    why = admission.reason(tx, context, row)
    if why is None:
        return _of_run(
            row,
            "nothing stands in its way",
            "the next turn of the clock, within seconds",
            until,
            ahead=ahead,
        )
    if row["waits"]:
        after = [predecessors.view(one) for one in predecessors.of_run(tx, row["id"])]
        what = "they end; what cannot come any more ends this run too, as predecessor_outcome"
        return _of_run(row, why, what, until, after=after)
    changes = _NOBODY
    if isinstance(why, placing.Nowhere):
        changes = "a host with such labels starts: `leasehold worker --label K=V` there"
    elif " of " in why:
        changes = "a slot becomes free"
    if row["wanted_lease_id"]:
        changes = "the run that uses the lease ends"
    if why.startswith("workspace "):
        changes = "that run ends: runs of one workspace take turns"
    return _of_run(row, why, changes, until, ahead=ahead, priority=row["priority"])


def _running(tx: Tx, row: Row) -> Explanation:
    last = _last_step(tx, row["id"])
    trouble = f"{row['code']}: {row['message']}" if row["code"] else None
    details: dict[str, Any] = {
        "step": row["step"],
        "collecting": row["artifacts_error"] if row["ending"] else None,
        "attempt": row["attempt"],
        "infra_attempts": row["infra_attempts"],
        "last_trouble": trouble,
        "end_requested": row["end_requested"],
        "queue": row["queue"],
    }
    if row["claimed_by"]:
        since = views.iso(last["at"]) if last else None
        return _of_run(
            row,
            f"worker {row['claimed_by']} does step {row['step']}, since {since}",
            "the step ends, or its worker's death is seen",
            row["timer_at"],
            worker=_worker(tx, row["claimed_by"]),
            **details,
        )
    if why := _unserved(tx, row["queue"], beat=bool(row["beat"])):
        return _of_run(row, why, _NOBODY, row["timer_at"], **details)
    if row["beat"]:
        return _of_run(
            row,
            "its command is running; nobody needs to hold it until the next look",
            "the command ends, a timer, or a request to end",
            row["due_at"],
            **details,
        )
    late = row["due_at"] is not None and row["due_at"] > row["now_us"]
    reason = f"step {row['step']} waits for its turn"
    if late and trouble:
        reason = f"step {row['step']} is tried again after {trouble}"
    elif row["end_requested"]:
        reason = f"it is to end ({row['end_requested']}); a worker ends what runs of it"
    return _of_run(
        row, reason, "a worker claims it; it is sent again when due", row["due_at"], **details
    )


def _last_step(tx: Tx, run_id: str) -> Row | None:
    rows = moves.events_of(tx, run_id=run_id)
    steps = [row for row in rows if row["name"].startswith("step.")]
    return steps[-1] if steps else None


def _worker(tx: Tx, worker_id: str) -> dict[str, Any] | None:
    for row in hosts.workers(tx, all_of_them=True):
        if row["id"] == worker_id:
            return {name: row[name] for name in ("id", "host", "pid", "status")}
    return None


def _unserved(tx: Tx, queue: str | None, *, beat: bool) -> str | None:
    """Say that nobody reads a queue, or return None."""
    if queue is None:
        return None
    lane = f"{queue}.beat" if beat else queue
    live = {row["id"] for row in hosts.ready_workers(tx)}
    reading = [row for row in hosts.workers(tx) if row["id"] in live and lane in row["queues"]]
    return None if reading else f"no live worker reads the queue {lane}"


def lease(tx: Tx, lease_id: str, *, tenant_id: str) -> Explanation:
    """Explain one lease."""
    row = leases.get(tx, lease_id, tenant_id=tenant_id)
    status = LeaseStatus(row["status"])
    details = {
        "provider": row["provider"],
        "sandbox_id": row["sandbox_id"],
        "run_id": row["run_id"],
        "mode": row["mode"],
        "cleanup_attempts": row["cleanup_attempts"] or None,
        "last_error": row["last_error"],
    }
    reason, changes, when = _lease_words(tx, row, status)
    known = {name: value for name, value in details.items() if value is not None}
    return Explanation(
        row["id"], "lease", status.value, reason, changes, views.iso(when), known
    )


def _lease_words(tx: Tx, row: Row, status: LeaseStatus) -> tuple[str, str, int | None]:
    if status in LEASE_ENDS:
        return (
            f"over: {row['reason'] or status}",
            "nothing: an end is final",
            row["finished_at"],
        )
    match status:
        case LeaseStatus.RELEASING:
            return _releasing(tx, row)
        case LeaseStatus.ACTIVE:
            return f"held by run {row['run_id']}", "its run ends", None
        case LeaseStatus.ACQUIRING:
            why = _unserved(tx, row["queue"], beat=False)
            return why or "its sandbox is being made", "a worker makes it", row["due_at"]
        case LeaseStatus.RETAINED:
            return (
                "kept for a person",
                "`leasehold exec` looks into it; `leasehold leases destroy`, or its end",
                row["timer_at"],
            )
        case _ if row["held_until"]:
            return (
                "held on its own",
                "`run --lease`, `leases release`, its end",
                row["timer_at"],
            )
        case _:
            return "kept for reuse", "a run of its scope, or its end", row["timer_at"]


def _releasing(tx: Tx, row: Row) -> tuple[str, str, int | None]:
    owed = f"{row['mode']} is owed to the provider ({row['reason']})"
    if row["claimed_by"]:
        return f"{owed}; worker {row['claimed_by']} is at it", "its answer", None
    if why := _unserved(tx, row["queue"], beat=False):
        return f"{owed}; {why}", _NOBODY, row["due_at"]
    if row["last_error"]:
        tries = row["cleanup_attempts"]
        return (
            f"{owed}; {tries} attempts failed, the last one: {row['last_error']}",
            "the next attempt; it is tried for ever",
            row["due_at"],
        )
    return owed, "a worker claims it", row["due_at"]


def anything(tx: Tx, context: Context, text: str, *, tenant_id: str) -> Explanation:
    """
    Explain the tenant's run or lease whose id begins or ends so.

    Raises:
        NotFoundError: There is none, or there are several; says so.
    """
    runs = views.ids_like(tx, "run", text, tenant_id=tenant_id)
    found = [*runs, *views.ids_like(tx, "lease", text, tenant_id=tenant_id)]
    if not found:
        raise NotFoundError(f"there is no run or lease {text}")
    if len(found) > 1:
        raise NotFoundError(f"{text}: several ids begin or end so: {', '.join(found[:3])}, …")
    if runs:
        return under_alarm(tx, run(tx, context, runs[0]))
    return under_alarm(tx, lease(tx, found[0], tenant_id=tenant_id))
