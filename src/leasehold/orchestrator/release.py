"""
Step 5: pay what the provider is owed, however often it takes.

Only the engine's own name of that incarnation is addressed, with a fence above everybody
else's. "Gone already" is a success of destroy. A debt is never forgotten: failures come back
with backoff for ever, are counted and shown.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from leasehold.domain.lifecycle import CleanupStatus, LeaseStatus
from leasehold.domain.retry import backoff
from leasehold.errors import ProviderError, SandboxGoneError, StaleFenceError
from leasehold.log import get_logger
from leasehold.orchestrator.jobs import SECOND_US, Context, Job, Trouble, us
from leasehold.provider.budget import Budget
from leasehold.provider.contract import Provider, ReleaseMode
from leasehold.seams import effect
from leasehold.store import executions, moves
from leasehold.store.database import Row, Tx
from leasehold.store.sql import load

log = get_logger(__name__)
FORGOTTEN: Final = 20
"""Of a run's starts, the latest: one that was tried more often keeps some output."""


@dataclass(frozen=True, slots=True)
class Released:
    """The provider has done it."""


@dataclass(frozen=True, slots=True)
class Gone:
    """There was nothing left to suspend or to keep."""

    message: str


def act(context: Context, job: Job) -> Released | Gone | Trouble:
    """Destroy, suspend or keep, and say until when the sandbox may stay by itself."""
    lease = job.lease
    assert lease is not None
    budget = Budget(context.timers.provider_call)
    mode = ReleaseMode(lease["mode"])
    fence, target = job.sandbox_fence(context), job.target(context)
    try:
        provider = context.provider(lease["provider"])
        if mode is not ReleaseMode.DESTROY:
            with effect("provider.renew"):
                provider.renew(target, fence=fence, ttl=_kept(context, lease), budget=budget)
        if lease["final"] == LeaseStatus.IDLE:
            _free(context, job, provider, budget)
        with effect("provider.release"):
            provider.release(target, fence=fence, mode=mode, budget=budget)
        return Released()
    except SandboxGoneError as error:
        return Released() if mode is ReleaseMode.DESTROY else Gone(str(error))
    except ProviderError as error:
        return Trouble(error.code, str(error))


def _free(context: Context, job: Job, provider: Provider, budget: Budget) -> None:
    """
    Free what the run's commands have said in a sandbox that will serve others.

    SQL has it all: an exit is recorded behind its output. Whoever repeats the release frees it
    again, which is nothing. What cannot be freed stays, and delays no release.
    """
    lease = job.lease
    assert lease is not None
    with context.database.read() as tx:
        rows = executions.of_run(tx, lease["run_id"]) if lease["run_id"] else []
    target, fence = job.target(context), job.sandbox_fence(context)
    for row in [row for row in rows if row["lease_id"] == lease["id"]][-FORGOTTEN:]:
        try:
            with effect("provider.forget"):
                provider.forget(
                    target,
                    fence=fence,
                    execution_id=row["id"],
                    handle=load(row["handle"]) or {},
                    budget=budget,
                )
        except (SandboxGoneError, StaleFenceError):
            raise
        except ProviderError as error:
            log.info("release.not_freed", execution=row["id"], why=str(error))


def _kept_us(context: Context, lease: Row) -> int:
    """Return how long an idle or retained lease may stay, in microseconds."""
    facts = load(lease["facts"])
    retained = lease["final"] == LeaseStatus.RETAINED
    if retained and lease["retained_until"] is not None:
        return max(0, int(lease["retained_until"] - lease["now_us"]))
    asked = facts.get("retained_ttl_s" if retained else "idle_ttl_s")
    if asked:
        return int(asked * SECOND_US)
    return us(context.timers.retained_ttl if retained else context.timers.idle_ttl)


def _kept(context: Context, lease: Row) -> timedelta:
    """Return the sandbox's own time to live while it is kept: longer than the lease's."""
    return timedelta(microseconds=_kept_us(context, lease)) + context.timers.sandbox_ttl


def record(tx: Tx, context: Context, job: Job, outcome: Released | Gone | Trouble) -> None:
    """Write the end of the debt, or when it is tried again."""
    lease = job.lease
    assert lease is not None
    match outcome:
        case Released():
            _done(tx, context, lease, LeaseStatus(lease["final"]))
        case Gone():
            _done(tx, context, lease, LeaseStatus.FAILED, reason="lost")
        case Trouble():
            _failed(tx, context, lease, outcome)


_RETAINED: Final[dict[str, Any]] = {"held_until": None, "retained_until": None}
"""Nobody holds it on its own any more, and no run looks into it."""


def _done(
    tx: Tx, context: Context, lease: Row, to: LeaseStatus, *, reason: str | None = None
) -> None:
    kept = to in {LeaseStatus.IDLE, LeaseStatus.RETAINED}
    until = lease["now_us"] + _kept_us(context, lease) if kept else None
    row = moves.move(
        tx,
        "leases",
        lease["id"],
        to,
        held=lease,
        finished_at=None if kept else tx.stamp(),
        claimed_by=None,
        due_at=None,
        mode=None,
        final=None,
        reason=reason or lease["reason"],
        timer_at=until,
        **(_RETAINED if to is LeaseStatus.RETAINED else {}),
        sandbox_expires_at=until + us(context.timers.sandbox_ttl) if until else None,
        cleanup_status=CleanupStatus.SUCCESS.value,
        last_error=None,
    )
    assert row is not None
    moves.record(
        tx,
        "step.release.finished",
        (f"lease.{to.value}", {"reason": row["reason"]}),
        tenant_id=row["tenant_id"],
        run_id=row["run_id"],
        lease_id=row["id"],
    )
    tx.after_commit.append(context.nudge)


def _failed(tx: Tx, context: Context, lease: Row, problem: Trouble) -> None:
    timers = context.timers
    wait = backoff(
        lease["cleanup_attempts"],
        base=timers.cleanup_retry_base,
        limit=timers.cleanup_retry_max,
        rng=context.rng,
    )
    moves.move(
        tx,
        "leases",
        lease["id"],
        None,
        held=lease,
        claimed_by=None,
        due_at=lease["now_us"] + us(wait),
        cleanup_status=CleanupStatus.FAILED.value,
        last_error=f"{problem.code}: {problem.message}"[:2000],
    )
    moves.record(
        tx,
        ("step.release.failed", {"code": problem.code, "message": problem.message}),
        tenant_id=lease["tenant_id"],
        run_id=lease["run_id"],
        lease_id=lease["id"],
    )
    tx.after_commit.append(context.nudge)
