"""
From a run's last exit to its end, if files of it are to be kept: the way in.

The fate is decided by the exit's record and written down at once, in `ending`; what follows
can change nothing of it. So a store that fails, a sandbox that is lost or a cancel that comes
now only cost the files, and `artifacts_error` says so.
"""

from typing import Any, Final

from leasehold.domain import fate as fates
from leasehold.domain.lifecycle import LeaseStatus, RunStatus, Step
from leasehold.orchestrator import ending
from leasehold.orchestrator.jobs import Context, Job
from leasehold.store import moves
from leasehold.store.database import Tx

_NOT_YET: Final = "not collected"
_NOBODY_STOPPED_IT: Final = frozenset({RunStatus.SUCCEEDED, RunStatus.FAILED})


def follow(
    tx: Tx, context: Context, job: Job, fate: fates.Fate, *, sound: bool = True
) -> Job | None:
    """Do what a fate says; before an end, collect what is to be kept."""
    if not (sound and isinstance(fate, fates.End) and _wants(job, fate)):
        return ending.follow(tx, context, job, fate, sound=sound)
    run, lease = job.run, job.lease
    assert run is not None
    assert lease is not None
    # A beat looks after many: the files of one run take a claim of their own.
    rests: dict[str, Any] = {} if job.sticky else {"claimed_by": None, "due_at": run["now_us"]}
    row = moves.move(
        tx,
        "runs",
        run["id"],
        None,
        held=run,
        step=Step.HEARTBEAT,
        ending={
            "status": fate.status.value,
            "code": fate.code,
            "message": fate.message,
            "exit_code": fate.exit_code,
            "tries": 0,
        },
        artifacts_error=_NOT_YET,
        end_requested=None,
        end_requested_at=None,
        timeout_at=None,
        timer_at=run["deadline_at"],
        beat=False,
        publishes=0,
        **rests,
    )
    assert row is not None
    row["now_us"] = run["now_us"]
    moves.record(
        tx,
        "artifacts.collecting",
        tenant_id=run["tenant_id"],
        run_id=run["id"],
        lease_id=lease["id"],
    )
    if not job.sticky:
        tx.after_commit.append(context.nudge)
        return None
    return Job(
        step=Step.HEARTBEAT,
        fence=job.fence,
        run=row,
        lease=lease,
        sticky=True,
        spec_cache=job.spec_cache,
    )


def _wants(job: Job, fate: fates.End) -> bool:
    assert job.lease is not None
    ended_by_itself = fate.status in _NOBODY_STOPPED_IT or fate.code == "timeout"
    is_there = job.lease["status"] == LeaseStatus.ACTIVE
    return job.spec.collects and ended_by_itself and is_there
