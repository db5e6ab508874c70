"""
Activity: who has changed what, as lines of history that name an actor.

They are written by `moves.record` in the transaction of the change itself, and hold the names
of changed fields, never what is in them. They go as history goes (`store.retention`).
"""

from typing import Any, Final

from leasehold.ids import PLATFORM
from leasehold.store.database import Row, Tx
from leasehold.store.sql import load
from leasehold.store.views import Shape, iso

NOUNS: Final = (
    *("environment", "key", "lease", "retention", "run", "schedule", "secret", "selection"),
    *("secrets", "tenant", "host"),
)
"""What lines may be about: the word before the point of their names."""


def page(
    tx: Tx,
    *,
    tenant_id: str,
    actor: str | None = None,
    noun: str | None = None,
    since_us: int | None = None,
    until_us: int | None = None,
    before: int | None = None,
    limit: int,
) -> list[Row]:
    """
    List a tenant's activity, the newest first; the platform's is that of hosts and tenants.

    Args:
        before: The id of the last line that was seen.
    """
    where = ["actor IS NOT NULL"]
    params: dict[str, Any] = {"tenant": tenant_id, "limit": limit}
    if tenant_id == PLATFORM:
        where.append("(tenant_id = :tenant OR name LIKE 'tenant.%')")
    else:
        where.append("tenant_id = :tenant")
    for value, condition, name in (
        (actor, "actor = :actor", "actor"),
        (noun and f"{noun}.%", "name LIKE :noun", "noun"),
        (since_us, "at >= :since", "since"),
        (until_us, "at < :until", "until"),
        (before, "id < :before", "before"),
    ):
        if value is not None:
            where.append(condition)
            params[name] = value
    return tx.all(
        f"SELECT * FROM events WHERE {' AND '.join(where)} ORDER BY id DESC LIMIT :limit",
        **params,
    )


def activity_view(row: Row) -> Shape:
    """Return what is shown of one line."""
    data = dict(load(row["data"]))
    data.pop("actor", None)
    return {
        "id": row["id"],
        "at": iso(row["at"]),
        "actor": row["actor"],
        "noun": row["name"].partition(".")[0],
        "name": row["name"],
        "run_id": row["run_id"],
        "lease_id": row["lease_id"],
        "data": data,
    }
