"""What people and programs are shown of secrets: never a value; read-only, as `views`."""

from leasehold.domain.secrets import names_in
from leasehold.store import environments, secrets
from leasehold.store.database import Row, Tx
from leasehold.store.sql import load
from leasehold.store.views import Shape, iso


def listed(tx: Tx, *, tenant_id: str) -> list[Shape]:
    """Return names and versions, and how many live leases name each."""
    return [secret_view(row) for row in secrets.page(tx, tenant_id=tenant_id)]


def one(tx: Tx, name: str, *, tenant_id: str) -> Shape:
    """
    Return a secret with where it is used: environments by name, live leases by id.

    Raises:
        NotFoundError: There is no such secret; says which there are.
    """
    row = secrets.get(tx, tenant_id=tenant_id, name=name)
    places = environments.page(tx, tenant_id=tenant_id)
    return secret_view(row) | {
        "environments": [place["name"] for place in places if name in _named(place)],
        "lease_ids": secrets.users(tx, tenant_id=tenant_id, name=name),
    }


def _named(environment: Row) -> set[str]:
    spec = load(environment["spec"])
    return {*names_in(spec.get("config") or {}), *names_in(spec.get("env") or {})}


def secret_view(row: Row) -> Shape:
    return {
        "name": row["name"],
        "version": row["version"],
        "leases": row["leases"],
        "key": row["key_id"],
        "created_at": iso(row["created_at"]),
        "updated_at": iso(row["updated_at"]),
    }
