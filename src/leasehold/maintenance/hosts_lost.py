"""
What happens to the work on a host that has no live session any more.

Within `host_grace` nothing: agents that come back in time re-attach to what runs there.
After it, a run that had not started anything, or that is `idempotent`, starts elsewhere, and
its old sandbox is owed destruction (paid when the host returns). Any other run waits until
the sandbox's own time to live has surely passed (`store.watch`): then nothing of it can run,
and it fails with `execution_lost`. A sandbox that may still run can meanwhile go to
nobody else (P4).

A run that is bound to no host waits for any that serves its provider. If it is to end and for
the grace there is none, it ends without: its sandbox is owed destruction (P1).
"""

from dataclasses import dataclass

from leasehold.domain import fate as fates
from leasehold.domain.lifecycle import ExecutionStatus, RunStatus, Step
from leasehold.log import get_logger
from leasehold.orchestrator import ending, looking
from leasehold.orchestrator.jobs import Context, Job, us
from leasehold.provider.budget import boot_time
from leasehold.store import executions, leases, runs, watch
from leasehold.store.database import Tx

log = get_logger(__name__)


@dataclass(slots=True)
class Report:
    """What one look did."""

    moved: int = 0


def run_once(context: Context, *, batch: int) -> Report:
    """Move on the runs of hosts that have been away for longer than the grace."""
    grace = us(context.timers.host_grace)
    with context.database.read() as tx:
        since = watch.read(tx, grace_us=grace).from_us
        found = runs.on_lost_hosts(tx, grace_us=grace, watched_from_us=since, limit=batch)
    report = Report()
    for run_id in found:
        with context.database.write("clock.host_lost") as tx:
            report.moved += _move_on(tx, context, run_id, grace_us=grace)
    return report


def _move_on(tx: Tx, context: Context, run_id: str, *, grace_us: int) -> int:
    peek = runs.find(tx, run_id)
    if peek is None or not runs.is_on_lost_host(tx, run_id, grace_us=grace_us):
        return 0
    lease = leases.lock(tx, peek["lease_id"]) if peek["lease_id"] else None
    run = runs.lock(tx, run_id)
    if run is None or run["lease_id"] != peek["lease_id"] or run["status"] != "running":
        return 0
    if not context.pace.is_sane(run["now_us"], at=boot_time()):
        return 0
    execution = executions.open_of(tx, run_id) if lease else None
    job = Job(
        step=Step(run["step"]), fence=0, run=run, lease=lease, execution=execution, sticky=False
    )
    if execution is None:
        fate: fates.Fate = fates.after_trouble(
            job.spec,
            infra_attempts=run["infra_attempts"] + 1,
            code="host_lost",
            message="its host is away",
        )
        if job.end_requested:
            fate = fates.ended_by(job.end_requested)
        fate = ending.kept(run) or fate
    else:
        assert lease is not None
        surely_over = watch.read(tx, grace_us=grace_us).surely_over(lease)
        if not (job.spec.idempotent or surely_over or job.end_requested):
            return 0
        looking.close_execution(tx, job, ExecutionStatus.LOST, message="its host is away")
        fate = fates.after_loss(
            job.spec,
            may_have_run=True,
            infra_attempts=run["infra_attempts"] + 1,
            end_requested=job.end_requested,
        )
    log.warning("run.host_lost", run=run_id, host=run["host_id"], fate=type(fate).__name__)
    # Nothing of it ran: what a person retains waits for its host, as it was.
    retained = lease is not None and lease["retained_until"] is not None
    if retained and execution is None and isinstance(fate, fates.RetryInfra):
        fate = fates.End(RunStatus.FAILED, "lease_unavailable", "its lease's host is away")
    ending.follow(tx, context, job, fate, sound=retained and execution is None)
    if isinstance(fate, fates.RetryInfra):
        ending.requeue(tx, run_id)
    return 1
