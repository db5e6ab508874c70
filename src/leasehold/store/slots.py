"""SQL of admission: who holds slots, who waits, under which lock."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from leasehold.domain.lifecycle import LEASE_HOLDS_SLOT, LeaseStatus, TenantStatus
from leasehold.store.columns import among
from leasehold.store.database import Row, Tx
from leasehold.store.sql import numbered

LOCK: Final = 8_472_001
_KEYS: Final = 8_472_002
"""The space of the locks of idempotency keys."""

_HOLDS = among(LEASE_HOLDS_SLOT | {LeaseStatus.IDLE})
_COMING: Final = "status = 'running' AND lease_id IS NULL AND wanted_lease_id IS NULL"
"""An admitted run that has no lease yet, and will make one or reuse one."""


def lock(tx: Tx, *, wait: bool) -> bool:
    """Take the admission lock until the transaction ends; SQLite's writer has it anyway."""
    if tx.dialect == "sqlite":
        return True
    if wait:
        tx.value("SELECT pg_advisory_xact_lock(:key)", key=LOCK)
        return True
    return bool(tx.value("SELECT pg_try_advisory_xact_lock(:key)", key=LOCK))


def lock_key(tx: Tx, *, tenant_id: str, key: str) -> None:
    """
    Wait until no other transaction makes a run of this idempotency key.

    A lock of each key's own, taken before the admission lock: the transaction may be a
    stranger's, and stay open for as long as he likes.
    """
    if tx.dialect == "postgresql":
        tx.value(
            "SELECT pg_advisory_xact_lock(CAST(:space AS int), hashtext(:name))",
            space=_KEYS,
            name=f"{tenant_id}/{key}",
        )


def lock_keys(tx: Tx, keys: Sequence[str], *, tenant_id: str) -> None:
    """Lock many keys as `lock_key` does, in an order of their own."""
    if tx.dialect == "postgresql" and keys:
        names, params = numbered("n", [f"{tenant_id}/{key}" for key in keys])
        tx.value(
            "SELECT count(pg_advisory_xact_lock(CAST(:space AS int), h)) FROM"
            " (SELECT DISTINCT hashtext(n) AS h"
            f" FROM unnest(CAST(ARRAY[{names}] AS text[])) AS n ORDER BY h) AS sorted",
            space=_KEYS,
            **params,
        )


def taken(tx: Tx, where: str, **params: object) -> int:
    """Count slots: live leases, and admitted runs that have no lease yet."""
    count = tx.value(
        f"SELECT (SELECT count(*) FROM leases WHERE status IN ({_HOLDS}) AND {where})"
        f" + (SELECT count(*) FROM runs WHERE {_COMING} AND {where})",
        **params,
    )
    return int(count)


def by_host(
    tx: Tx, host_ids: list[str], *, environment_id: str, scope: str | None
) -> dict[str, Row]:
    """
    Count on each host the slots taken (`n`) and what a run of this scope may reuse.

    Returns by host id: `n`, `idle` (idle leases of the scope), `coming` (admitted runs of
    the environment that have no lease yet, and may take one of those).
    """
    names, params = numbered("h", host_ids)
    rows = tx.all(
        "SELECT host_id, SUM(n) AS n, SUM(idle) AS idle, SUM(coming) AS coming FROM ("
        "SELECT host_id, count(*) AS n, SUM(CASE WHEN status = 'idle' AND scope = :scope"
        " AND held_until IS NULL THEN 1 ELSE 0 END) AS idle, 0 AS coming FROM leases"
        f" WHERE status IN ({_HOLDS}) AND host_id IN ({names}) GROUP BY host_id UNION ALL"
        " SELECT host_id, count(*), 0, SUM(CASE WHEN environment_id = :env THEN 1 ELSE 0 END)"
        f" FROM runs WHERE {_COMING} AND host_id IN ({names}) GROUP BY host_id"
        ") t GROUP BY host_id",
        env=environment_id,
        scope=scope or "",
        **params,
    )
    return {row["host_id"]: row for row in rows}


def on_hosts(host_ids: Sequence[str] | None, *, negated: bool = False) -> tuple[str, Row]:
    """Return a condition on a lease's host and its values; None: any host will do."""
    if host_ids is None:
        return ("1 = 0" if negated else "1 = 1"), {}
    names, params = numbered("at", list(host_ids)) if host_ids else ("''", {})
    return f"host_id {'NOT IN' if negated else 'IN'} ({names})", params


def for_reuse(
    tx: Tx, *, environment_id: str, scope: str | None, hosts: Sequence[str] | None = None
) -> tuple[int, int]:
    """
    Count idle leases of the scope, and admitted runs that may be on their way to one.

    Args:
        hosts: Only of those that are there.
    """
    if scope is None:
        return 0, 0
    there, params = on_hosts(hosts)
    row = tx.one(
        "SELECT (SELECT count(*) FROM leases WHERE status = 'idle' AND scope = :scope"
        f" AND held_until IS NULL AND {there}) AS idle,"
        f" (SELECT count(*) FROM runs WHERE {_COMING} AND environment_id = :e AND {there})"
        " AS coming",
        e=environment_id,
        scope=scope,
        **params,
    )
    assert row is not None
    return int(row["idle"]), int(row["coming"])


def reusable(tx: Tx, *, scope: str, hosts: Sequence[str] | None = None) -> Row | None:
    """Return an idle lease of the scope, on a host that lives and will do."""
    there, params = on_hosts(hosts)
    return tx.one(
        f"SELECT queue, host_id FROM leases WHERE status = 'idle' AND scope = :scope"
        f" AND {there} AND held_until IS NULL AND (host_id IS NULL OR EXISTS"
        " (SELECT 1 FROM sessions s WHERE s.host_id = leases.host_id AND s.status = 'live'))"
        " LIMIT 1",
        scope=scope,
        **params,
    )


def user_of(tx: Tx, lease_id: str) -> Row | None:
    """Return the admitted run that asked for this held lease."""
    return tx.one(
        "SELECT id FROM runs WHERE wanted_lease_id = :l AND status = 'running'", l=lease_id
    )


def worker_on(tx: Tx, *, tenant_id: str, workspace: str) -> str | None:
    """Return the run that works on a workspace now."""
    found = tx.value(
        "SELECT id FROM runs WHERE tenant_id = :t AND workspace = :w AND status = 'running'",
        t=tenant_id,
        w=workspace,
    )
    return None if found is None else str(found)


def coming_to_rest(tx: Tx, *, scope: str) -> str | None:
    """Return a lease of the scope that will be idle in a moment; one that fails to is none."""
    found = tx.value(
        "SELECT id FROM leases WHERE scope = :scope AND status = 'releasing'"
        " AND mode = 'suspend' AND cleanup_attempts <= 1 LIMIT 1",
        scope=scope,
    )
    return None if found is None else str(found)


def queue_head(
    tx: Tx, stuck: set[str], *, busy: set[str], ageing_us: int, limit: int
) -> list[Row]:
    """
    Return queued runs in the order of admission.

    Args:
        stuck: What they wait for: a lease, or an environment and what they require of hosts.
        busy: Workspaces that do not, each as tenant, slash, name.
    """
    names, params = numbered("k", sorted(stuck)) if stuck else ("''", {})
    taken, more = numbered("w", sorted(busy)) if busy else ("''", {})
    params |= more
    return tx.all(
        "SELECT r.* FROM runs r JOIN (SELECT id, priority + ({now} - created_at) / :ageing"
        " AS weight, row_number() OVER (PARTITION BY tenant_id ORDER BY priority DESC,"
        " created_at, id)"
        " AS turn FROM runs WHERE status = 'queued' AND waits = 0"
        " AND COALESCE(wanted_lease_id, environment_id || COALESCE(requires, ''))"
        f" NOT IN ({names})"
        f" AND (workspace IS NULL OR tenant_id || '/' || workspace NOT IN ({taken}))"
        ") q ON q.id = r.id"
        " ORDER BY q.weight DESC, q.turn, r.created_at, r.id LIMIT :limit",
        ageing=ageing_us,
        limit=limit,
        **params,
    )


@dataclass(frozen=True, slots=True)
class Queue:
    """A tenant's queue, as who wants to join it finds it."""

    queued: int
    """Runs that admission may take."""

    preceded: int
    """Runs that have to wait for others to end."""

    alone: bool
    """Whether the admission lock is ours."""

    is_open: bool
    """Whether the tenant takes new runs: there is one, and it is not archived."""

    limit: int | None
    """Its own limit of queued runs, if it has one."""


def count_queued_and_try(tx: Tx, *, tenant_id: str, try_lock: bool = True) -> Queue:
    """Count a tenant's queued runs and try the admission lock; also learn the time."""
    take = "1" if tx.dialect == "sqlite" else "pg_try_advisory_xact_lock(:key)"
    take = take if try_lock else "{false}"
    row = tx.one(
        "SELECT (SELECT count(*) FROM runs WHERE status = 'queued' AND waits = 0"
        " AND tenant_id = :t) AS queued,"
        " (SELECT count(*) FROM runs WHERE waits > 0 AND tenant_id = :t) AS preceded,"
        f" {take} AS alone, {{now}} AS now_us,"
        " (SELECT status FROM tenants WHERE id = :t) AS status,"
        " (SELECT max_queued FROM tenants WHERE id = :t) AS most",
        t=tenant_id,
        key=LOCK,
    )
    assert row is not None
    is_open = row["status"] == TenantStatus.ACTIVE
    return Queue(
        queued=int(row["queued"]),
        preceded=int(row["preceded"]),
        alone=bool(row["alone"]),
        is_open=is_open,
        limit=row["most"],
    )


def somebody_waits(tx: Tx) -> bool:
    return (
        tx.value("SELECT 1 FROM runs WHERE status = 'queued' AND waits = 0 LIMIT 1") is not None
    )


def ahead_of(tx: Tx, run: Row) -> int:
    """Count queued runs that come before this one (priority, then age)."""
    return int(
        tx.value(
            "SELECT count(*) FROM runs WHERE status = 'queued' AND waits = 0 AND (priority > :p"
            " OR (priority = :p AND id < :id))",
            p=run["priority"],
            id=run["id"],
        )
    )
