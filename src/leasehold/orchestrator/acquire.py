"""
Step 2: a lease, then its sandbox.

Authority is the lease's row: it is inserted (or an idle one is taken, by compare-and-set) in
the transaction *before* the provider is called, so no sandbox exists without a row. Killed
after the commit: the row is `acquiring`, its run becomes due, and the next worker repeats the
same call with the same lease id, which adopts or creates. Killed after the provider's
effect: the same. So there is one path, and recovery is that path.
"""

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from leasehold.domain import fate as fates
from leasehold.domain.lifecycle import LeasePolicy, LeaseStatus, RunStatus, Step
from leasehold.errors import (
    CapacityError,
    InterruptedCallError,
    ProviderError,
    SandboxGoneError,
    SecretUnavailableError,
)
from leasehold.ids import new_id
from leasehold.orchestrator import ending, leasing, preparing
from leasehold.orchestrator.jobs import SECOND_US, Context, Job, Trouble, interruptions, us
from leasehold.provider.budget import Budget
from leasehold.provider.contract import ReleaseMode, Sandbox, SandboxState
from leasehold.seams import effect
from leasehold.store import leases, moves, secrets
from leasehold.store.database import Row, Tx
from leasehold.store.runs import insert_row
from leasehold.store.sql import load


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the run's lease must be like."""

    policy: LeasePolicy
    scope: str | None
    fingerprint: str
    facts: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Ready:
    """The sandbox is ready for the run."""

    sandbox: Sandbox | None
    """None: that of a lease that the run names, seized and seen to be ready."""


@dataclass(frozen=True, slots=True)
class Lost:
    """The sandbox that was to be resumed is proven gone."""

    message: str


def begin(tx: Tx, context: Context, job: Job, wanted: Wanted) -> Job | None:
    """Take an idle lease or insert a new one; the caller holds the run, which has none."""
    run = job.run
    assert run is not None
    lease: Row | None = None
    if wanted.scope is not None:
        for other in leases.mismatching(tx, scope=wanted.scope, fingerprint=wanted.fingerprint):
            what = leasing.Disposal(
                ReleaseMode.DESTROY, LeaseStatus.RELEASED, "fingerprint_mismatch"
            )
            leasing.owe(tx, context, other, what, sticky=False)
        idle = leases.find_idle(
            tx, scope=wanted.scope, fingerprint=wanted.fingerprint, queue=run["queue"]
        )
        if idle is not None:
            lease = moves.move(
                tx,
                "leases",
                idle["id"],
                LeaseStatus.ACQUIRING,
                held=idle,
                run_id=run["id"],
                timer_at=None,
                fence=above(idle, run),
            )
    if lease is None:
        lease = insert_lease(tx, run, wanted, run_id=run["id"], fence=run["fence"] + 1)
    moves.record(
        tx,
        ("lease.acquiring", {"reuse": lease["handle"] is not None}),
        tenant_id=run["tenant_id"],
        run_id=run["id"],
        lease_id=lease["id"],
    )
    row = moves.move(
        tx,
        "runs",
        run["id"],
        None,
        held=run,
        lease_id=lease["id"],
        step=Step.ACQUIRE,
        due_at=None,
    )
    assert row is not None
    row["now_us"] = run["now_us"]
    return Job(
        step=Step.ACQUIRE,
        fence=lease["fence"],
        run=row,
        lease=lease,
        sticky=job.sticky,
        spec_cache=job.spec,
    )


def above(lease: Row, run: Row) -> int:
    """
    Return a fence above both counters.

    A run's messages carry its own fence before it has a lease, and its lease's after: one
    sequence, so that no message of before can be taken for one of now.
    """
    return int(max(lease["fence"], run["fence"])) + 1


def insert_lease(
    tx: Tx, owner: Row, wanted: Wanted, *, run_id: str | None, fence: int = 1
) -> Row:
    """Write the intent: from here on a sandbox with this lease's id may exist."""
    lease = insert_row(
        tx,
        "leases",
        back="number",
        values={
            "id": new_id(),
            "tenant_id": owner["tenant_id"],
            "environment_id": owner["environment_id"],
            "environment_name": wanted.facts["environment"],
            "provider": wanted.facts["provider"],
            "host_id": owner["host_id"],
            "queue": owner["queue"],
            "status": LeaseStatus.ACQUIRING.value,
            "run_id": run_id,
            "policy": wanted.policy.value,
            "scope": wanted.scope,
            "fingerprint": wanted.fingerprint,
            "fence": fence,
            "publishes": 0,
            "retain": False,
            "cleanup_attempts": 0,
            "facts": wanted.facts,
            "created_at": owner["now_us"],
        },
    )
    if pins := wanted.facts.get("secrets"):
        secrets.name_in_lease(tx, lease["id"], tenant_id=lease["tenant_id"], pins=pins)
    return lease


def take_held(tx: Tx, context: Context, job: Job) -> Job | None:
    """Take the lease that the run names; admission has seen that it is idle or retained."""
    run = job.run
    assert run is not None
    lease = leases.lock(tx, run["wanted_lease_id"])
    usable = {LeaseStatus.IDLE, LeaseStatus.RETAINED, LeaseStatus.ACTIVE}
    if lease is None or lease["status"] not in usable:
        status = "gone" if lease is None else lease["status"]
        end = fates.End(
            RunStatus.FAILED, "lease_unavailable", f"the lease that it names is {status}"
        )
        return ending.end_run(tx, context, job, end)
    if lease["status"] == LeaseStatus.ACTIVE:
        busy = fates.RetryInfra("lease_busy", f"lease {lease['id']} is held by another run")
        return ending.follow(tx, context, job, busy, counts=False)
    row = moves.move(
        tx,
        "leases",
        lease["id"],
        LeaseStatus.ACTIVE,
        held=lease,
        active_at=tx.stamp(),
        fence=above(lease, run),
        run_id=run["id"],
        timer_at=None,
        retained_until=lease["timer_at"] if lease["status"] == LeaseStatus.RETAINED else None,
    )
    assert row is not None
    moves.record(
        tx,
        "lease.active",
        tenant_id=run["tenant_id"],
        run_id=run["id"],
        lease_id=row["id"],
    )
    after = moves.move(
        tx,
        "runs",
        run["id"],
        None,
        held=run,
        lease_id=row["id"],
        step=Step.ACQUIRE,
        due_at=None,
    )
    assert after is not None
    after["now_us"] = run["now_us"]
    return Job(step=Step.ACQUIRE, fence=row["fence"], run=after, lease=row, sticky=job.sticky)


def act(context: Context, job: Job) -> Ready | Lost | Trouble:
    """Make the sandbox exist and be ready; the same call whoever died before."""
    lease, run = job.lease, job.run
    assert lease is not None
    provider = context.provider(lease["provider"])
    config = job.config(context)
    budget = Budget(_time_left(context, job), cancelled=interruptions(context, job))
    fence = job.sandbox_fence(context)
    try:
        if lease["status"] == LeaseStatus.ACTIVE:
            target = job.target(context)
            state = provider.inspect(target, budget=budget).state
            if state is SandboxState.GONE:
                return Lost("the sandbox is gone")
            if state is SandboxState.READY:
                with effect("provider.seize"):
                    provider.seize(target, fence=fence, budget=budget)
                return Ready(None)
            # Idle for reuse, or retained when it was so: suspended, and resumed as those are.
        with effect("provider.acquire"):
            sandbox = provider.acquire(
                job.ref(context),
                config,
                known=load(lease["handle"]),
                ttl=leasing.time_to_live(context, lease, now_us=job.now_us),
                fence=fence,
                budget=budget,
            )
        if run is None and (load(lease["facts"]) or {}).get("probe"):
            return _seen(context, job, sandbox, budget)
        return Ready(sandbox)
    except SandboxGoneError as error:
        return Lost(str(error))
    except InterruptedCallError as error:
        return Trouble(error.code, str(error), counts=False)
    except CapacityError as error:
        return Trouble(error.code, str(error), retry_after_s=error.retry_after_s, counts=False)
    except ProviderError as error:
        return Trouble(error.code, str(error), permanent=run is None or not error.retryable)


def _seen(context: Context, job: Job, sandbox: Sandbox, budget: Budget) -> Ready | Trouble:
    """Look into a probe's sandbox: made is not yet ready."""
    target = replace(job.target(context), handle=dict(sandbox.handle))
    assert job.lease is not None
    found = context.provider(job.lease["provider"]).inspect(target, budget=budget)
    if found.state is SandboxState.READY:
        return _with_secrets(context, job, sandbox)
    text = f"the sandbox was made and is {found.state.value}"
    return Trouble("sandbox_not_ready", text, permanent=True)


def _with_secrets(context: Context, job: Job, sandbox: Sandbox) -> Ready | Trouble:
    """Look whether every secret that a probe's place names can be had: runs would need them."""
    lease = job.lease
    assert lease is not None
    try:
        for name in load(lease["facts"]).get("secrets") or {}:
            assert context.vault is not None, "a worker has one"
            context.vault.look_up(lease["tenant_id"], name)
    except SecretUnavailableError as error:
        return Trouble(error.code, str(error), permanent=True)
    return Ready(sandbox)


def _time_left(context: Context, job: Job) -> timedelta:
    run = job.run
    if run is None or run["start_deadline_at"] is None:
        return context.timers.start_timeout
    left = timedelta(microseconds=run["start_deadline_at"] - job.now_us)
    # The deadline may have been written while a wall clock was hours ahead of what it is now.
    return max(min(left, ending.start_timeout(context, job)), context.timers.beat_every)


def record(tx: Tx, context: Context, job: Job, outcome: Ready | Lost | Trouble) -> Job | None:
    """Make the lease active and go on to execute, in one transaction."""
    from leasehold.orchestrator import validate

    run, lease = job.run, job.lease
    assert run is not None
    assert lease is not None
    if isinstance(outcome, Trouble):
        return validate.trouble(tx, context, job, outcome)
    if isinstance(outcome, Lost):
        return _lost(tx, context, job, outcome)
    is_new = lease["status"] != LeaseStatus.ACTIVE
    job.lease = _activate(tx, context, lease, outcome) if outcome.sandbox else lease
    names = ["step.acquire.finished"]
    if is_new:
        names.append("lease.active")
    moves.record(tx, *names, tenant_id=run["tenant_id"], run_id=run["id"], lease_id=lease["id"])
    if job.end_requested:
        return ending.follow(tx, context, job, fates.ended_by(job.end_requested))
    return preparing.enter(tx, context, job)


def _activate(tx: Tx, context: Context, lease: Row, outcome: Ready) -> Row:
    sandbox = outcome.sandbox
    assert sandbox is not None
    row = moves.move(
        tx,
        "leases",
        lease["id"],
        None if lease["status"] == LeaseStatus.ACTIVE else LeaseStatus.ACTIVE,
        held=lease,
        active_at=lease["now_us"],
        **sandbox_columns(context, lease, sandbox),
    )
    assert row is not None
    return row


def sandbox_columns(context: Context, lease: Row, sandbox: Sandbox) -> dict[str, Any]:
    """Return the columns that a ready sandbox fills."""
    facts = dict(load(lease["facts"]))
    facts["acquired"] = sandbox.outcome.value
    facts["sandbox"] = dict(sandbox.metadata)
    ttl = us(leasing.time_to_live(context, lease, now_us=lease["now_us"]))
    return {
        "sandbox_id": sandbox.sandbox_id,
        "handle": dict(sandbox.handle),
        "remote_cwd": sandbox.remote_cwd,
        "facts": facts,
        "renew_at": lease["now_us"] + ttl // 3,
        "sandbox_expires_at": lease["now_us"] + ttl,
    }


def _lost(tx: Tx, context: Context, job: Job, outcome: Lost) -> Job | None:
    """End the lost lease (its release finds it gone) and go on with a replacement."""
    run = job.run
    assert run is not None
    moves.record(
        tx,
        ("step.acquire.failed", {"code": "sandbox_lost", "message": outcome.message}),
        tenant_id=run["tenant_id"],
        run_id=run["id"],
        lease_id=run["lease_id"],
    )
    fate: fates.Fate = fates.RetryInfra("sandbox_lost", outcome.message)
    if job.end_requested:
        fate = fates.ended_by(job.end_requested)
    replace = timedelta(microseconds=1)
    return ending.follow(tx, context, job, fate, sound=False, retry_after=replace, counts=False)


def pause(problem: Trouble) -> timedelta | None:
    """Return how long the provider asked us to wait, if it did."""
    if problem.retry_after_s is None:
        return None
    return timedelta(microseconds=int(problem.retry_after_s * SECOND_US))
