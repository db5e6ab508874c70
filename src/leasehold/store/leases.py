"""SQL of leases. A holder's proof is the pair (lease id, fence)."""

from collections.abc import Sequence
from typing import Final

from leasehold.domain.lifecycle import LEASE_ENDS
from leasehold.errors import LostClaimError, NotFoundError
from leasehold.store.columns import among
from leasehold.store.database import Row, Tx
from leasehold.store.runs import decoded
from leasehold.store.sql import numbered

_OVER = among(LEASE_ENDS)


def find(tx: Tx, lease_id: str) -> Row | None:
    row = tx.one("SELECT * FROM leases WHERE id = :id", id=lease_id)
    return decoded(row) if row else None


def get(tx: Tx, lease_id: str, *, tenant_id: str) -> Row:
    """
    Return a lease of the tenant.

    Raises:
        NotFoundError: There is none, or it belongs to another tenant.
    """
    row = find(tx, lease_id)
    if row is None or row["tenant_id"] != tenant_id:
        raise NotFoundError(f"there is no lease {lease_id}")
    return row


def find_by_key(tx: Tx, *, tenant_id: str, key: str) -> Row | None:
    """Return the lease that somebody asked for with this idempotency key."""
    row = tx.one(
        "SELECT * FROM leases WHERE tenant_id = :tenant AND idempotency_key = :key",
        tenant=tenant_id,
        key=key,
    )
    return decoded(row) if row else None


def by_prefix(tx: Tx, prefix: str, *, tenant_id: str) -> list[Row]:
    return tx.all(
        "SELECT * FROM leases WHERE tenant_id = :tenant AND (id LIKE :a OR id LIKE :b) LIMIT 3",
        tenant=tenant_id,
        a=f"{prefix}%",
        b=f"%{prefix}",
    )


def page(tx: Tx, *, tenant_id: str, live: bool = False, limit: int = 100) -> list[Row]:
    """List leases, the newest first."""
    only = f" AND status NOT IN ({_OVER})" if live else ""
    return [
        decoded(row)
        for row in tx.all(
            f"SELECT * FROM leases WHERE tenant_id = :tenant{only}"
            " ORDER BY number DESC LIMIT :limit",
            tenant=tenant_id,
            limit=limit,
        )
    ]


def lock(tx: Tx, lease_id: str) -> Row | None:
    """Lock a lease's row, whatever its fence is."""
    return tx.one("SELECT *, {now} AS now_us FROM leases WHERE id = :id {lock}", id=lease_id)


FREE_OF_LEASE: Final = ("status", "claimed_by", "run_id", "timer_at", "held_until", "retain")
FREE_OF_RUN: Final = (
    "status",
    "step",
    "starts",
    "fence",
    "claimed_by",
    "lease_id",
    "due_at",
    "timer_at",
    "deadline_at",
    "follow_until",
    "end_requested",
    "end_requested_at",
    "awaited",
)
"""What others may write while the row is held, and what shows that it is not held any more."""

_HOLD: Final = (
    f"SELECT {', '.join(FREE_OF_LEASE)}, {{now}} AS now_us FROM leases"
    " WHERE id = :id AND fence = :fence {lock}"
)
_HOLD_BOTH: Final = (
    f"SELECT {', '.join(f'l.{name} AS l_{name}' for name in FREE_OF_LEASE)},"
    f" {', '.join(f'r.{name} AS r_{name}' for name in FREE_OF_RUN)}, {{now}} AS now_us"
    " FROM leases l JOIN runs r ON r.id = :run WHERE l.id = :id AND l.fence = :fence {lock}"
)


def hold(tx: Tx, held: Row, *, fence: int) -> Row:
    """
    Lock the lease that we hold: the first statement of each of a holder's transactions.

    Args:
        held: The row as this holder has read or written it last.

    Returns the row as it is now: what only its holder writes is taken from `held`.

    Raises:
        LostClaimError: Its fence was raised; somebody else holds it.
    """
    row = tx.one(_HOLD, id=held["id"], fence=fence)
    if row is None:
        raise LostClaimError(f"lease {held['id']} is past fence {fence}")
    return {**held, **row}


def hold_both(tx: Tx, held: Row, run: Row, *, fence: int) -> tuple[Row, Row]:
    """
    Lock a lease that we hold and its run, in this order, by one statement.

    Raises:
        LostClaimError: The lease's fence was raised; somebody else holds it.
    """
    row = tx.one(_HOLD_BOTH, id=held["id"], fence=fence, run=run["id"])
    if row is None:
        raise LostClaimError(f"lease {held['id']} is past fence {fence}")
    now = {"now_us": row["now_us"]}
    return (
        {**held, **now, **{name: row[f"l_{name}"] for name in FREE_OF_LEASE}},
        {**run, **now, **{name: row[f"r_{name}"] for name in FREE_OF_RUN}},
    )


def raise_fence(tx: Tx, lease_id: str, *, fence: int, run_id: str) -> Row | None:
    """Raise the fence for a claim of the run that the lease belongs to."""
    return tx.one(
        "UPDATE leases SET fence = fence + 1"
        " WHERE id = :id AND fence = :fence AND run_id = :run RETURNING *",
        id=lease_id,
        fence=fence,
        run=run_id,
    )


def claim(tx: Tx, lease_id: str, *, fence: int, worker_id: str) -> Row | None:
    """Take a lease that is due by itself: to be released, or created on its own."""
    return tx.one(
        "UPDATE leases SET fence = fence + 1, claimed_by = :worker, due_at = NULL,"
        " publishes = 0, cleanup_attempts = cleanup_attempts"
        " + CASE WHEN status = 'releasing' THEN 1 ELSE 0 END"
        " WHERE id = :id AND fence = :fence AND claimed_by IS NULL AND due_at IS NOT NULL"
        " AND status IN ('releasing', 'acquiring') RETURNING *, {now} AS now_us",
        id=lease_id,
        fence=fence,
        worker=worker_id,
    )


def find_idle(tx: Tx, *, scope: str, fingerprint: str, queue: str) -> Row | None:
    """Lock an idle lease that this run may reuse, the most recently made first."""
    return tx.one(
        "SELECT * FROM leases WHERE status = 'idle' AND scope = :scope"
        " AND fingerprint = :fingerprint AND held_until IS NULL AND queue = :queue"
        " ORDER BY number DESC LIMIT 1 {skip}",
        scope=scope,
        fingerprint=fingerprint,
        queue=queue,
    )


def mismatching(tx: Tx, *, scope: str, fingerprint: str) -> list[Row]:
    """Lock idle leases of the scope that were made from something else."""
    return tx.all(
        "SELECT * FROM leases WHERE status = 'idle' AND scope = :scope"
        " AND fingerprint <> :fingerprint AND held_until IS NULL ORDER BY id {skip}",
        scope=scope,
        fingerprint=fingerprint,
    )


def due(tx: Tx, *, limit: int) -> list[Row]:
    """Lock leases that are due by themselves."""
    return tx.all(
        "SELECT id, queue, fence, publishes, status FROM leases WHERE due_at <= {now}"
        " AND claimed_by IS NULL ORDER BY due_at LIMIT :limit {skip}",
        limit=limit,
    )


def timed_out(tx: Tx, *, limit: int) -> list[Row]:
    """Lock idle, retained and held leases whose time is over."""
    return tx.all(
        "SELECT * FROM leases WHERE timer_at <= {now} AND status IN ('idle', 'retained')"
        " ORDER BY id LIMIT :limit {skip}",
        limit=limit,
    )


def oldest_idle(tx: Tx, *, where: str, limit: int, **params: object) -> list[Row]:
    """Lock idle leases that may be evicted for a full limit."""
    return tx.all(
        f"SELECT * FROM leases WHERE status = 'idle' AND held_until IS NULL AND {where}"
        " ORDER BY timer_at LIMIT :limit {skip}",
        limit=limit,
        **params,
    )


def lock_many(tx: Tx, lease_ids: Sequence[str]) -> list[Row]:
    """Lock leases in the order of their ids."""
    if not lease_ids:
        return []
    names, params = numbered("l", sorted(lease_ids))
    return tx.all(f"SELECT * FROM leases WHERE id IN ({names}) ORDER BY id {{lock}}", **params)


def fences(tx: Tx, lease_ids: Sequence[str]) -> dict[str, int]:
    """Read fences without a lock: one that is raised meanwhile makes a stale message."""
    if not lease_ids:
        return {}
    names, params = numbered("l", list(lease_ids))
    rows = tx.all(f"SELECT id, fence FROM leases WHERE id IN ({names})", **params)
    return {row["id"]: row["fence"] for row in rows}


def expire_now(tx: Tx, lease_id: str) -> None:
    """Let the time of an idle or retained lease be over; the clock ends it."""
    tx.run(
        "UPDATE leases SET timer_at = {now} WHERE id = :id AND status IN ('idle', 'retained')",
        id=lease_id,
    )


def by_ids(tx: Tx, lease_ids: Sequence[str]) -> dict[str, Row]:
    """Return leases by their ids, in pieces that both databases take."""
    found: dict[str, Row] = {}
    for start in range(0, len(lease_ids), 500):
        names, params = numbered("l", list(lease_ids[start : start + 500]))
        rows = tx.all(f"SELECT * FROM leases WHERE id IN ({names})", **params)
        found |= {row["id"]: row for row in rows}
    return found


def highest_number(tx: Tx) -> int:
    """Return the highest number that was ever given out; 0 on an empty database."""
    return int(tx.value("SELECT MAX(number) FROM leases") or 0)


def kept_on(tx: Tx, provider: str, *, host_id: str) -> list[Row]:
    """Return idle and retained leases of a provider that this host must be able to list."""
    return tx.all(
        "SELECT * FROM leases WHERE provider = :provider AND status IN ('idle', 'retained')"
        " AND (host_id IS NULL OR host_id = :host) ORDER BY id",
        provider=provider,
        host=host_id,
    )


def recall(tx: Tx, *, after_us: int, renew_after_us: int) -> None:
    """Make due what is put off for longer than any wait of ours, and renew its sandbox."""
    tx.run("UPDATE leases SET due_at = {now} WHERE due_at > {now} + :after", after=after_us)
    tx.run(
        "UPDATE leases SET renew_at = {now} WHERE renew_at > {now} + :after",
        after=renew_after_us,
    )
