"""SQL of environments, tenants' named places, and of the deployment's facts."""

from collections.abc import Sequence
from typing import Any, Final

from leasehold.errors import NotFoundError
from leasehold.store.database import Row, Tx
from leasehold.store.runs import MANY, decoded
from leasehold.store.sql import dump, numbered

_WITH_TENANT: Final = (
    "SELECT e.*, t.status AS tenant_status, t.max_concurrent AS tenant_max_concurrent"
    " FROM environments e JOIN tenants t ON t.id = e.tenant_id"
)
"""What admission has to know of an environment's tenant comes with it."""


def check_tenant(tx: Tx, tenant_id: str) -> None:
    """
    Refuse a tenant that is not there.

    Raises:
        NotFoundError: There is none of this id.
    """
    if tx.value("SELECT 1 FROM tenants WHERE id = :id", id=tenant_id) is None:
        raise NotFoundError(f"there is no tenant {tenant_id}")


def find(tx: Tx, environment_id: str) -> Row | None:
    row = tx.one(f"{_WITH_TENANT} WHERE e.id = :id", id=environment_id)
    return decoded(row) if row else None


def find_by_name(tx: Tx, name: str, *, tenant_id: str) -> Row | None:
    row = tx.one(
        f"{_WITH_TENANT} WHERE e.tenant_id = :tenant AND e.name = :name",
        tenant=tenant_id,
        name=name,
    )
    return decoded(row) if row else None


def get(tx: Tx, name: str, *, tenant_id: str) -> Row:
    """
    Return an environment by its name or id.

    Raises:
        NotFoundError: Says which there are.
    """
    row = find_by_name(tx, name, tenant_id=tenant_id) or find(tx, name)
    if row is None or row["tenant_id"] != tenant_id:
        raise missing(name, active_names(tx, tenant_id=tenant_id))
    return row


def find_many(tx: Tx, names: Sequence[str], *, tenant_id: str) -> dict[str, Row]:
    """Return a tenant's environments by these names or ids; a name goes before an id."""
    found: dict[str, Row] = {}
    for first in range(0, len(names), MANY):
        some, params = numbered("n", names[first : first + MANY])
        rows = tx.all(
            "SELECT * FROM environments WHERE tenant_id = :tenant"
            f" AND (name IN ({some}) OR id IN ({some}))",
            tenant=tenant_id,
            **params,
        )
        for row in map(decoded, rows):
            found.setdefault(row["id"], row)
            found[row["name"]] = row
    return found


def active_names(tx: Tx, *, tenant_id: str) -> list[str]:
    return [r["name"] for r in page(tx, tenant_id=tenant_id) if r["status"] == "active"]


def missing(name: str, there: Sequence[str]) -> NotFoundError:
    """Return the refusal of an environment that is not there, with those that are."""
    names = ", ".join(there) or "none yet"
    return NotFoundError(f"there is no environment {name!r}; there are: {names}")


def page(tx: Tx, *, tenant_id: str) -> list[Row]:
    rows = tx.all(
        "SELECT * FROM environments WHERE tenant_id = :tenant ORDER BY name", tenant=tenant_id
    )
    return [decoded(row) for row in rows]


def delete(tx: Tx, environment_id: str) -> None:
    """Delete the row; runs and leases keep what they need of it."""
    tx.run("DELETE FROM environments WHERE id = :id", id=environment_id)


def fact(tx: Tx, name: str) -> str | None:
    value = tx.value("SELECT value FROM facts WHERE name = :name", name=name)
    return None if value is None else str(value)


def set_fact(tx: Tx, name: str, value: str) -> None:
    tx.run(
        "INSERT INTO facts (name, value) VALUES (:name, :value)"
        " ON CONFLICT (name) DO UPDATE SET value = :value",
        name=name,
        value=value,
    )


def change_fact(tx: Tx, name: str, value: str, *, held: str) -> bool:
    """Set a fact if it is still as it was read; False if somebody was first."""
    return bool(
        tx.run(
            "UPDATE facts SET value = :value WHERE name = :name AND value = :held",
            name=name,
            value=value,
            held=held,
        )
    )


def change_spec(tx: Tx, environment_id: str, spec: dict[str, Any]) -> None:
    """
    Replace what an environment is; leases made from the old one match no more.

    Its queued runs go to its provider as it is now; those that name a lease keep theirs.
    """
    tx.run(
        "UPDATE environments SET spec = :spec, provider = :provider, max_concurrent = :most,"
        " updated_at = {now} WHERE id = :id",
        id=environment_id,
        spec=dump(spec),
        provider=spec["provider"],
        most=(spec.get("limits") or {}).get("max_concurrent"),
    )
    for queued in ("status = 'queued' AND waits = 0", "waits > 0"):
        tx.run(
            f"UPDATE runs SET provider = :provider WHERE environment_id = :id AND {queued}"
            " AND wanted_lease_id IS NULL AND provider <> :provider",
            id=environment_id,
            provider=spec["provider"],
        )
