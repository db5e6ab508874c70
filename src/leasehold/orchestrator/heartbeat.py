"""
Step 4: look after a started command until it is over.

A look is pure (`poll`): running, exited, starting, unclear. What is unclear, starting for too
long, or to be ended takes a claim of its own (which raised the fence): it seizes, then asks for
proof (`settle`, `cancel`). The exit is recorded only once all output up to the cap is stored;
each piece is appended by compare-and-set on its offset, so no byte is lost or stored twice,
whoever dies between two pieces.
"""

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

from leasehold.domain import fate as fates
from leasehold.domain.lifecycle import ExecutionStatus, Step
from leasehold.domain.specs import SETUP
from leasehold.errors import ProviderError, SandboxGoneError
from leasehold.orchestrator import ending, keeping, leasing, looking, preparing, revealing
from leasehold.orchestrator.jobs import Context, Job, Trouble, us
from leasehold.provider.budget import Budget
from leasehold.provider.contract import (
    ExecutionState,
    Exit,
    Polled,
    PollItem,
    Settled,
    SettledState,
)
from leasehold.seams import effect
from leasehold.store import executions, moves, watch
from leasehold.store.database import Row, Tx
from leasehold.store.sql import load

LIMIT_BYTES: Final = 1024 * 1024
END_TRIES: Final = 10
"""Failed calls to end a tree before its sandbox is owed destruction instead."""


@dataclass(frozen=True, slots=True)
class Looked:
    """What one look saw, and the proof of the end if it was asked for."""

    polled: Polled
    verdict: Settled | None = None
    renewed_us: int | None = None
    """The sandbox's own time to live was pushed on by so much."""


@dataclass(frozen=True, slots=True)
class Gone:
    """The sandbox is proven gone, and everything in it."""

    message: str


def item_of(job: Job, context: Context) -> PollItem:
    """Return the job's execution as a question to its provider."""
    assert job.execution is not None
    return PollItem(
        target=job.target(context),
        execution_id=job.execution["id"],
        handle=load(job.execution["handle"]) or {},
        stdout_offset=job.execution["stdout_offset"],
        stderr_offset=job.execution["stderr_offset"],
    )


def act(context: Context, job: Job) -> Looked | Gone | Trouble:
    """Look once; end the tree or settle its fate where that is due."""
    lease, execution = job.lease, job.execution
    assert lease is not None
    assert execution is not None
    provider = context.provider(lease["provider"])
    budget = Budget(context.timers.provider_call)
    item = item_of(job, context)
    fence = job.sandbox_fence(context)
    verdict = job.verdict
    try:
        if job.taken_over and verdict is None:
            with effect("provider.seize"):
                provider.seize(item.target, fence=fence, budget=budget)
        if job.end_requested and verdict is None:
            grace = timedelta(seconds=job.spec.grace_s)
            with effect("provider.cancel"):
                verdict = provider.cancel(
                    item.target,
                    fence=fence,
                    execution_id=item.execution_id,
                    handle=item.handle,
                    grace=grace,
                    budget=Budget(context.timers.provider_call + grace),
                )
        polled = _poll(context, job, item, budget, verdict)
        if verdict is None and needs_proof(context, job, polled):
            if not job.taken_over:
                with effect("provider.seize"):
                    provider.seize(item.target, fence=fence, budget=budget)
            with effect("provider.settle"):
                verdict = provider.settle(
                    item.target,
                    fence=fence,
                    execution_id=item.execution_id,
                    handle=item.handle,
                    budget=budget,
                )
            polled = _poll(context, job, item, budget, verdict)
        return Looked(polled, verdict)
    except SandboxGoneError as error:
        return Gone(str(error))
    except ProviderError as error:
        return Trouble(error.code, str(error))


def _poll(
    context: Context, job: Job, item: PollItem, budget: Budget, verdict: Settled | None
) -> Polled:
    """Look once; what it saw is as it may be stored, its secrets hidden."""
    assert job.lease is not None
    provider = context.provider(job.lease["provider"])
    hider = revealing.redactor_of(context, job)
    asked = revealing.with_context(item, hider)
    with effect("provider.poll"):
        polled = provider.poll([asked], limit_bytes=LIMIT_BYTES, budget=budget)[0]
    if polled.error is not None:
        raise polled.error
    return revealing.masked(item, polled, hider, limit_bytes=LIMIT_BYTES, over=verdict)


def needs_proof(context: Context, job: Job, polled: Polled) -> bool:
    """Return whether only a claim that seized may say what this execution is."""
    if polled.state is ExecutionState.UNCLEAR:
        return True
    if polled.state is not ExecutionState.STARTING:
        return False
    assert job.execution is not None
    age_us: int = job.now_us - job.execution["created_at"]
    return age_us > us(context.timers.starting_max)


def record(tx: Tx, context: Context, job: Job, outcome: Looked | Gone | Trouble) -> Job | None:
    """Store what was seen; decide what follows."""
    if isinstance(outcome, Trouble):
        return _trouble(tx, context, job, outcome)
    if isinstance(outcome, Gone):
        return _lost(tx, context, job, outcome.message, may_have_run=True, sound=False)
    store_output(tx, job, outcome.polled)
    polled, verdict = outcome.polled, outcome.verdict
    exit_ = polled.exit
    if exit_ is None and verdict is not None and verdict.state is SettledState.EXITED:
        exit_ = verdict.exit
    if exit_ is not None:
        if _complete(job, exit_):
            return _exited(tx, context, job, exit_)
        if not polled.stdout and not polled.stderr:
            return _short(tx, context, job, exit_)
        job.verdict = verdict or Settled(state=SettledState.EXITED, exit=exit_)
        return job
    if verdict is not None:
        if polled.stdout or polled.stderr:
            job.verdict = verdict
            return job
        started = verdict.state is not SettledState.NEVER_STARTED
        message = "its record is gone" if started else "it was never started"
        return _lost(tx, context, job, message, may_have_run=started, sound=True)
    return rest(tx, context, job)


def store_output(tx: Tx, job: Job, polled: Polled) -> None:
    """Append new output; the job's offsets follow."""
    execution = job.execution
    assert execution is not None
    for stream, data in (("stdout", polled.stdout), ("stderr", polled.stderr)):
        column = f"{stream}_offset"
        executions.append(
            tx, execution["id"], stream=stream, offset=execution[column], data=data
        )
        execution[column] += len(data)


def _complete(job: Job, exit_: Exit) -> bool:
    assert job.execution is not None
    stored = job.execution["stdout_offset"], job.execution["stderr_offset"]
    return bool(stored[0] >= exit_.stdout_bytes and stored[1] >= exit_.stderr_bytes)


def _short(tx: Tx, context: Context, job: Job, exit_: Exit) -> Job | None:
    """
    Look again for the rest of the output; at last call it dropped.

    Somebody may have truncated it in the sandbox, and the run must not wait for that for ever.
    """
    run, execution = job.run, job.execution
    assert run is not None
    assert execution is not None
    tries = run["publishes"] + 1
    if tries <= END_TRIES:
        return looking.look_again(tx, context, job, step=Step.HEARTBEAT, tries=tries)
    missing = {
        stream: max(0, told - execution[f"{stream}_offset"])
        for stream, told in (("stdout", exit_.stdout_bytes), ("stderr", exit_.stderr_bytes))
    }
    short = replace(
        exit_,
        stdout_dropped=exit_.stdout_dropped + missing["stdout"],
        stderr_dropped=exit_.stderr_dropped + missing["stderr"],
    )
    return _exited(tx, context, job, short)


def _exited(tx: Tx, context: Context, job: Job, exit_: Exit) -> Job | None:
    run, execution = job.run, job.execution
    assert run is not None
    assert execution is not None
    looking.mark_execution(
        tx,
        job,
        ExecutionStatus.EXITED,
        cause=exit_.cause.value,
        exit_code=exit_.code,
        signal=exit_.signal,
        stdout_dropped=exit_.stdout_dropped,
        stderr_dropped=exit_.stderr_dropped,
    )
    data = {
        "execution": execution["id"],
        "worker": context.worker_id,
        "cause": exit_.cause.value,
        "exit_code": exit_.code,
        "signal": exit_.signal,
        "dropped": exit_.stdout_dropped + exit_.stderr_dropped,
    }
    moves.record(
        tx,
        ("execution.exited", {key: value for key, value in data.items() if value}),
        "step.heartbeat.finished",
        tenant_id=run["tenant_id"],
        run_id=run["id"],
        lease_id=run["lease_id"],
    )
    sound = exit_.cause.value != "expired"
    if execution["command_index"] == SETUP:
        fate = fates.after_setup(
            cause=exit_.cause.value,
            exit_code=exit_.code,
            signal=exit_.signal,
            end_requested=job.end_requested,
        )
        return preparing.after_setup(tx, context, job, fate, sound=sound)
    fate = fates.after_exit(
        job.spec,
        cause=exit_.cause.value,
        exit_code=exit_.code,
        signal=exit_.signal,
        command_index=execution["command_index"],
        attempt=execution["attempt"],
        end_requested=job.end_requested,
    )
    return keeping.follow(tx, context, job, fate, sound=sound)


def _lost(
    tx: Tx, context: Context, job: Job, message: str, *, may_have_run: bool, sound: bool
) -> Job | None:
    run = job.run
    assert run is not None
    to = ExecutionStatus.LOST if may_have_run else ExecutionStatus.CANCELLED
    looking.close_execution(tx, job, to, message=message)
    moves.record(
        tx,
        ("step.heartbeat.failed", {"code": "execution_lost", "message": message}),
        tenant_id=run["tenant_id"],
        run_id=run["id"],
        lease_id=run["lease_id"],
    )
    fate = fates.after_loss(
        job.spec,
        may_have_run=may_have_run,
        infra_attempts=run["infra_attempts"] + 1,
        end_requested=job.end_requested,
    )
    return ending.follow(tx, context, job, fate, sound=sound)


def interval_us(context: Context, *, age_us: int, followed: bool) -> int:
    """Return how long to rest before the next look: longer for older commands."""
    timers = context.timers
    low, high = us(timers.heartbeat_min), us(timers.heartbeat_max)
    if followed:
        high = min(high, us(timers.heartbeat_follow))
    return max(low, min(high, age_us // 4))


def rest(tx: Tx, context: Context, job: Job) -> Job | None:
    """Give the claim up until the next beat, or go on at once if the run is to end."""
    run, execution = job.run, job.execution
    assert run is not None
    assert execution is not None
    if job.end_requested:
        job.taken_over = True
        if job.sticky:
            return job
        return looking.look_again(tx, context, job, step=Step.HEARTBEAT, tries=0)
    age = run["now_us"] - (execution["started_at"] or execution["created_at"])
    followed = (run["follow_until"] or 0) > run["now_us"]
    row = moves.move(
        tx,
        "runs",
        run["id"],
        None,
        held=run,
        claimed_by=None,
        beat=True,
        publishes=0,
        due_at=run["now_us"] + interval_us(context, age_us=age, followed=followed),
    )
    assert row is not None
    tx.after_commit.append(context.nudge)
    return None


def _trouble(tx: Tx, context: Context, job: Job, outcome: Trouble) -> Job | None:
    """
    Nothing is known of the command: a transport's failure is never its state.

    Looks go on with backoff until the sandbox's own time to live has surely passed. A request
    to end waits for a few tries only: then the sandbox is owed destruction, which is final too.
    """
    run, lease = job.run, job.lease
    assert run is not None
    assert lease is not None
    tries = run["publishes"] + 1
    # One late look proves nothing: the clock may have been set this very second.
    if tries > END_TRIES and (job.end_requested or _surely_over(tx, context, lease)):
        return _lost(tx, context, job, outcome.message, may_have_run=True, sound=False)
    return looking.look_again(tx, context, job, step=Step.HEARTBEAT, tries=tries)


def _surely_over(tx: Tx, context: Context, lease: Row) -> bool:
    grace_us = us(context.timers.host_grace)
    return watch.read(tx, grace_us=grace_us).surely_over(lease)


def time_to_live(context: Context, row: Row, *, least: timedelta) -> timedelta:
    """Return how long a sandbox must live by itself; one that is held outlives its lease."""
    return leasing.time_to_live(context, row, now_us=row["now_us"], least=least)


def renewing(tx: Tx, lease: Row, *, ttl_us: int) -> bool:
    """
    Store how long the sandbox may live, before it is told so; False if the lease was lost.

    Killed after the telling, SQL must not believe it to be over while it lives.
    """
    until = max(lease["sandbox_expires_at"] or 0, lease["now_us"] + ttl_us)
    row = moves.move(
        tx,
        "leases",
        lease["lease_id"],
        None,
        guard="fence = :held",
        guard_values={"held": lease["fence"]},
        sandbox_expires_at=until,
    )
    return row is not None


def renewed(tx: Tx, lease: Row, *, ttl_us: int, fence: int) -> None:
    """Store that the sandbox's own time to live was pushed on."""
    moves.move(
        tx,
        "leases",
        lease["lease_id"],
        None,
        guard="fence = :held",
        guard_values={"held": fence},
        renew_at=lease["now_us"] + ttl_us // 3,
        sandbox_expires_at=lease["now_us"] + ttl_us,
    )
