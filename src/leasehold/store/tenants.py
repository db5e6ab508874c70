"""SQL of tenants; the platform's own row is none of them."""

from collections.abc import Mapping
from typing import Any, Final

from leasehold.domain.lifecycle import LEASE_ENDS, RunStatus
from leasehold.errors import NotFoundError
from leasehold.ids import PLATFORM
from leasehold.store.columns import among
from leasehold.store.database import Row, Tx
from leasehold.store.runs import insert_row

_USED: Final = (
    "SELECT t.*, (SELECT count(*) FROM runs WHERE tenant_id = t.id"
    f" AND status = '{RunStatus.QUEUED}' AND waits = 0) + (SELECT count(*) FROM runs"
    " WHERE tenant_id = t.id AND waits > 0) AS queued_runs,"
    " (SELECT count(*) FROM runs WHERE tenant_id = t.id"
    f" AND status = '{RunStatus.RUNNING}') AS running_runs,"
    " (SELECT count(*) FROM leases WHERE tenant_id = t.id"
    f" AND status NOT IN ({among(LEASE_ENDS)})) AS live_leases FROM tenants t"
)


def insert(tx: Tx, values: Mapping[str, Any]) -> Row:
    return insert_row(tx, "tenants", values)


def find(tx: Tx, name: str) -> Row | None:
    """Return a tenant; the platform is not found."""
    return tx.one(
        "SELECT * FROM tenants WHERE id = :name AND id <> :platform",
        name=name,
        platform=PLATFORM,
    )


def get(tx: Tx, name: str) -> Row:
    """
    Return a tenant.

    Raises:
        NotFoundError: There is none of this name; says which there are.
    """
    row = find(tx, name)
    if row is None:
        raise NotFoundError(f"there is no tenant {name!r}; there are: {', '.join(names(tx))}")
    return row


def names(tx: Tx) -> list[str]:
    rows = tx.all(
        "SELECT id FROM tenants WHERE id <> :platform ORDER BY id LIMIT 20", platform=PLATFORM
    )
    return [row["id"] for row in rows]


def page(tx: Tx) -> list[Row]:
    """List tenants by name, with how much each has under way."""
    return tx.all(f"{_USED} WHERE t.id <> :platform ORDER BY t.id", platform=PLATFORM)


def used(tx: Tx, name: str) -> Row:
    """Return a tenant that there is, with how much it has under way."""
    row = tx.one(f"{_USED} WHERE t.id = :name", name=name)
    assert row is not None
    return row
