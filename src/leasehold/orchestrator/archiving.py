"""
How an environment is put aside, taken up again, or deleted.

What runs goes on in each case, and its leases are released as ever: runs and leases keep what
they need of their environment. Idle leases that nobody holds on their own end.
"""

from leasehold.domain.lifecycle import EnvironmentStatus
from leasehold.errors import ConflictError
from leasehold.store import environments, leases, moves, radius
from leasehold.store.database import Row, Tx


def archive(tx: Tx, name: str, *, tenant_id: str, actor: str) -> Row:
    """
    Take no new runs in an environment; nothing happens if it is archived already.

    Raises:
        NotFoundError: The tenant has no such environment.
        ConflictError: It was changed meanwhile.
    """
    row = environments.get(tx, name, tenant_id=tenant_id)
    if row["status"] == EnvironmentStatus.ARCHIVED:
        return row
    moved = _move(tx, row, EnvironmentStatus.ARCHIVED, actor=actor)
    _end_idle(tx, row["id"])
    return moved


def take_up(tx: Tx, name: str, *, tenant_id: str, actor: str) -> Row:
    """
    Take runs in an archived environment again.

    Raises:
        NotFoundError: The tenant has no such environment.
        ConflictError: It was changed meanwhile.
    """
    row = environments.get(tx, name, tenant_id=tenant_id)
    if row["status"] == EnvironmentStatus.ACTIVE:
        return row
    return _move(tx, row, EnvironmentStatus.ACTIVE, actor=actor)


def delete(tx: Tx, name: str, *, tenant_id: str, actor: str, consent: str | None) -> Row:
    """
    Delete an environment; return its row with how many runs and leases still named it.

    Args:
        consent: How to say that it is to go although something names it; None: that was said.

    Raises:
        NotFoundError: The tenant has no such environment.
        ConflictError: Runs are not over, or leases live, and nobody consented.
    """
    row = environments.get(tx, name, tenant_id=tenant_id)
    counts = radius.blast_radius(tx, row["id"])
    if (counts["runs"] or counts["leases"]) and consent is not None:
        raise ConflictError(
            f"environment {row['name']} has {counts['runs']} unfinished runs and"
            f" {counts['leases']} live leases; archive it, or delete it with {consent}:"
            " queued runs fail, what runs goes on, its leases are released as ever"
        )
    _end_idle(tx, row["id"])
    event = ("environment.deleted", {"environment": row["name"], "actor": actor})
    moves.record(tx, event, tenant_id=tenant_id)
    environments.delete(tx, row["id"])
    return row | counts


def _move(tx: Tx, row: Row, to: EnvironmentStatus, *, actor: str) -> Row:
    moved = moves.move(tx, "environments", row["id"], to, raw=("updated_at = {now}",))
    if moved is None:
        raise ConflictError(f"environment {row['name']} was changed meanwhile; look again")
    event = (f"environment.{to.value}", {"environment": row["name"], "actor": actor})
    moves.record(tx, event, tenant_id=row["tenant_id"])
    return moved


def _end_idle(tx: Tx, environment_id: str) -> None:
    for lease_id in radius.idle_of(tx, environment_id):
        leases.expire_now(tx, lease_id)
