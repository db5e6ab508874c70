"""
How a run goes on after a fate, and how it ends.

P4 decides the order: a run becomes terminal only in a transaction that knows that none of
its executions runs any more, or that puts its sandbox into `releasing(destroy)`, where
nobody else can get it. A request to end (cancel, a timer, park) is a column that every claim
and beat sees; who finds nothing running ends the run at once.
"""

from datetime import timedelta
from typing import Any

from leasehold.domain import fate as fates
from leasehold.domain.lifecycle import (
    RUN_ENDS,
    EndKind,
    RunStatus,
    Step,
)
from leasehold.domain.retry import backoff
from leasehold.errors import NotFoundError
from leasehold.orchestrator import leasing
from leasehold.orchestrator.jobs import Context, Job, Message, send, us
from leasehold.store import executions, leases, moves, predecessors, runs, webhooks
from leasehold.store.database import Row, Tx
from leasehold.store.sql import load


def end_run(
    tx: Tx, context: Context, job: Job, end: fates.End, *, sound: bool = True
) -> Job | None:
    """
    Write the terminal status and put the lease where it belongs, in one transaction.

    The caller holds the lease's and the run's rows. Returns the release job, if this worker
    goes on with it.
    """
    run, lease = job.run, job.lease
    assert run is not None
    _finish(tx, context, run, end)
    if lease is None:
        tx.after_commit.append(context.nudge)
        return None
    return leasing.part(
        tx,
        context,
        lease,
        run_status=end.status,
        sound=sound,
        reason=f"run {end.status.value}" if sound else (end.code or "lost"),
        sticky=context.sticky and job.sticky,
    )


def kept(run: Row) -> fates.End | None:
    """Return the end that a run has come to already: only its artifacts are still collected."""
    ending = load(run["ending"])
    if ending is None:
        return None
    return fates.End(
        RunStatus(ending["status"]), ending["code"], ending["message"], ending["exit_code"]
    )


def _finish(tx: Tx, context: Context, run: Row, end: fates.End) -> None:
    row = moves.move(
        tx,
        "runs",
        run["id"],
        end.status,
        held=run,
        fence=run["fence"] + 1,
        finished_at=tx.stamp(),
        step=None,
        claimed_by=None,
        due_at=None,
        timer_at=None,
        beat=False,
        code=end.code,
        message=end.message,
        exit_code=end.exit_code,
        ending=None,
        waits=0,
    )
    assert row is not None, f"run {run['id']} was not locked"
    webhooks.owe(tx, run, status=end.status.value)
    data = {"code": end.code, "message": end.message, "exit_code": end.exit_code}
    moves.record(
        tx,
        (f"run.{end.status.value}", {k: v for k, v in data.items() if v is not None}),
        tenant_id=run["tenant_id"],
        run_id=run["id"],
        lease_id=run["lease_id"],
    )
    if run["awaited"]:
        predecessors.wake(tx, run["id"], ended=end.status.value)
        tx.after_commit.append(context.nudge)


def follow(
    tx: Tx,
    context: Context,
    job: Job,
    fate: fates.Fate,
    *,
    sound: bool = True,
    retry_after: timedelta | None = None,
    counts: bool = True,
) -> Job | None:
    """
    Do what a fate says; the caller holds the rows and nothing of the execution runs.

    Args:
        sound: False if the sandbox must not be used again.
        counts: False if a retry is no failure of the infrastructure.
    """
    match fate:
        case fates.End():
            return end_run(tx, context, job, fate, sound=sound)
        case fates.Park():
            return _park(tx, context, job, fate, sound=sound)
        case fates.NextCommand():
            from leasehold.orchestrator.execute import begin

            assert job.run is not None
            index = job.run["command_index"] + 1
            return begin(tx, job, command_index=index, first_attempt=True)
        case fates.RetryCommand():
            return _again(tx, context, job, fate.code, fate.message, infra=False, sound=sound)
        case fates.RetryInfra():
            return _again(
                tx,
                context,
                job,
                fate.code,
                fate.message,
                infra=counts,
                sound=sound,
                after=retry_after,
            )


def _park(tx: Tx, context: Context, job: Job, fate: fates.Park, *, sound: bool) -> Job | None:
    run = job.run
    assert run is not None
    next_job = None
    if job.lease is not None:
        # What failed so often is not trusted; what a person looks into stays to be looked at.
        retained = job.lease["retained_until"] is not None
        next_job = leasing.part(
            tx,
            context,
            job.lease,
            run_status=None,
            sound=sound and retained,
            reason=fate.code,
            sticky=context.sticky and job.sticky,
        )
    moves.move(
        tx,
        "runs",
        run["id"],
        RunStatus.PARKED,
        held=run,
        step=None,
        fence=fence_above(run, job.lease),
        claimed_by=None,
        due_at=None,
        beat=False,
        lease_id=None,
        timer_at=run["deadline_at"],
        end_requested=None,
        end_requested_at=None,
        code=fate.code,
        message=fate.message,
    )
    moves.record(
        tx,
        ("run.parked", {"code": fate.code, "message": fate.message}),
        tenant_id=run["tenant_id"],
        run_id=run["id"],
    )
    return next_job


def lost_before_start(tx: Tx, context: Context, job: Job) -> Job | None:
    """Go on after a loss of the sandbox in which nothing of the run had been started."""
    run = job.run
    assert run is not None
    fate = fates.after_loss(
        job.spec,
        may_have_run=False,
        infra_attempts=run["infra_attempts"] + 1,
        end_requested=job.end_requested,
    )
    return follow(tx, context, job, fate, sound=False)


def fence_above(run: Row, lease: Row | None) -> int:
    """Return a fence for a run that parts from its lease: above all that was ever sent."""
    # The lease's own may have been raised by one in this transaction.
    return int(max(run["fence"], lease["fence"] + 1 if lease else 0)) + 1


def _again(
    tx: Tx,
    context: Context,
    job: Job,
    code: str,
    message: str,
    *,
    infra: bool,
    sound: bool,
    after: timedelta | None = None,
) -> Job | None:
    """Try again after a backoff: in the same sandbox if it is reused, else in a new one."""
    run, lease, timers = job.run, job.lease, context.timers
    assert run is not None
    tries = run["infra_attempts"] + 1 if infra else max(1, run["attempt"])
    wait = after or backoff(
        tries, base=timers.retry_base, limit=timers.retry_max, rng=context.rng
    )
    next_job: Job | None = None
    stays = lease is not None and (
        lease["held_until"] or lease["retained_until"] or lease["scope"]
    )
    keep = sound and stays
    waiting_for_sandbox = lease is not None and lease["status"] == "acquiring"
    lease_id = run["lease_id"]
    if lease is not None and not keep and not (waiting_for_sandbox and sound):
        next_job = leasing.part(
            tx,
            context,
            lease,
            run_status=None,
            sound=sound,
            reason=code,
            sticky=context.sticky and job.sticky,
        )
        lease_id = None
    # One time for all tries to get a sandbox; a start of the command cleared it.
    fresh = run["now_us"] + us(wait) + us(start_timeout(context, job))
    start_by = run["start_deadline_at"] or fresh
    if lease is not None and lease_id is None and run["wanted_lease_id"]:
        # It parts from the lease that it named; one that has not got it yet tries again.
        gone = fates.End(
            RunStatus.FAILED, "lease_unavailable", f"the lease that it names is lost: {message}"
        )
        _finish(tx, context, run, gone)
        return next_job
    step = Step.VALIDATE if lease_id is None else Step.EXECUTE
    # A lease that it named is active from its first step on; the sandbox was not seen yet.
    if lease_id is not None and (waiting_for_sandbox or job.step is Step.ACQUIRE):
        step = Step.ACQUIRE
    deadline: int = run["deadline_at"]
    moves.move(
        tx,
        "runs",
        run["id"],
        None,
        held=run,
        step=step,
        fence=fence_above(run, lease),
        claimed_by=None,
        due_at=run["now_us"] + us(wait),
        publishes=0,
        beat=False,
        lease_id=lease_id,
        timeout_at=None,
        start_deadline_at=start_by,
        timer_at=min(run["deadline_at"], deadline if step is Step.EXECUTE else start_by),
        infra_attempts=run["infra_attempts"] + (1 if infra else 0),
        code=code,
        message=message,
    )
    tx.after_commit.append(context.nudge)
    return next_job


def start_timeout(context: Context, job: Job) -> timedelta:
    """Return how long validate and acquire may take for this run."""
    asked = job.spec.start_timeout_s
    return timedelta(seconds=asked) if asked else context.timers.start_timeout


def request_end(
    tx: Tx, context: Context, run_id: str, kind: EndKind, *, actor: str | None = None
) -> Row:
    """
    Ask a run to end; the first request stands, a terminal status never changes.

    Only the engine's own wish to park gives way to any other: parked, it would be forgotten.

    What holds nothing ends at once. What runs is made due for a claim that ends the tree
    with proof. Returns the run's row as it is now.

    Raises:
        NotFoundError: There is no such run.
    """
    lease, run = locked(tx, run_id)
    stands = run["end_requested"] not in {None, EndKind.PARK}
    if run["status"] in RUN_ENDS or stands:
        return run
    step = Step(run["step"] or Step.VALIDATE)
    job = Job(step=step, fence=0, run=run, lease=lease, sticky=False)
    data = {"kind": kind.value} | ({"actor": actor} if actor else {})
    moves.record(tx, ("run.end_requested", data), tenant_id=run["tenant_id"], run_id=run_id)
    end = kept(run) or fates.ended_by(kind)
    if run["status"] in {RunStatus.QUEUED, RunStatus.PARKED} and isinstance(end, fates.End):
        _finish(tx, context, run, end)
    elif run["claimed_by"] is None and executions.open_of(tx, run_id) is None:
        follow(tx, context, job, end)
    else:
        _mark(tx, context, run, lease, kind)
    after = runs.find(tx, run_id)
    assert after is not None
    return after


def locked(tx: Tx, run_id: str) -> tuple[Row | None, Row]:
    """
    Lock a run and its lease in the right order: which lease it is, is known only after.

    If the run got or lost its lease in between, the locks are given up by going back to a
    savepoint, and it is tried again.
    """
    while True:
        peek = runs.find(tx, run_id)
        if peek is None:
            raise NotFoundError(f"there is no run {run_id}")
        tx.execute("SAVEPOINT look", {})
        lease = leases.lock(tx, peek["lease_id"]) if peek["lease_id"] else None
        run = runs.lock(tx, run_id)
        if run is not None and run["lease_id"] == peek["lease_id"]:
            return lease, run
        tx.execute("ROLLBACK TO SAVEPOINT look", {})


def _mark(tx: Tx, context: Context, run: Row, lease: Row | None, kind: EndKind) -> None:
    unclaimed = run["claimed_by"] is None
    wait = us(context.timers.republish_base)
    due = {"beat": False, "due_at": run["now_us"] + wait, "publishes": 1}
    more: dict[str, Any] = due if unclaimed else {}
    moves.move(
        tx,
        "runs",
        run["id"],
        None,
        held=run,
        end_requested=kind.value,
        end_requested_at=run["now_us"],
        timer_at=None,
        **more,
    )
    if unclaimed and run["queue"]:
        fence = lease["fence"] if lease else run["fence"]
        message = Message("run", run["id"], fence, Step(run["step"]), run["queue"])
        tx.after_commit.append(lambda: send(context, message))


def fail_queued(tx: Tx, context: Context, run: Row, code: str, message: str) -> None:
    """End a queued run that can never be admitted."""
    held = runs.lock(tx, run["id"])
    if held is not None and held["status"] == RunStatus.QUEUED:
        _finish(tx, context, held, fates.End(RunStatus.FAILED, code, message))


def end_unstarted(tx: Tx, context: Context, run: Row, message: str) -> None:
    """End a locked run for which the end that it waits for can come no more."""
    end = fates.End(RunStatus.CANCELLED, "predecessor_outcome", message)
    _finish(tx, context, run, end)


def requeue(tx: Tx, run_id: str) -> None:
    """Send a run that has no lease any more back to admission: it needs another host."""
    run = runs.lock(tx, run_id)
    assert run is not None
    if run["status"] != RunStatus.RUNNING:
        return  # it named the lease that is lost with the host, and ended with it
    row = moves.move(
        tx,
        "runs",
        run_id,
        RunStatus.QUEUED,
        raw=("fence = fence + 1",),
        step=None,
        claimed_by=None,
        due_at=None,
        beat=False,
        queue=None,
        host_id=None,
        timer_at=run["deadline_at"],
    )
    assert row is not None
    moves.record(
        tx,
        ("run.queued", {"code": "host_lost"}),
        tenant_id=row["tenant_id"],
        run_id=run_id,
    )
