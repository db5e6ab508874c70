"""
Claims: to take a row that a message names, and to give it up.

A claim is one transaction, a compare-and-set that raises the fence. If its answer is lost, the
rows are asked "is this mine?". A claim must not outlive the work on it: whoever cannot go on
gives it up, however long the database is away.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final

from leasehold.domain.lifecycle import LeaseStatus, RunStatus, Step
from leasehold.errors import LeaseholdError, LostClaimError, StoreUnavailableError
from leasehold.log import get_logger
from leasehold.orchestrator import preparing
from leasehold.orchestrator.jobs import Context, Job, Message, us
from leasehold.seams import sleep
from leasehold.store import claims, environments, executions, leases, moves, runs
from leasehold.store.database import Row, Tx

log = get_logger(__name__)
_RETRY_S: Final = 0.2
_RETRY_MAX_S: Final = 5.0


class StaleMessageError(LeaseholdError):
    """The row is not as the message says; the claim's transaction is rolled back."""

    code = "stale_message"


def claim(context: Context, message: Message) -> Job | None:
    """Take the row that a message names, if it is still as the message says."""
    unsure = False
    for wait in waits():
        try:
            context.check_trust()
        except LostClaimError:
            if unsure:
                _give_back(context, message)
            raise
        try:
            with context.database.write("claim") as tx:
                if unsure and (job := _claimed_before(tx, context, message)) is not None:
                    return job
                if message.kind == "lease":
                    return _claim_lease(tx, context, message)
                return claim_run(tx, context, message.id, fence=message.fence)
        except StaleMessageError:
            return None
        except StoreUnavailableError as error:
            unsure = True
            log.warning("database.away", doing="claim", id=message.id, why=str(error))
            sleep(wait)
    raise AssertionError("waits never end")


def _give_back(context: Context, message: Message) -> None:
    """Give up a claim whose answer was lost, if it was written: nobody would work on it."""

    def write() -> None:
        with context.database.write("abandon") as tx:
            job = _claimed_before(tx, context, message)
            if job is not None:
                _give_up(
                    tx,
                    context,
                    run_id=job.run["id"] if job.run else None,
                    lease_id=job.lease["id"] if job.lease else None,
                    fence=job.fence,
                )

    surely(write)


def abandon(context: Context, *, run_id: str | None, lease_id: str | None, fence: int) -> None:
    """
    Give up a claim of ours, if it is there: a claim must never outlive the work on it.

    Reached when trust in the session is gone, a fault of ours stopped the record, or a claim's
    answer was lost. The fence is raised and the row due again after a pause; if somebody took
    over, nothing happens.
    """

    def write() -> None:
        with context.database.write("abandon") as tx:
            _give_up(tx, context, run_id=run_id, lease_id=lease_id, fence=fence)

    surely(write)


def _give_up(
    tx: Tx, context: Context, *, run_id: str | None, lease_id: str | None, fence: int
) -> None:
    claims.abandon(
        tx,
        run_id=run_id,
        lease_id=lease_id,
        fence=fence,
        worker_id=context.worker_id,
        wait_us=us(context.timers.republish_base),
    )


def surely(write: Callable[[], object]) -> None:
    """Call this until the database has taken it, however long it is away."""
    for wait in waits():
        try:
            write()
        except StoreUnavailableError:
            sleep(wait)
        except Exception:
            # A read-only standby, a schema that is being restored: nobody else does this.
            log.exception("database.fault")
            sleep(wait)
        else:
            return


def waits() -> Iterator[float]:
    """Yield how long to wait for a database that is away, without end."""
    wait = _RETRY_S
    while True:
        yield wait
        wait = min(wait * 2, _RETRY_MAX_S)


def _claimed_before(tx: Tx, context: Context, message: Message) -> Job | None:
    """Ask the rows whether a claim whose answer was lost was written: is this mine?"""
    fence = message.fence + 1
    if message.kind == "lease":
        lease = leases.lock(tx, message.id)
        return lease_job(context, lease, fence=fence)
    return held_job(tx, context, message.id, fence=fence, taken_over=True)


def lease_job(context: Context, lease: Row | None, *, fence: int) -> Job | None:
    if lease is None or lease["claimed_by"] != context.worker_id or lease["fence"] != fence:
        return None
    step = Step.RELEASE if lease["status"] == LeaseStatus.RELEASING else Step.ACQUIRE
    return Job(step=step, fence=fence, lease=lease, sticky=context.sticky)


def held_job(
    tx: Tx, context: Context, run_id: str, *, fence: int, taken_over: bool
) -> Job | None:
    peek = runs.find(tx, run_id)
    if peek is None:
        return None
    lease = leases.lock(tx, peek["lease_id"]) if peek["lease_id"] else None
    run = runs.lock(tx, run_id)
    if run is None or run["claimed_by"] != context.worker_id:
        return None
    if run["lease_id"] != peek["lease_id"] or run["status"] != RunStatus.RUNNING:
        return None
    # Before it has a lease, nothing but a claim raises its fence.
    if run["fence"] != fence if lease is None else lease["fence"] < fence:
        return None
    return job_of(tx, context, run, lease, taken_over=taken_over)


def claim_run(tx: Tx, context: Context, run_id: str, *, fence: int) -> Job | None:
    """Raise the run's fence and take it; its lease is locked before it."""
    run = runs.claim_first(tx, run_id, fence=fence, worker_id=context.worker_id)
    if run is not None:
        return _begun(tx, context, run, None)
    peek = tx.one("SELECT lease_id, status FROM runs WHERE id = :id", id=run_id)
    if peek is None or peek["status"] != RunStatus.RUNNING:
        return None
    if peek["lease_id"] is None:
        return None
    lease = leases.raise_fence(tx, peek["lease_id"], fence=fence, run_id=run_id)
    if lease is None:
        return None
    run = runs.claim(tx, run_id, lease_id=peek["lease_id"], worker_id=context.worker_id)
    if run is None:
        # Somebody holds it at this very fence: the raise must not stand, or they lose it.
        raise StaleMessageError(f"run {run_id} is held")
    return _begun(tx, context, run, lease)


def _check_served(context: Context, row: Row) -> None:
    """
    Refuse a row of a queue that this worker does not serve, wherever its message came from.

    Another host's sandbox would look gone from here, and "gone" is taken for proof.

    Raises:
        StaleMessageError: The claim must be rolled back.
    """
    served = context.queues
    if served and row["queue"] not in served and f"{row['queue']}.beat" not in served:
        raise StaleMessageError(f"queue {row['queue']} is not served here")


def _begun(tx: Tx, context: Context, run: Row, lease: Row | None) -> Job | None:
    _check_served(context, run)
    job = job_of(tx, context, run, lease, taken_over=True)
    if job.step is Step.EXECUTE and job.execution is None:
        # A retry in the same sandbox: the one before is proven over, so this is a new start.
        return preparing.enter(tx, context, job)
    if job.step is not Step.HEARTBEAT:
        moves.record(
            tx,
            f"step.{job.step.value}.started",
            tenant_id=run["tenant_id"],
            run_id=run["id"],
            lease_id=run["lease_id"],
        )
    return job


def job_of(tx: Tx, context: Context, run: Any, lease: Any, *, taken_over: bool) -> Job:
    """Build the job of a claimed run from its rows alone."""
    step = Step(run["step"])
    execution = executions.open_of(tx, run["id"]) if lease is not None else None
    return Job(
        step=step,
        fence=lease["fence"] if lease is not None else run["fence"],
        run=run,
        lease=lease,
        execution=execution,
        environment=environments.find(tx, run["environment_id"])
        if step is Step.VALIDATE
        else None,
        taken_over=taken_over,
        sticky=context.sticky,
    )


def _claim_lease(tx: Tx, context: Context, message: Message) -> Job | None:
    lease = leases.claim(tx, message.id, fence=message.fence, worker_id=context.worker_id)
    if lease is None:
        return None
    _check_served(context, lease)
    step = Step.RELEASE if lease["status"] == LeaseStatus.RELEASING else Step.ACQUIRE
    moves.record(
        tx,
        f"step.{step.value}.started",
        tenant_id=lease["tenant_id"],
        run_id=lease["run_id"],
        lease_id=lease["id"],
    )
    return Job(step=step, fence=lease["fence"], lease=lease, sticky=context.sticky)
