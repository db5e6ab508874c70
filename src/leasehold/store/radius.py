"""What names an environment, and is touched when it changes or goes."""

from leasehold.domain.lifecycle import LEASE_ENDS, LeaseStatus
from leasehold.store.columns import among
from leasehold.store.database import Row, Tx
from leasehold.store.views import Shape


def blast_radius(tx: Tx, environment_id: str) -> Row:
    """Count what still names an environment: unfinished runs and live leases."""
    row = tx.one(
        "SELECT (SELECT count(*) FROM runs WHERE environment_id = :id"
        " AND finished_at IS NULL) AS runs, (SELECT count(*) FROM leases"
        f" WHERE environment_id = :id AND status NOT IN ({among(LEASE_ENDS)})) AS leases",
        id=environment_id,
    )
    assert row is not None
    return row


def in_detail(tx: Tx, environment_id: str) -> Shape:
    """Return the same by status, with the leases that somebody holds on their own."""
    runs = tx.all(
        "SELECT status, count(*) AS n FROM runs WHERE environment_id = :id"
        " AND finished_at IS NULL GROUP BY status ORDER BY status",
        id=environment_id,
    )
    leases = tx.all(
        "SELECT status, count(*) AS n, count(held_until) AS held FROM leases"
        f" WHERE environment_id = :id AND status NOT IN ({among(LEASE_ENDS)})"
        " GROUP BY status ORDER BY status",
        id=environment_id,
    )
    return {
        "unfinished_runs": sum(row["n"] for row in runs),
        "live_leases": sum(row["n"] for row in leases),
        "held_leases": sum(row["held"] for row in leases),
        "runs": {row["status"]: row["n"] for row in runs},
        "leases": {row["status"]: row["n"] for row in leases},
    }


def on_their_way(tx: Tx, environment_id: str) -> int:
    """Count admitted runs that have no sandbox yet: they were sent to the provider's hosts."""
    return int(
        tx.value(
            "SELECT count(*) FROM runs WHERE environment_id = :id AND status = 'running'"
            " AND lease_id IS NULL AND wanted_lease_id IS NULL",
            id=environment_id,
        )
    )


def idle_of(tx: Tx, environment_id: str) -> list[str]:
    """Return an environment's idle leases that nobody holds on their own."""
    rows = tx.all(
        "SELECT id FROM leases WHERE environment_id = :id AND status = :idle"
        " AND held_until IS NULL",
        id=environment_id,
        idle=LeaseStatus.IDLE.value,
    )
    return [row["id"] for row in rows]
