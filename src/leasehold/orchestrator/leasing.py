"""
How a lease is given back: one place decides what the provider is owed.

`releasing` is a debt that is never forgotten: the transaction that ends a run puts its lease
there, with the mode (destroy, suspend, keep) and the status that it leads to. Each way in
raises the fence, so that whoever held the lease before can do nothing more in the sandbox.
"""

from dataclasses import dataclass
from datetime import timedelta

from leasehold.domain.lifecycle import (
    LEASE_ENDS,
    CleanupStatus,
    LeasePolicy,
    LeaseStatus,
    RunStatus,
    Step,
)
from leasehold.orchestrator.jobs import Context, Job, Message, send, us
from leasehold.provider.contract import ReleaseMode
from leasehold.store import moves
from leasehold.store.database import Row, Tx


@dataclass(frozen=True, slots=True)
class Disposal:
    """What becomes of a lease whose run does not need it any more."""

    mode: ReleaseMode
    final: LeaseStatus
    reason: str


def disposal(lease: Row, *, run_status: RunStatus | None, sound: bool, reason: str) -> Disposal:
    """
    Choose what the provider is owed.

    Args:
        run_status: The end of its run; None if the run goes on without it.
        sound: False if the sandbox is lost, broken, or something may still run in it.
    """
    if not sound:
        return Disposal(ReleaseMode.DESTROY, LeaseStatus.FAILED, reason)
    if lease["retained_until"] is not None:
        return Disposal(ReleaseMode.KEEP, LeaseStatus.RETAINED, reason)
    failed = run_status in {RunStatus.FAILED, RunStatus.TIMED_OUT}
    keeps_failed = lease["policy"] == LeasePolicy.RETAIN_ON_FAILURE and failed
    if lease["handle"] is not None and (lease["retain"] or keeps_failed):
        return Disposal(ReleaseMode.KEEP, LeaseStatus.RETAINED, reason)
    if lease["handle"] is not None and lease["scope"] is not None:
        return Disposal(ReleaseMode.SUSPEND, LeaseStatus.IDLE, reason)
    return Disposal(ReleaseMode.DESTROY, LeaseStatus.RELEASED, reason)


def is_over(lease: Row) -> bool:
    """Return whether no run can use a lease any more: it has ended, or it will."""
    owed = lease["status"] == LeaseStatus.RELEASING and lease["final"] in LEASE_ENDS
    return owed or lease["status"] in LEASE_ENDS


def time_to_live(
    context: Context, lease: Row, *, now_us: int, least: timedelta | None = None
) -> timedelta:
    """
    Return how long a sandbox must live by itself from now on; `sandbox_ttl` if not longer.

    One that a person holds or retains outlives its lease, whoever dies meanwhile.
    """
    least = least or context.timers.sandbox_ttl
    until = max(lease["held_until"] or 0, lease["retained_until"] or 0)
    if not until:
        return least
    left = timedelta(microseconds=max(0, until - now_us))
    return max(least, left + context.timers.sandbox_ttl)


def owe(tx: Tx, context: Context, lease: Row, what: Disposal, *, sticky: bool) -> Job | None:
    """
    Put a locked lease into `releasing`; return the job if this worker goes on with it.

    Otherwise its message is sent after the commit; the row is due by itself in any case.
    """
    wait = us(context.timers.republish_base)
    row = moves.move(
        tx,
        "leases",
        lease["id"],
        LeaseStatus.RELEASING,
        held=lease,
        fence=lease["fence"] + 1,
        due_at=None if sticky else tx.stamp() + wait,
        mode=what.mode.value,
        final=what.final.value,
        reason=what.reason,
        claimed_by=context.worker_id if sticky else None,
        publishes=0 if sticky else 1,
        timer_at=None,
        cleanup_status=CleanupStatus.PENDING.value,
        cleanup_attempts=1 if sticky else 0,
        last_error=None,
    )
    assert row is not None, f"lease {lease['id']} was not locked"
    data = {"mode": what.mode.value, "final": what.final.value, "reason": what.reason}
    names: list[str | tuple[str, dict[str, str]]] = [("lease.releasing", data)]
    if sticky:
        names.append("step.release.started")
    moves.record(
        tx, *names, tenant_id=row["tenant_id"], run_id=row["run_id"], lease_id=row["id"]
    )
    if sticky:
        return Job(step=Step.RELEASE, lease=row, fence=row["fence"])
    message = Message("lease", row["id"], row["fence"], Step.RELEASE, row["queue"])
    tx.after_commit.append(lambda: send(context, message))
    return None


def rest_held(tx: Tx, context: Context, lease: Row) -> bool:
    """Give a lease that somebody holds on its own back to them, nothing suspended."""
    if lease["held_until"] is None or lease["held_until"] <= lease["now_us"]:
        return False
    if lease["retain"]:
        return False  # to be kept instead, which a worker must tell the sandbox
    row = moves.move(
        tx,
        "leases",
        lease["id"],
        LeaseStatus.IDLE,
        held=lease,
        fence=lease["fence"] + 1,
        timer_at=lease["held_until"],
    )
    assert row is not None
    moves.record(
        tx, "lease.idle", tenant_id=row["tenant_id"], run_id=row["run_id"], lease_id=row["id"]
    )
    tx.after_commit.append(context.nudge)
    return True


def part(
    tx: Tx,
    context: Context,
    lease: Row,
    *,
    run_status: RunStatus | None,
    sound: bool,
    reason: str,
    sticky: bool,
) -> Job | None:
    """Take a locked lease from its run: rest it, keep it, or owe its release."""
    if lease["status"] not in {LeaseStatus.ACQUIRING, LeaseStatus.ACTIVE}:
        return None
    if sound and lease["status"] == LeaseStatus.ACTIVE and rest_held(tx, context, lease):
        return None
    what = disposal(lease, run_status=run_status, sound=sound, reason=reason)
    return owe(tx, context, lease, what, sticky=sticky)
