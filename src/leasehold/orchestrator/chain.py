"""
The executor: claim → act → record, and on to the next step while it may.

A message says only "look at this row". The claim is a compare-and-set that raises the fence;
who loses it drops the message. Between claim and record no transaction is open, and no effect
is started without a trusted session. Finishing step n and claiming n+1 is one transaction, so
no hop is paid on the way.

Killed anywhere: the row is claimed by a worker whose death is seen (by its agent at once, by
the observers after a session's time to live); its claims are given up, fences raised, rows
due. If the commit's answer is lost, the rows are asked "is this mine?": same claim and fence,
and the step tells whether it was written.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from leasehold.domain.lifecycle import EXECUTION_ENDS, Step
from leasehold.errors import (
    LeaseholdError,
    LostClaimError,
    StaleFenceError,
    StoreUnavailableError,
)
from leasehold.log import get_logger
from leasehold.orchestrator import (
    acquire,
    claiming,
    collecting,
    holding,
    preparing,
    release,
    revealing,
    validate,
)
from leasehold.orchestrator.jobs import Context, Job, Message, Trouble
from leasehold.seams import sleep
from leasehold.store import leases, runs
from leasehold.store.database import Tx

log = get_logger(__name__)


_ACTS: Final[dict[Step, Callable[[Context, Job], Any]]] = {
    Step.VALIDATE: validate.act,
    Step.ACQUIRE: acquire.act,
    Step.EXECUTE: preparing.act,
    Step.HEARTBEAT: collecting.act,
    Step.RELEASE: release.act,
}
_RECORDS: Final[dict[Step, Callable[[Tx, Context, Job, Any], Job | None]]] = {
    Step.VALIDATE: validate.record,
    Step.ACQUIRE: acquire.record,
    Step.EXECUTE: preparing.record,
    Step.HEARTBEAT: collecting.record,
}


def run_message(context: Context, message: Message) -> bool:
    """Do what a message asks for and all that follows from it; False if it was stale."""
    job = claiming.claim(context, message)
    if job is None:
        log.debug("message.stale", kind=message.kind, id=message.id, fence=message.fence)
        return False
    run_job(context, job)
    return True


def run_job(context: Context, job: Job) -> None:
    """Carry a claimed job on, step by step, until it rests, hops or is over."""
    holder = object()
    try:
        _carry_on(context, job, holder)
    finally:
        context.holds.drop(holder)


def _carry_on(context: Context, job: Job, holder: object) -> None:
    current: Job | None = job
    while current is not None:
        if not context.holds.take(current, holder):
            # A claim whose answer we had lost was not ours but another thread's.
            log.info("claim.anothers", id=current.subject_id, step=current.step)
            return
        context.on_step("started", current, None)
        try:
            outcome = _act(context, current)
            following = _record(context, current, outcome, holder)
        except (LostClaimError, StaleFenceError) as error:
            log.info("claim.lost", id=current.subject_id, step=current.step, why=str(error))
            _abandon(context, current)
            context.on_step("failed", current, str(error))
            return
        except StoreUnavailableError as error:
            # Away while an act needed it, for the value of a secret: nothing was done yet.
            log.warning(
                "database.away", step=current.step, id=current.subject_id, why=str(error)
            )
            _abandon(context, current)
            context.on_step("failed", current, str(error))
            return
        except Exception as error:
            log.exception("step.fault", id=current.subject_id, step=current.step)
            _abandon(context, current)
            context.on_step("failed", current, f"{type(error).__name__}: {error}")
            return
        failed = outcome.message if isinstance(outcome, Trouble) else None
        context.on_step("failed" if failed else "finished", current, failed)
        current = following


def _abandon(context: Context, job: Job) -> None:
    """Give up what we still hold of a job, if we do."""
    claiming.abandon(
        context,
        run_id=job.run["id"] if job.run else None,
        lease_id=job.lease["id"] if job.lease else None,
        fence=job.fence,
    )


def _act(context: Context, job: Job) -> Any:
    """Do the step's effect; what nobody foresaw becomes a counted trouble, with its trace."""
    context.check_trust()
    try:
        return revealing.hidden(context, job, _ACTS[job.step](context, job))
    except StaleFenceError as error:
        # SQL says that the row is ours, the sandbox knows a higher fence.
        trouble = Trouble(error.code, str(error))
    except LeaseholdError as error:
        if isinstance(error, LostClaimError | StoreUnavailableError):
            raise
        # A start may have happened already: only its tombstone proves that it did not.
        permanent = not error.retryable and job.step is not Step.EXECUTE
        trouble = Trouble(error.code, str(error), permanent=permanent)
    except Exception as error:
        log.exception("step.fault", step=job.step, id=job.subject_id)
        trouble = Trouble("internal", f"{type(error).__name__}: {error}")
    return revealing.hidden(context, job, trouble)


def _record(context: Context, job: Job, outcome: Any, holder: object) -> Job | None:
    """Write the outcome; wait for a database that is away, ask an unsure commit again."""
    unsure = False
    for wait in claiming.waits():
        try:
            with context.database.write(f"record.{job.step.value}") as tx:
                # Writing changes the job's rows in memory: a try that fails must not have.
                trial = _copy(job)
                try:
                    moved = _hold(tx, context, trial, unsure=unsure)
                except LostClaimError:
                    mine = _written_before(tx, context, job, holder) if unsure else None
                    if mine is not None:
                        return mine
                    raise
                following = moved if moved is not None else _write(tx, context, trial, outcome)
            # For whoever is told of the step: its execution as it stands now.
            job.execution = trial.execution
            return following  # noqa: TRY300  the loop is of failures
        except StoreUnavailableError as error:
            unsure = True
            log.warning("database.away", step=job.step, id=job.subject_id, why=str(error))
            sleep(wait)
    raise AssertionError("waits never end")


def _copy(job: Job) -> Job:
    execution = dict(job.execution) if job.execution is not None else None
    return replace(job, execution=execution)


def _written_before(tx: Tx, context: Context, job: Job, holder: object) -> Job | None:
    """Find what a commit whose answer was lost has left with us: the next step, or nothing."""
    if job.run is not None:
        mine = claiming.held_job(tx, context, job.run["id"], fence=job.fence, taken_over=False)
        if mine is not None and not context.holds.is_anothers(mine, holder):
            return mine
    if job.lease is None:
        return None
    return claiming.lease_job(context, leases.lock(tx, job.lease["id"]), fence=job.fence + 1)


def _hold(tx: Tx, context: Context, job: Job, *, unsure: bool) -> Job | None:
    """
    Lock what we hold, with proof, and read it afresh.

    Returns a job if the rows say that this very step was written already by a commit whose
    answer was lost: then that job goes on instead.
    """
    if job.run is None:
        assert job.lease is not None
        lease = leases.hold(tx, job.lease, fence=job.fence)
        if lease["claimed_by"] != context.worker_id:
            raise LostClaimError(f"lease {lease['id']} is not ours any more")
        job.lease = lease
        return None
    if job.lease is not None:
        lease_id = job.lease["id"]
        job.lease, run = leases.hold_both(tx, job.lease, job.run, fence=job.fence)
        run = runs.check_held(run, worker_id=context.worker_id, lease_id=lease_id)
    else:
        run = runs.hold(tx, job.run["id"], worker_id=context.worker_id, lease_id=None)
        if run["fence"] != job.fence:
            raise LostClaimError(f"run {run['id']} was claimed anew")
    if run["step"] != job.step or run["starts"] != job.run["starts"]:
        # What this holder remembers is older than its own write: all of it is read again.
        fresh = leases.lock(tx, job.lease["id"]) if job.lease is not None else None
        return claiming.job_of(tx, context, runs.lock(tx, run["id"]), fresh, taken_over=False)
    job.run = run
    if unsure and job.execution is not None:
        stored = tx.one("SELECT * FROM executions WHERE id = :id", id=job.execution["id"])
        assert stored is not None
        if stored["status"] in EXECUTION_ENDS:
            fresh = leases.lock(tx, job.lease["id"]) if job.lease is not None else None
            return claiming.job_of(
                tx, context, runs.lock(tx, run["id"]), fresh, taken_over=False
            )
        for column in ("stdout_offset", "stderr_offset"):
            if stored[column] != job.execution[column]:
                job.execution = stored
                return job
    return None


def _write(tx: Tx, context: Context, job: Job, outcome: Any) -> Job | None:
    if job.step is Step.RELEASE:
        release.record(tx, context, job, outcome)
        return None
    if job.run is None:
        return holding.record_acquired(tx, context, job, outcome)
    return _RECORDS[job.step](tx, context, job, outcome)
