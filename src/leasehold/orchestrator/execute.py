"""
Step 3: start the command, once.

Authority is the execution's row, inserted `starting` in the transaction before the call: its
id is run + command + a number that is never used again. Killed before the call, during it or
before its answer was stored: the next holder raises the fence and starts *the same id* again,
which returns what is there. A new id is only made once the old one is proven over.
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from leasehold.domain import fate as fates
from leasehold.domain.lifecycle import EndKind, ExecutionStatus, RunStatus, Step
from leasehold.domain.secrets import filled
from leasehold.domain.specs import SETUP, RunSpec, plain_env
from leasehold.errors import (
    CapacityError,
    LeaseholdError,
    ProviderError,
    SandboxGoneError,
    SecretUnavailableError,
)
from leasehold.ids import RunId, execution_id
from leasehold.orchestrator import choosing, ending, looking, revealing
from leasehold.orchestrator.jobs import SECOND_US, Context, Job, Trouble
from leasehold.provider.budget import Budget
from leasehold.provider.contract import Command, SettledState, Started, StartOutcome
from leasehold.seams import effect
from leasehold.store import moves
from leasehold.store.database import Tx
from leasehold.store.runs import insert_later
from leasehold.store.sql import load

SECOND_LINE: Final = timedelta(seconds=2)
"""How much later than ours the supervisor's own timer strikes."""

_NAMES: Final = {
    StartOutcome.STARTED: "execution.started",
    StartOutcome.ADOPTED: "execution.adopted",
}


@dataclass(frozen=True, slots=True)
class Gone:
    """There is no such sandbox any more, so nothing runs in it."""

    message: str
    may_have_run: bool


def begin(tx: Tx, job: Job, *, command_index: int, first_attempt: bool = False) -> Job | None:
    """Insert the execution and claim the step; the caller holds lease and run."""
    run, lease = job.run, job.lease
    assert run is not None
    assert lease is not None
    number = run["starts"] + 1
    attempt = 1 if first_attempt else run["attempt"] + 1
    # The set-up command is no command of the run: which one comes next stays as it is.
    counted: dict[str, Any] = {}
    if command_index != SETUP:
        counted = {"attempt": attempt, "command_index": command_index}
    execution = insert_later(
        tx,
        "executions",
        {
            "id": execution_id(RunId(run["id"]), command=command_index, number=number),
            "tenant_id": run["tenant_id"],
            "run_id": run["id"],
            "lease_id": lease["id"],
            "command_index": command_index,
            "number": number,
            "attempt": attempt,
            "status": ExecutionStatus.STARTING.value,
            "stdout_offset": 0,
            "stderr_offset": 0,
            "stdout_dropped": 0,
            "stderr_dropped": 0,
            "secrets": revealing.pin(tx, job, lease),
            "runtime_url": choosing.url_of(lease),
            "created_at": run["now_us"],
        },
    )
    row = moves.move(
        tx,
        "runs",
        run["id"],
        None,
        held=run,
        step=Step.EXECUTE,
        starts=number,
        beat=False,
        publishes=0,
        **counted,
    )
    assert row is not None
    row["now_us"] = run["now_us"]
    moves.record(
        tx,
        "step.execute.started",
        tenant_id=run["tenant_id"],
        run_id=run["id"],
        lease_id=lease["id"],
    )
    return Job(
        step=Step.EXECUTE,
        fence=lease["fence"],
        run=row,
        lease=lease,
        execution=execution,
        sticky=job.sticky,
        spec_cache=job.spec_cache,
    )


def command_of(
    spec: RunSpec,
    index: int,
    environment_env: dict[str, Any],
    values: Mapping[str, str],
    ours: Mapping[str, str],
) -> Command:
    """
    Return the command as the provider gets it.

    Args:
        values: Of its secrets.
        ours: Variables that we give it; they go before those of the same names.
    """
    one, timeout_s = spec.command(index), spec.timeout_of(index)
    timeout = None if timeout_s is None else timedelta(seconds=timeout_s) + SECOND_LINE
    return Command(
        argv=one.argv,
        cwd=one.cwd,
        env=filled({**environment_env, **plain_env(spec.env), **plain_env(one.env)}, values)
        | dict(ours),
        stdin=base64.b64decode(one.stdin),
        timeout=timeout,
        grace=timedelta(seconds=spec.grace_s),
        output_cap_bytes=spec.output_cap_bytes,
    )


def act(context: Context, job: Job) -> Started | Gone | Trouble:
    """Start the execution under its id; whoever took over repeats just this."""
    lease, run, execution = job.lease, job.run, job.execution
    assert lease is not None
    assert run is not None
    assert execution is not None
    if job.end_requested:
        # Nothing is started for a run that is to end; the look that follows proves what is.
        return Started(outcome=StartOutcome.CANCELLED, handle={})
    provider = context.provider(lease["provider"])
    budget = Budget(context.timers.provider_call)
    target, fence = job.target(context), job.sandbox_fence(context)
    environment_env = load(lease["facts"]).get("environment_env", {})
    try:
        values = revealing.values(context, lease["tenant_id"], load(execution["secrets"]))
    except SecretUnavailableError as error:
        # Whoever had this job before may have had the value, and started the command.
        if error.retryable:
            return Trouble(error.code, str(error))
        return _refused(context, job, error)
    ours = choosing.variables(context, execution)
    command = command_of(job.spec, execution["command_index"], environment_env, values, ours)
    try:
        if job.taken_over:
            with effect("provider.seize"):
                provider.seize(target, fence=fence, budget=budget)
        with effect("provider.start"):
            return provider.start(
                target,
                fence=fence,
                execution_id=execution["id"],
                command=command,
                budget=budget,
            )
    except SandboxGoneError as error:
        return Gone(str(error), may_have_run=job.taken_over)
    except CapacityError as error:
        return Trouble(error.code, str(error), retry_after_s=error.retry_after_s)
    except ProviderError as error:
        if error.retryable:
            return Trouble(error.code, str(error))
        return _refused(context, job, error)


def _refused(context: Context, job: Job, error: LeaseholdError) -> Trouble:
    """A start was refused for good: leave a tombstone, so that it is proven never started."""
    assert job.lease is not None
    assert job.execution is not None
    try:
        with effect("provider.cancel"):
            settled = context.provider(job.lease["provider"]).cancel(
                job.target(context),
                fence=job.sandbox_fence(context),
                execution_id=job.execution["id"],
                handle={},
                grace=timedelta(0),
                budget=Budget(context.timers.provider_call),
            )
    except ProviderError as second:
        return Trouble(second.code, str(second))
    if settled.state is SettledState.NEVER_STARTED:
        code = "cwd_rejected" if "cwd" in str(error) else error.code
        return Trouble(code, str(error), permanent=True)
    return Trouble(error.code, str(error))


def record(tx: Tx, context: Context, job: Job, outcome: Started | Gone | Trouble) -> Job | None:
    """Store the start and go on to the first look, in one transaction."""
    run, lease, execution = job.run, job.lease, job.execution
    assert run is not None
    assert lease is not None
    assert execution is not None
    if isinstance(outcome, Gone):
        return _gone(tx, context, job, outcome)
    if isinstance(outcome, Trouble):
        return _trouble(tx, context, job, outcome)
    timeout_s = job.spec.timeout_of(execution["command_index"])
    if outcome.outcome is StartOutcome.CANCELLED:
        next_execution = execution
        names: list[str | tuple[str, dict[str, str]]] = []
    else:
        started = moves.move(
            tx,
            "executions",
            execution["id"],
            ExecutionStatus.RUNNING,
            held=execution,
            handle=dict(outcome.handle),
            started_at=run["now_us"],
        )
        assert started is not None
        next_execution = started
        data = {"execution": execution["id"], "worker": context.worker_id}
        names = [(_NAMES[outcome.outcome], data)]
    timeout_at = None if timeout_s is None else run["now_us"] + int(timeout_s * SECOND_US)
    row = moves.move(
        tx,
        "runs",
        run["id"],
        None,
        held=run,
        step=Step.HEARTBEAT,
        started_at=run["started_at"] or run["now_us"],
        timeout_at=timeout_at,
        start_deadline_at=None,
        timer_at=min(run["deadline_at"], timeout_at or run["deadline_at"]),
        code=None,
        message=None,
        publishes=0,
    )
    assert row is not None
    row["now_us"] = run["now_us"]
    moves.record(
        tx,
        *names,
        "step.execute.finished",
        "step.heartbeat.started",
        tenant_id=run["tenant_id"],
        run_id=run["id"],
        lease_id=lease["id"],
    )
    return Job(
        step=Step.HEARTBEAT,
        fence=job.fence,
        run=row,
        lease=lease,
        execution=next_execution,
        sticky=job.sticky,
        taken_over=outcome.outcome is StartOutcome.CANCELLED,
        spec_cache=job.spec_cache,
    )


def _fail_step(tx: Tx, job: Job, code: str, message: str) -> None:
    looking.say(tx, job, "step.execute.failed", {"code": code, "message": message})


def _gone(tx: Tx, context: Context, job: Job, outcome: Gone) -> Job | None:
    run = job.run
    assert run is not None
    to = ExecutionStatus.LOST if outcome.may_have_run else ExecutionStatus.CANCELLED
    _fail_step(tx, job, "sandbox_lost", outcome.message)
    looking.close_execution(tx, job, to, message=outcome.message)
    fate = fates.after_loss(
        job.spec,
        may_have_run=outcome.may_have_run,
        infra_attempts=run["infra_attempts"] + 1,
        end_requested=job.end_requested,
    )
    return ending.follow(tx, context, job, fate, sound=False)


def _trouble(tx: Tx, context: Context, job: Job, outcome: Trouble) -> Job | None:
    """Retry the same execution; it may have been started, so only proof ends it."""
    run = job.run
    assert run is not None
    _fail_step(tx, job, outcome.code, outcome.message)
    if outcome.permanent:
        looking.close_execution(tx, job, ExecutionStatus.CANCELLED, message=outcome.message)
        end = fates.End(RunStatus.FAILED, outcome.code, outcome.message)
        return ending.follow(tx, context, job, end)
    tries = run["infra_attempts"] + 1
    spent = tries >= job.spec.max_infra_attempts
    return looking.look_again(
        tx,
        context,
        job,
        step=Step.HEARTBEAT if spent else Step.EXECUTE,
        tries=tries,
        infra_attempts=tries,
        end=EndKind.PARK if spent and job.end_requested is None else None,
    )
