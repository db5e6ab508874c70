"""
Leases that people hold: created on their own, released, retained or destroyed by hand.

A lease on its own takes the same road as a run's (intent, provider, record), only that it
ends up `idle` with `held_until`, in which it matches no reuse and is never evicted.
"""

import hashlib
from dataclasses import dataclass
from datetime import timedelta

from leasehold.domain.fingerprint import canonical_json, fingerprint
from leasehold.domain.lifecycle import (
    LEASE_ENDS,
    EnvironmentStatus,
    LeasePolicy,
    LeaseStatus,
    RunStatus,
    Step,
    TenantStatus,
)
from leasehold.domain.secrets import names_in
from leasehold.domain.specs import EnvironmentSpec, plain_env
from leasehold.errors import BadInputError, ConflictError, IdempotencyConflictError
from leasehold.orchestrator import acquire, admission, leasing
from leasehold.orchestrator.jobs import Context, Job, Message, Trouble, send, us
from leasehold.orchestrator.tenants import archived
from leasehold.provider.contract import ReleaseMode
from leasehold.store import environments, hosts, leases, moves, runs, secrets, slots
from leasehold.store.database import Row, Tx
from leasehold.store.sql import load


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What somebody asks for who wants a sandbox of their own."""

    environment: str
    """Its name or id."""

    hold_for: timedelta
    tenant_id: str
    key: str | None = None
    """An idempotency key: the same key and request are the same lease."""

    def body_hash(self) -> str:
        """Return what must be equal for the same key to mean the same lease."""
        body = {"environment": self.environment, "ttl_s": self.hold_for.total_seconds()}
        return hashlib.sha256(canonical_json(body).encode()).hexdigest()


def ask(tx: Tx, context: Context, request: Request) -> tuple[Row, bool]:
    """
    Make a lease that somebody holds; return its row and whether it is new.

    A key finds its lease whatever has become of that, and until retention deletes it.

    Raises:
        NotFoundError: There is no such environment; says which there are.
        ConflictError: The environment is archived, or no host can take it now.
        IdempotencyConflictError: The key was used with another request.
        BadInputError: `hold_for` is not above zero.
    """
    tenant_id, key = request.tenant_id, request.key
    if key is not None:
        slots.lock_key(tx, tenant_id=tenant_id, key=f"lease:{key}")
        known = leases.find_by_key(tx, tenant_id=tenant_id, key=key)
        if known is not None and known["body_hash"] != request.body_hash():
            raise IdempotencyConflictError(
                f"key {key!r} was used for lease {known['id']} with another body"
            )
        if known is not None:
            return known, False
    environment = environments.get(tx, request.environment, tenant_id=tenant_id)
    row = hold(tx, context, environment, hold_for=request.hold_for)
    if key is not None:
        keyed = moves.move(
            tx,
            "leases",
            row["id"],
            None,
            idempotency_key=key,
            body_hash=request.body_hash(),
        )
        assert keyed is not None, "it was written just now"
        row = keyed
    return row, True


def hold(tx: Tx, context: Context, environment: Row, *, hold_for: timedelta) -> Row:
    """
    Make a lease of an environment that somebody holds, with the provider as it is served now.

    Raises:
        ConflictError: The environment is archived, or no host can take it now.
        BadInputError: `hold_for` is not above zero.
    """
    if environment["status"] != EnvironmentStatus.ACTIVE:
        raise ConflictError(f"environment {environment['name']} is archived")
    spec = EnvironmentSpec.model_validate(load(environment["spec"]))
    serving = hosts.served(tx, spec.provider)
    version = serving[0]["version"] if serving else ""
    key = fingerprint(
        tenant_id=environment["tenant_id"],
        provider=spec.provider,
        provider_version=version,
        config=spec.config,
        secret_versions={},
        scope=f"environment:{environment['id']}",
    )
    return create(tx, context, environment, hold_for=hold_for, version=version, key=key)


def create(
    tx: Tx, context: Context, environment: Row, *, hold_for: timedelta, version: str, key: str
) -> Row:
    """
    Insert a held lease and send it to a host that serves its provider.

    Raises:
        ConflictError: Its tenant is archived, or no host can take it now.
        BadInputError: `hold_for` is not above zero.
    """
    if environment["tenant_status"] != TenantStatus.ACTIVE:
        raise archived(environment["tenant_id"])
    if hold_for <= timedelta(0):
        raise BadInputError("ttl: must be above zero", field="ttl")
    spec = EnvironmentSpec.model_validate(load(environment["spec"]))
    slots.lock(tx, wait=True)
    place = admission.place(tx, context, environment, spec)
    if isinstance(place, str):
        raise ConflictError(f"no sandbox can be made now: {place}")
    wanted = acquire.Wanted(
        policy=LeasePolicy(spec.policy),
        scope=None,
        fingerprint=key,
        facts={
            "v": 1,
            "provider": spec.provider,
            "provider_version": version,
            "config": spec.config,
            "environment": spec.name,
            "environment_env": plain_env(spec.env),
            "scope": None,
        },
    )
    named = {*names_in(spec.config), *names_in(plain_env(spec.env))}
    if named:
        # What no row has may come from another source: its worker looks there.
        there = secrets.current(tx, tenant_id=environment["tenant_id"], names=sorted(named))
        wanted.facts["secrets"] = dict.fromkeys(sorted(named), 0) | there
    owner = {
        "tenant_id": environment["tenant_id"],
        "environment_id": environment["id"],
        "host_id": place.host_id,
        "queue": place.queue,
        "now_us": tx.now(),
    }
    lease = acquire.insert_lease(tx, owner, wanted, run_id=None)
    wait = us(context.timers.republish_base)
    row = moves.move(
        tx,
        "leases",
        lease["id"],
        None,
        raw=(f"due_at = {{now}} + {wait}", f"held_until = {{now}} + {us(hold_for)}"),
        publishes=1,
    )
    assert row is not None
    moves.record(tx, "lease.acquiring", tenant_id=row["tenant_id"], lease_id=row["id"])
    message = Message("lease", row["id"], row["fence"], Step.ACQUIRE, row["queue"])
    tx.after_commit.append(lambda: send(context, message))
    return row


def record_acquired(
    tx: Tx, context: Context, job: Job, outcome: "acquire.Ready | acquire.Lost | Trouble"
) -> Job | None:
    """Write what came of creating a held lease: idle, or owed destruction."""
    lease = job.lease
    assert lease is not None
    if isinstance(outcome, acquire.Ready) and outcome.sandbox is not None:
        row = moves.move(
            tx,
            "leases",
            lease["id"],
            LeaseStatus.IDLE,
            claimed_by=None,
            timer_at=lease["held_until"],
            active_at=lease["now_us"],
            **acquire.sandbox_columns(context, lease, outcome.sandbox),
        )
        assert row is not None
        moves.record(
            tx,
            "step.acquire.finished",
            "lease.idle",
            tenant_id=row["tenant_id"],
            lease_id=row["id"],
        )
        tx.after_commit.append(context.nudge)
        return None
    problem = outcome if isinstance(outcome, Trouble) else Trouble("sandbox_lost", "gone")
    data = {"code": problem.code, "message": problem.message}
    moves.record(
        tx, ("step.acquire.failed", data), tenant_id=lease["tenant_id"], lease_id=lease["id"]
    )
    what = leasing.Disposal(
        ReleaseMode.DESTROY, LeaseStatus.FAILED, f"{problem.code}: {problem.message}"
    )
    return leasing.owe(tx, context, lease, what, sticky=job.sticky)


def give_back(tx: Tx, context: Context, lease_id: str, *, actor: str) -> Row:
    """
    Release or destroy a lease by hand: for both the sandbox is removed, nothing is kept.

    Raises:
        ConflictError: A run uses it.
    """
    lease = leases.lock(tx, lease_id)
    assert lease is not None
    if lease["status"] in LEASE_ENDS or lease["status"] == LeaseStatus.RELEASING:
        return lease
    of_run = lease["status"] == LeaseStatus.ACQUIRING and lease["run_id"] is not None
    if lease["status"] == LeaseStatus.ACTIVE or of_run or lease["claimed_by"]:
        raise ConflictError(f"lease {lease_id} is in use by run {lease['run_id']}; cancel that")
    what = leasing.Disposal(ReleaseMode.DESTROY, LeaseStatus.RELEASED, f"asked by {actor}")
    _owe_now(tx, context, lease, what)
    return _again(tx, lease_id)


def retain(tx: Tx, context: Context, lease_id: str, *, actor: str | None = None) -> Row:
    """
    Keep a lease's sandbox for a person: at once if it is idle, else when its run ends.

    Both go by way of `releasing`: only a worker can push the sandbox's own time to live on,
    which would end long before the lease does.

    Raises:
        ConflictError: It is over already.
    """
    lease = leases.lock(tx, lease_id)
    assert lease is not None
    match LeaseStatus(lease["status"]):
        case LeaseStatus.IDLE:
            moves.move(tx, "leases", lease_id, None, held_until=None)
            why = f"asked for by {actor}" if actor else "asked for"
            what = leasing.Disposal(ReleaseMode.KEEP, LeaseStatus.RETAINED, why)
            _owe_now(tx, context, lease, what)
        case LeaseStatus.ACTIVE | LeaseStatus.ACQUIRING:
            moves.move(tx, "leases", lease_id, None, retain=True)
            if actor and not lease["retain"]:
                event = ("lease.retain_requested", {"actor": actor})
                moves.record(tx, event, tenant_id=lease["tenant_id"], lease_id=lease_id)
        case LeaseStatus.RETAINED:
            pass
        case LeaseStatus.RELEASING if lease["mode"] == ReleaseMode.KEEP:
            pass
        case _:
            raise ConflictError(f"lease {lease_id} is {lease['status']}")
    return _again(tx, lease_id)


def expire(tx: Tx, context: Context, lease: Row) -> None:
    """End an idle, retained or held lease whose time is over."""
    what = leasing.Disposal(ReleaseMode.DESTROY, LeaseStatus.EXPIRED, "its time is over")
    _owe_now(tx, context, lease, what)


def _owe_now(tx: Tx, context: Context, lease: Row, what: leasing.Disposal) -> None:
    leasing.owe(tx, context, lease, what, sticky=False)
    _wake_waiting(tx, context, lease["id"])


def _wake_waiting(tx: Tx, context: Context, lease_id: str) -> None:
    """A queued run that names this lease must be told that it will never come."""
    waiting = tx.all(
        "SELECT id FROM runs WHERE wanted_lease_id = :lease AND status = :queued",
        lease=lease_id,
        queued=RunStatus.QUEUED.value,
    )
    if waiting:
        tx.after_commit.append(context.nudge)


def _again(tx: Tx, lease_id: str) -> Row:
    row = leases.find(tx, lease_id)
    assert row is not None
    return runs.decoded(row)
