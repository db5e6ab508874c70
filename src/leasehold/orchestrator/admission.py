"""
Which queued run may start, and where.

Slots are counted from live leases plus admitted runs that have none yet, never from counters,
and under one lock wherever a limit applies. Order: priority (with ageing), then fairly across
tenants, then age. `reason` says with the same predicates why a run waits.

What a run and its environment require of a host (`placing`) is asked of the hosts as they are
now. What is admitted stays where it was sent, whatever labels its host has later.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from leasehold.domain.fingerprint import reuse_scope
from leasehold.domain.lifecycle import (
    LeaseStatus,
    RunStatus,
    Step,
)
from leasehold.domain.specs import EnvironmentSpec, RunSpec
from leasehold.orchestrator import ending, leasing, placing
from leasehold.orchestrator.jobs import Context, Message, send, us
from leasehold.provider.contract import ReleaseMode
from leasehold.store import environments, hosts, leases, moves, predecessors, slots
from leasehold.store.database import Row, Tx
from leasehold.store.sql import load

AGEING_US: Final = 10 * 60 * 1_000_000
"""A queued run gains one priority for each ten minutes that it waits."""

_SCAN: Final = 100
_OWN_LIMIT: Final = "environment"
_HOSTS: Final = "every host"
_WORKSPACE: Final = "workspace"


class Full(str):
    """A reason to wait that a slot changes which becomes free; an idle lease may hold it."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Place:
    """Where an admitted run goes."""

    queue: str
    host_id: str | None


def place(
    tx: Tx,
    context: Context,
    environment: Row,
    spec: EnvironmentSpec,
    *,
    scope: str | None = None,
    requires: Mapping[str, str] | None = None,
) -> Place | str:
    """
    Choose where a sandbox of this environment may be made now, or say why nowhere.

    Args:
        scope: In which an idle one may be reused; it needs no slot of its own.
        requires: What its host must have; by default what the environment requires.
    """
    requires = spec.requires if requires is None else requires
    serving = hosts.served(tx, spec.provider)
    if not serving:
        return _not_served(tx, spec.provider)
    fitting = placing.fitting(tx, requires)
    if fitting is not None:
        if not serving[0]["host_bound"]:
            return placing.Nowhere(placing.unbound(spec.provider, requires))
        there = [row for row in serving if row["host_id"] in fitting]
        if not there:
            return placing.nowhere(tx, spec.provider, requires, serving)
        serving = there
    if why := _full(tx, context, environment, spec, scope=scope, fitting=fitting):
        return why
    if not serving[0]["host_bound"]:
        capacity = serving[0]["provider_capacity"]
        if capacity and slots.taken(tx, "provider = :p", p=spec.provider) >= capacity:
            return Full(f"provider {spec.provider} is full: {capacity} of {capacity}")
        return Place(queue=f"leasehold.provider.{spec.provider}", host_id=None)
    return _choose_host(tx, environment, spec, serving, scope=scope)


def _choose_host(
    tx: Tx, environment: Row, spec: EnvironmentSpec, serving: list[Row], *, scope: str | None
) -> Place | str:
    there = [row["host_id"] for row in serving]
    used = slots.by_host(tx, there, environment_id=environment["id"], scope=scope)
    best: tuple[int, float, str] | None = None
    total = 0
    for row in serving:
        capacity = min(row["capacity"], row["provider_capacity"] or row["capacity"])
        total += capacity
        use = used.get(row["host_id"])
        count, idle, coming = (
            (int(use["n"]), int(use["idle"]), int(use["coming"])) if use else (0, 0, 0)
        )
        if with_one_more(count, idle=idle, coming=coming) > capacity:
            continue
        score = (-int(idle > coming), count / capacity, row["host_id"])
        best = min(best, score) if best else score
    if best is None:
        return Full(f"{_HOSTS} that serves {spec.provider} is full: {total} of {total}")
    return Place(queue=f"leasehold.host.{best[2]}", host_id=best[2])


def with_one_more(taken: int, *, idle: int, coming: int) -> int:
    """
    Return the slots that are taken once one more run of a scope is admitted.

    Args:
        taken: Live leases, and admitted runs that have none yet.
        idle: Those of the leases that such a run may reuse.
        coming: Those of the runs that may be on their way to one of them.
    """
    return taken + 1 - min(idle, coming + 1)


def _not_served(tx: Tx, key: str) -> str:
    there = [row for row in hosts.providers(tx) if row["key"] == key]
    if not there:
        known = ", ".join(hosts.known_keys(tx)) or "none"
        return f"no host has ever served provider {key}; known: {known}"
    live = [row for row in there if row["live"]]
    if not live:
        return f"no live host serves provider {key}"
    return f"provider {key} is not ready: {live[0]['summary'] or live[0]['health']}"


def _full(
    tx: Tx,
    context: Context,
    environment: Row,
    spec: EnvironmentSpec,
    *,
    scope: str | None,
    fitting: Sequence[str] | None,
) -> str | None:
    limit = spec.limits.max_concurrent
    if limit is not None:
        used = slots.taken(tx, "environment_id = :e", e=environment["id"])
        idle, coming = slots.for_reuse(
            tx, environment_id=environment["id"], scope=scope, hosts=fitting
        )
        if with_one_more(used, idle=idle, coming=coming) > limit:
            return Full(f"{_OWN_LIMIT} {spec.name} is full: {used} of {limit}")
    own = environment["tenant_max_concurrent"]
    most = context.max_per_tenant if own is None else own
    if most is not None:
        used = slots.taken(tx, "tenant_id = :t", t=environment["tenant_id"])
        if used >= most:
            return f"the tenant's limit is reached: {used} of {most}"
    if context.max_concurrent is not None:
        used = slots.taken(tx, "1 = 1")
        if used >= context.max_concurrent:
            return Full(f"the deployment is full: {used} of {context.max_concurrent}")
    return None


def reason(tx: Tx, context: Context, run: Row) -> str | None:
    """Say why a queued run is not admitted now, or None if nothing stands in its way."""
    where = _where(tx, context, run, None)
    return where if isinstance(where, str) else None


def _where(tx: Tx, context: Context, run: Row, environment: Row | None) -> Place | str:
    if run["waits"]:
        return _preceded(tx, run)
    if why := _worked_on(tx, run):
        return why
    if run["wanted_lease_id"]:
        return _held(tx, run)
    environment = environment or environments.find(tx, run["environment_id"])
    if environment is None:
        return "its environment was deleted"
    spec = EnvironmentSpec.model_validate(load(environment["spec"]))
    scope = _scope(run, spec)
    if run["workspace"] and scope and (lease := slots.coming_to_rest(tx, scope=scope)):
        return f"{_WORKSPACE} {run['workspace']} is being put to rest in lease {lease}"
    requires = placing.both(spec.requires, run)
    if isinstance(requires, str):
        return requires
    found = place(tx, context, environment, spec, scope=scope, requires=requires)
    if not isinstance(found, str) or scope is None:
        return found
    # An idle lease of its scope may serve it although every slot is taken.
    there = placing.fitting(tx, requires)
    free, coming = slots.for_reuse(
        tx, environment_id=run["environment_id"], scope=scope, hosts=there
    )
    idle = slots.reusable(tx, scope=scope, hosts=there) if free > coming else None
    return Place(queue=idle["queue"], host_id=idle["host_id"]) if idle else found


def _preceded(tx: Tx, run: Row) -> str:
    """Say which runs have to end before this one may start."""
    left = [row for row in predecessors.of_run(tx, run["id"]) if row["settled_at"] is None]
    first = left[0]
    needs = {"any": "ends", "failed": "fails"}.get(first["outcome"], "succeeds")
    others = f" and {len(left) - 1} more" if left[1:] else ""
    now = first["ended"] or first["status"] or "gone"
    return f"it starts after run {first['after_id']} {needs}{others}; that is {now}"


def _scope(run: Row, spec: EnvironmentSpec) -> str | None:
    """Return in which scope a run may reuse an idle lease; None: in none."""
    workspace = load(run["spec"]).get("workspace")
    return reuse_scope(spec.policy, environment_id=run["environment_id"], workspace=workspace)


def _worked_on(tx: Tx, run: Row) -> str | None:
    """Say that another run works on this run's workspace: they take turns."""
    if run["workspace"] is None:
        return None
    by = slots.worker_on(tx, tenant_id=run["tenant_id"], workspace=run["workspace"])
    return by and f"{_WORKSPACE} {run['workspace']} is in use by run {by}"


def _held(tx: Tx, run: Row) -> Place | str:
    lease = leases.find(tx, run["wanted_lease_id"])
    if lease is None or leasing.is_over(lease):
        return Place(queue=lease["queue"] if lease else "leasehold", host_id=None)
    busy = slots.user_of(tx, run["wanted_lease_id"])
    if busy or lease["status"] not in {LeaseStatus.IDLE, LeaseStatus.RETAINED}:
        by = busy["id"] if busy else lease["status"]
        return f"lease {lease['id']} is not free: {by}"
    return Place(queue=lease["queue"], host_id=lease["host_id"])


def admit(tx: Tx, context: Context, run: Row, *, environment: Row | None = None) -> Row | str:
    """Admit one queued run and return its row, or return why not."""
    where = _where(tx, context, run, environment)
    if isinstance(where, str):
        return where
    if run["wanted_lease_id"] and _is_over(tx, run["wanted_lease_id"]):
        words = "the lease that it names has ended"
        ending.fail_queued(tx, context, run, "lease_unavailable", words)
        return run
    spec = RunSpec.model_validate(load(run["spec"]))
    row = moves.move(
        tx,
        "runs",
        run["id"],
        RunStatus.RUNNING,
        **_admitted(tx, context, run, where, spec),
    )
    if row is None:
        return "not queued any more"
    _begin(tx, context, row)
    return row


def admit_new(
    tx: Tx, context: Context, run: Row, *, environment: Row, spec: RunSpec
) -> Row | None:
    """Return a run that is not written yet as an admitted one; None if it has to wait."""
    where = _where(tx, context, run, environment)
    if isinstance(where, str):
        return None
    admitted = {"status": RunStatus.RUNNING.value}
    row = run | admitted | _admitted(tx, context, run, where, spec)
    _begin(tx, context, row)
    return row


def _admitted(tx: Tx, context: Context, run: Row, where: Place, spec: RunSpec) -> Row:
    """Return the columns of a run that goes to this place."""
    now = tx.stamp()
    start_us = int((spec.start_timeout_s or 0) * 1_000_000) or us(context.timers.start_timeout)
    return {
        "fence": run["fence"] + 1,
        "step": Step.VALIDATE.value,
        "queue": where.queue,
        "host_id": where.host_id,
        "admitted_at": now,
        "due_at": now + us(context.timers.republish_base),
        "publishes": 1,
        "queue_deadline_at": None,
        "start_deadline_at": now + start_us,
        "timer_at": min(run["deadline_at"], now + start_us),
        "code": None,
        "message": None,
    }


def _begin(tx: Tx, context: Context, row: Row) -> None:
    """Write down that a run is admitted, and send it once that is certain."""
    moves.record(
        tx,
        ("run.running", {"queue": row["queue"]}),
        tenant_id=row["tenant_id"],
        run_id=row["id"],
    )
    message = Message("run", row["id"], row["fence"], Step.VALIDATE, row["queue"])
    tx.after_commit.append(lambda: send(context, message))


def _is_over(tx: Tx, lease_id: str) -> bool:
    lease = leases.find(tx, lease_id)
    return lease is None or leasing.is_over(lease)


def admit_batch(tx: Tx, context: Context, *, limit: int) -> int:
    """
    Admit queued runs in order while the limits allow; the caller holds the lock.

    An environment (or lease, or workspace) that cannot take one more is passed over for the
    rest of the batch, so that a full one never blocks the others; what is required of hosts
    counts too.
    """
    admitted = 0
    stuck: set[str] = set()
    busy: set[str] = set()
    evicted: set[str] = set()
    while admitted < limit:
        rows = slots.queue_head(tx, stuck, busy=busy, ageing_us=AGEING_US, limit=_SCAN)
        if not rows:
            break
        for run in rows:
            key = placing.key_of(run)
            workspace = f"{run['tenant_id']}/{run['workspace']}"
            if key in stuck or workspace in busy:
                continue
            outcome = admit(tx, context, run)
            if not isinstance(outcome, str):
                admitted += 1
            elif outcome.startswith(f"{_WORKSPACE} "):
                busy.add(workspace)  # the others of its environment need not wait for it
            else:
                stuck.add(key)
                if key not in evicted and isinstance(outcome, Full):
                    evicted.add(key)
                    _evict(tx, context, run, why=outcome)
        if len(rows) < _SCAN:
            break
    return admitted


def _evict(tx: Tx, context: Context, run: Row, *, why: str) -> None:
    """
    Make room: end the idle lease that this run cannot use and that has the least time left.

    For the environment's own limit only one of its own helps: of another workspace, or on a
    host that will not do; for full hosts only one that is on one of them.
    """
    environment = environments.find(tx, run["environment_id"])
    if environment is None:
        return
    spec = EnvironmentSpec.model_validate(load(environment["spec"]))
    requires = placing.both(spec.requires, run)
    fitting = None if isinstance(requires, str) else placing.fitting(tx, requires)
    elsewhere, params = slots.on_hosts(fitting, negated=True)
    other = f"(environment_id <> :e OR scope <> :scope OR {elsewhere})"
    if why.startswith(_OWN_LIMIT):
        other = f"environment_id = :e AND (scope <> :scope OR {elsewhere})"
    elif why.startswith(_HOSTS):
        other += f" AND {slots.on_hosts(fitting)[0]}"
    idle = leases.oldest_idle(
        tx,
        where=f"provider = :p AND {other}",
        limit=1,
        p=environment["provider"],
        e=run["environment_id"],
        scope=_scope(run, spec) or "",
        **params,
    )
    for lease in idle:
        what = leasing.Disposal(ReleaseMode.DESTROY, LeaseStatus.RELEASED, "evicted")
        leasing.owe(tx, context, lease, what, sticky=False)
