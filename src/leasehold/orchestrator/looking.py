"""
What a look at an execution writes: its end, or when it is looked at again.

The caller holds lease and run; the execution's own row is locked last.
"""

from collections.abc import Mapping
from typing import Any

from leasehold.domain.lifecycle import EndKind, ExecutionStatus, Step
from leasehold.domain.retry import backoff
from leasehold.orchestrator.jobs import Context, Job, us
from leasehold.store import moves
from leasehold.store.database import Tx


def mark_execution(
    tx: Tx,
    job: Job,
    to: ExecutionStatus,
    **values: Any,
) -> None:
    """Move the job's execution to its end."""
    assert job.execution is not None
    moved = moves.move(
        tx,
        "executions",
        job.execution["id"],
        to,
        held=job.execution,
        ended_at=tx.stamp(),
        **values,
    )
    assert moved is not None, f"execution {job.execution['id']} is over already"
    job.execution = moved


def say(tx: Tx, job: Job, name: str, data: Mapping[str, Any]) -> None:
    """Write a line of the history of the job's run and of the lease that it has."""
    run = job.run
    assert run is not None
    moves.record(
        tx,
        (name, dict(data)),
        tenant_id=run["tenant_id"],
        run_id=run["id"],
        lease_id=run["lease_id"],
    )


def close_execution(tx: Tx, job: Job, to: ExecutionStatus, *, message: str) -> None:
    """End an execution that has no exit record, with its line of history."""
    execution = job.execution
    assert execution is not None
    mark_execution(tx, job, to)
    data = {"execution": execution["id"], "message": message}
    say(tx, job, f"execution.{to.value}", data)


def look_again(
    tx: Tx,
    context: Context,
    job: Job,
    *,
    step: Step,
    tries: int,
    infra_attempts: int | None = None,
    end: EndKind | None = None,
) -> Job | None:
    """Give the claim up; the same execution is looked at again by a claim, after a backoff."""
    run, timers = job.run, context.timers
    assert run is not None
    wait = us(
        backoff(max(tries, 1), base=timers.retry_base, limit=timers.retry_max, rng=context.rng)
    )
    more: dict[str, Any] = {}
    if infra_attempts is not None:
        more["infra_attempts"] = infra_attempts
    if end is not None:
        more |= {"end_requested": end.value, "end_requested_at": run["now_us"]}
    moves.move(
        tx,
        "runs",
        run["id"],
        None,
        held=run,
        step=step,
        claimed_by=None,
        beat=False,
        publishes=tries,
        due_at=run["now_us"] + (wait if tries else 0),
        **more,
    )
    tx.after_commit.append(context.nudge)
    return None
