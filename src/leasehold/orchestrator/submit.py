"""
How a run begins: checked, written, admitted if there is room, and sent, in that order.

Only the commit counts. Killed before it: there is no run. Killed after it, before the
publish: the row is due, the clock sends it. An idempotency key makes the request repeatable:
the same key and body give the same run, another body is a conflict.
"""

import hashlib
import json
from dataclasses import dataclass

from leasehold.domain.after import After, as_given
from leasehold.domain.fingerprint import canonical_json
from leasehold.domain.lifecycle import (
    LEASE_ENDS,
    RUN_ENDS,
    EnvironmentStatus,
    LeaseStatus,
    RunStatus,
)
from leasehold.domain.specs import EnvironmentSpec, RunSpec
from leasehold.errors import (
    ConflictError,
    FullError,
    IdempotencyConflictError,
)
from leasehold.ids import new_id
from leasehold.orchestrator import admission, placing, preceding, visiting
from leasehold.orchestrator.jobs import SECOND_US, Context, us
from leasehold.orchestrator.tenants import archived
from leasehold.store import environments, leases, moves, runs, slots
from leasehold.store.database import Row, Tx
from leasehold.store.runs import insert_later, insert_row
from leasehold.store.sql import load


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is asked for: a spec, where, under which key."""

    spec: RunSpec
    environment: str | None = None
    """Name; not given together with `lease_id`."""

    lease_id: str | None = None
    visit: bool = False
    """A person looks into the lease's sandbox: any that is kept, if no run is at work in it."""

    key: str | None = None
    tenant_id: str = "default"
    retry_of: str | None = None
    after: tuple[After, ...] = ()
    """The runs that have to end before it starts."""

    actor: str | None = None
    """Who asks, for the history."""

    admits: bool = True
    """False: the transaction is a stranger's and may stay open for long, so it takes no lock
    that others need; see `admit_written`."""

    def body_hash(self) -> str:
        """Return what must be equal for the same key to mean the same run."""
        body: Row = {
            "spec": self.spec.model_dump(mode="json"),
            "environment": self.environment,
            "lease": self.lease_id,
        }
        if self.after:  # left out otherwise: an older version's key means the same request
            body["after"] = as_given(self.after)
        return hashlib.sha256(canonical_json(body).encode()).hexdigest()


def submit(tx: Tx, context: Context, request: Request) -> tuple[Row, bool]:
    """
    Accept a run; return its row and whether it is new.

    Raises:
        NotFoundError: There is no such environment, lease or run to start after.
        ConflictError: The environment or the tenant is archived; the lease has ended.
        IdempotencyConflictError: The key was used with another body.
        FullError: `max_queued` runs of the tenant wait already.
    """
    if request.key is not None:
        slots.lock_key(tx, tenant_id=request.tenant_id, key=request.key)
        if request.admits:
            slots.lock(tx, wait=True)
        if (known := _by_key(tx, request)) is not None:
            return known, False
    environment, lease = place_of(tx, request)
    placing.check_run(tx, environment, request.spec.requires, names_lease=lease is not None)
    queue = slots.count_queued_and_try(tx, tenant_id=request.tenant_id, try_lock=request.admits)
    check_queue(context, queue, tenant_id=request.tenant_id)
    before = preceding.rows_of(tx, request.after, tenant_id=request.tenant_id)
    row = queued_row(tx, context, request, environment, lease, waits=preceding.waits(before))
    at_once = queue.alone and not queue.queued and not row["waits"]
    event = ("run.queued", by(request.actor) | preceding.said(request.after))
    moves.record(tx, event, tenant_id=row["tenant_id"], run_id=row["id"])
    if lease is None and at_once:
        spec = request.spec
        admitted = admission.admit_new(tx, context, row, environment=environment, spec=spec)
        if admitted is not None:
            row = insert_later(tx, "runs", admitted)
            preceding.write(tx, context, row, before)
            return row, True
    row = insert_later(tx, "runs", row)
    preceding.write(tx, context, row, before)
    if lease is not None and at_once:
        outcome = admission.admit(tx, context, row)
        if not isinstance(outcome, str):
            return runs.decoded(outcome), True
    tx.after_commit.append(context.nudge)
    return row, True


def check_queue(context: Context, queue: slots.Queue, *, tenant_id: str) -> None:
    """
    Refuse a run for which the tenant's queue has no room.

    Raises:
        ConflictError: The tenant is archived, or there is none.
        FullError: As many runs wait as may.
    """
    if not queue.is_open:
        raise archived(tenant_id)
    most = context.max_queued if queue.limit is None else queue.limit
    waiting = queue.queued + queue.preceded
    if waiting >= most:
        raise FullError(
            f"{waiting} runs wait already (max_queued is {most}); try again in 5 s",
            retry_after_s=5.0,
        )


def _by_key(tx: Tx, request: Request) -> Row | None:
    assert request.key is not None
    row = runs.find_by_key(tx, tenant_id=request.tenant_id, key=request.key)
    if row is None:
        return None
    check_same(request, row)
    return runs.decoded(row)


def check_same(request: Request, known: Row) -> None:
    """
    Check that a run which used a request's key was asked for with the same body.

    Raises:
        IdempotencyConflictError: It was another one.
    """
    if known["body_hash"] != request.body_hash():
        raise IdempotencyConflictError(
            f"key {request.key!r} was used for run {known['id']} with another body"
        )


def place_of(tx: Tx, request: Request) -> tuple[Row, Row | None]:
    """
    Return the environment of a run, and the lease that it names.

    Raises:
        NotFoundError: There is no such environment or lease.
        ConflictError: The environment is archived; the lease has ended.
    """
    if request.lease_id is not None:
        lease = leases.get(tx, request.lease_id, tenant_id=request.tenant_id)
        if request.visit:
            visiting.check(tx, lease)
        else:
            _check_held(lease)
        row = environments.find(tx, lease["environment_id"])
        if row is None:
            row = {"id": lease["environment_id"], "provider": lease["provider"]}
        return row, lease
    assert request.environment is not None
    environment = environments.get(tx, request.environment, tenant_id=request.tenant_id)
    check_active(environment)
    return environment, None


def check_active(environment: Row) -> None:
    """
    Refuse an environment that takes no runs.

    Raises:
        ConflictError: It is archived.
    """
    if environment["status"] != EnvironmentStatus.ACTIVE:
        raise ConflictError(f"environment {environment['name']} is archived")


def _check_held(lease: Row) -> None:
    usable = {LeaseStatus.IDLE, LeaseStatus.ACTIVE, LeaseStatus.ACQUIRING}
    if lease["status"] not in usable or lease["held_until"] is None:
        ended = lease["status"] in LEASE_ENDS
        why = f"is {lease['status']}" if ended or lease["held_until"] else "is not held"
        hint = (
            "`leasehold exec` looks into it" if lease["status"] == LeaseStatus.RETAINED else ""
        )
        raise ConflictError(f"lease {lease['id']} {why}: {hint or 'no run can use it'}")


def queued_row(
    tx: Tx,
    context: Context,
    request: Request,
    environment: Row,
    lease: Row | None,
    *,
    waits: int,
) -> Row:
    """Return the run as a queued one; nothing is written yet."""
    spec, now, timers = request.spec, tx.stamp(), context.timers
    queue_by = now + _us(spec.queue_timeout_s, us(timers.queue_timeout))
    deadline = now + _us(spec.deadline_s, us(timers.deadline))
    return {
        "id": new_id(),
        "tenant_id": request.tenant_id,
        "environment_id": environment["id"],
        "provider": environment["provider"],
        "status": RunStatus.QUEUED.value,
        "spec": spec.model_dump(mode="json"),
        "labels": spec.labels,
        "requires": canonical_json(spec.requires) if spec.requires else None,
        "priority": spec.priority,
        "wanted_lease_id": lease["id"] if lease else None,
        "fence": 0,
        "publishes": 0,
        "beat": False,
        # In the queue it is once nothing precedes it.
        "timer_at": deadline if waits else min(queue_by, deadline),
        "queue_deadline_at": None if waits else queue_by,
        "deadline_at": deadline,
        "attempt": 0,
        "infra_attempts": 0,
        "starts": 0,
        "command_index": 0,
        "retry_of": request.retry_of,
        "idempotency_key": request.key,
        "workspace": spec.workspace,
        "blob": spec.blob(),
        "body_hash": request.body_hash() if request.key else None,
        "created_at": now,
        "waits": waits,
        "awaited": False,
    }


def by(actor: str | None) -> Row:
    """Return the data of an event: who did it, if that was said."""
    return {"actor": actor} if actor else {}


def _us(seconds: float | None, default: int) -> int:
    return default if seconds is None else int(seconds * SECOND_US)


def retry(
    tx: Tx, context: Context, run: Row, *, key: str | None = None, actor: str | None = None
) -> tuple[Row, bool]:
    """
    Submit a new run that names an old one (P8: the old one stays as it is).

    Raises:
        ConflictError: The old run is not over.
    """
    if run["status"] not in RUN_ENDS:
        raise ConflictError(f"run {run['id']} is {run['status']}; only an ended one is retried")
    request = Request(
        spec=RunSpec.model_validate(load(run["spec"])),
        environment=run["environment_id"],
        key=key,
        tenant_id=run["tenant_id"],
        retry_of=run["id"],
        actor=actor,
    )
    return submit(tx, context, request)


def resume(tx: Tx, context: Context, run_id: str, *, actor: str | None = None) -> Row:
    """
    Send a parked run back to the queue, its infrastructure attempts forgiven.

    Raises:
        ConflictError: It is not parked.
    """
    run = runs.lock(tx, run_id)
    assert run is not None
    now = run["now_us"]
    queue_by = now + us(context.timers.queue_timeout)
    row = None
    if run["status"] == RunStatus.PARKED:
        row = moves.move(
            tx,
            "runs",
            run_id,
            RunStatus.QUEUED,
            raw=("fence = fence + 1",),
            infra_attempts=0,
            queue_deadline_at=queue_by,
            timer_at=min(queue_by, run["deadline_at"]),
            code=None,
            message=None,
        )
    if row is None:
        raise ConflictError(f"run {run_id} is {run['status']}, not parked")
    moves.record(tx, ("run.queued", by(actor)), tenant_id=row["tenant_id"], run_id=run_id)
    if slots.lock(tx, wait=False):
        admission.admit(tx, context, row)
    tx.after_commit.append(context.nudge)
    after = runs.find(tx, run_id)
    assert after is not None
    return after


def ensure_environment(
    tx: Tx, spec: EnvironmentSpec, *, tenant_id: str, actor: str | None = None
) -> Row:
    """
    Return the environment of this name, made on first use.

    Raises:
        BadInputError: No host has ever served its provider; names those that there are.
    """
    row = environments.find_by_name(tx, spec.name, tenant_id=tenant_id)
    if row is None:
        slots.lock(tx, wait=True)  # of two that see none, one makes it
        row = environments.find_by_name(tx, spec.name, tenant_id=tenant_id)
    return row or create_environment(tx, spec, tenant_id=tenant_id, actor=actor)


def create_environment(
    tx: Tx, spec: EnvironmentSpec, *, tenant_id: str, actor: str | None = None
) -> Row:
    """
    Save a new environment, its config checked against the advertised schema.

    Raises:
        ConflictError: The name is taken.
        BadInputError: The provider is unknown, or the config does not fit its schema.
    """
    slots.lock(tx, wait=True)  # of two of the same name, one is refused in these words
    if environments.find_by_name(tx, spec.name, tenant_id=tenant_id) is not None:
        raise ConflictError(f"environment {spec.name} exists already")
    placing.check_place(tx, spec)
    now = tx.now()
    row = insert_row(
        tx,
        "environments",
        {
            "id": new_id(),
            "tenant_id": tenant_id,
            "name": spec.name,
            "status": EnvironmentStatus.ACTIVE.value,
            "provider": spec.provider,
            "spec": json.loads(spec.model_dump_json()),
            "max_concurrent": spec.limits.max_concurrent,
            "created_at": now,
            "updated_at": now,
        },
    )
    event = ("environment.active", {"environment": spec.name, **by(actor)})
    moves.record(tx, event, tenant_id=tenant_id)
    return environments.get(tx, row["id"], tenant_id=tenant_id)
