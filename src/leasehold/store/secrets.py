"""
SQL of secrets: names, encrypted versions, and which live leases name them.

A version is *current* or *named by a live lease*; any other is pruned. Naming one is an insert
with a foreign key, so of a prune and a new use at the same moment one waits for the other: a
version that is named cannot go. Killed in between: each change is one transaction.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from leasehold.domain.lifecycle import LEASE_ENDS
from leasehold.errors import LostClaimError, NotFoundError
from leasehold.store.columns import among
from leasehold.store.database import Row, Tx
from leasehold.store.sql import numbered

_OVER: Final = among(LEASE_ENDS)


def put(tx: Tx, *, tenant_id: str, name: str) -> int:
    """Lock a secret's row, made if need be, and return the number of its next version."""
    return int(
        tx.value(
            "INSERT INTO secrets (tenant_id, name, version, created_at, updated_at)"
            " VALUES (:tenant, :name, 1, {now}, {now}) ON CONFLICT (tenant_id, name)"
            " DO UPDATE SET version = secrets.version + 1, updated_at = {now},"
            " created_at = CASE WHEN secrets.deleted THEN {now} ELSE secrets.created_at END,"
            " deleted = {false} RETURNING version",
            tenant=tenant_id,
            name=name,
        )
    )


def insert_version(
    tx: Tx, *, tenant_id: str, name: str, version: int, key_id: str, ciphertext: str
) -> None:
    """Store a value that `put` has numbered in this transaction."""
    tx.run(
        "INSERT INTO secret_versions (tenant_id, name, version, key_id, ciphertext, created_at)"
        " VALUES (:tenant, :name, :version, :key, :sealed, {now})",
        tenant=tenant_id,
        name=name,
        version=version,
        key=key_id,
        sealed=ciphertext,
    )


def delete(tx: Tx, *, tenant_id: str, name: str) -> None:
    """
    Take a name away; what live leases name of it stays until they are over.

    Raises:
        NotFoundError: There is no such secret; says which there are.
    """
    gone = tx.run(
        "UPDATE secrets SET deleted = {true}, updated_at = {now}"
        " WHERE tenant_id = :tenant AND name = :name AND NOT deleted",
        tenant=tenant_id,
        name=name,
    )
    if not gone:
        raise NotFoundError(_missing(tx, tenant_id, name))


def _missing(tx: Tx, tenant_id: str, name: str) -> str:
    there = ", ".join(row["name"] for row in page(tx, tenant_id=tenant_id)) or "none yet"
    return f"there is no secret {name!r}; there are: {there}"


def page(tx: Tx, *, tenant_id: str) -> list[Row]:
    """List names, versions and how many live leases name each; never a value."""
    return tx.all(
        "SELECT s.name, s.version, s.created_at, s.updated_at, v.key_id,"
        " (SELECT count(DISTINCT u.lease_id) FROM secret_uses u JOIN leases l"
        " ON l.id = u.lease_id WHERE u.tenant_id = s.tenant_id AND u.name = s.name"
        f" AND l.status NOT IN ({_OVER})) AS leases"
        " FROM secrets s JOIN secret_versions v ON v.tenant_id = s.tenant_id"
        " AND v.name = s.name AND v.version = s.version"
        " WHERE s.tenant_id = :tenant AND NOT s.deleted ORDER BY s.name",
        tenant=tenant_id,
    )


def get(tx: Tx, *, tenant_id: str, name: str) -> Row:
    """
    Return one name as `page` lists it.

    Raises:
        NotFoundError: There is no such secret; says which there are.
    """
    found = [row for row in page(tx, tenant_id=tenant_id) if row["name"] == name]
    if not found:
        raise NotFoundError(_missing(tx, tenant_id, name))
    return found[0]


def users(tx: Tx, *, tenant_id: str, name: str) -> list[str]:
    """Return the live leases that name any version of it."""
    rows = tx.all(
        "SELECT DISTINCT u.lease_id FROM secret_uses u JOIN leases l ON l.id = u.lease_id"
        " WHERE u.tenant_id = :tenant AND u.name = :name"
        f" AND l.status NOT IN ({_OVER}) ORDER BY u.lease_id",
        tenant=tenant_id,
        name=name,
    )
    return [row["lease_id"] for row in rows]


def current(tx: Tx, *, tenant_id: str, names: Sequence[str]) -> dict[str, int]:
    """Return the current version of each of the names that there are."""
    if not names:
        return {}
    marks, params = numbered("n", sorted(names))
    rows = tx.all(
        "SELECT name, version FROM secrets WHERE tenant_id = :tenant AND NOT deleted"
        f" AND name IN ({marks})",
        tenant=tenant_id,
        **params,
    )
    return {row["name"]: row["version"] for row in rows}


def find(tx: Tx, *, tenant_id: str, name: str, version: int) -> str | None:
    """Return one version's ciphertext; version 0: the current one's."""
    text = tx.value(
        "SELECT v.ciphertext FROM secret_versions v JOIN secrets s"
        " ON s.tenant_id = v.tenant_id AND s.name = v.name WHERE v.tenant_id = :tenant"
        " AND v.name = :name AND (v.version = :version"
        " OR (:version = 0 AND v.version = s.version AND NOT s.deleted))",
        tenant=tenant_id,
        name=name,
        version=version,
    )
    return None if text is None else str(text)


def name_in_lease(tx: Tx, lease_id: str, *, tenant_id: str, pins: Mapping[str, int]) -> None:
    """
    Write down that a lease names these versions, so that they stay while it lives.

    Pins of other sources than the database have no version here and are passed over.

    Raises:
        LostClaimError: One was pruned meanwhile: whoever looks again finds the current one.
    """
    for name, version in sorted(pins.items()):
        if not version:
            continue
        there = tx.value(
            "SELECT 1 FROM secret_versions WHERE tenant_id = :tenant AND name = :name"
            " AND version = :version {share}",
            tenant=tenant_id,
            name=name,
            version=version,
        )
        if there is None:
            raise LostClaimError(f"version {version} of secret {name} is gone")
        tx.run(
            "INSERT INTO secret_uses (lease_id, tenant_id, name, version)"
            " VALUES (:lease, :tenant, :name, :version) ON CONFLICT DO NOTHING",
            lease=lease_id,
            tenant=tenant_id,
            name=name,
            version=version,
        )


def prune(tx: Tx) -> int:
    """Remove uses of leases that are over, then versions that nobody needs; count these."""
    tx.run(
        "DELETE FROM secret_uses WHERE NOT EXISTS (SELECT 1 FROM leases l"
        f" WHERE l.id = secret_uses.lease_id AND l.status NOT IN ({_OVER}))"
    )
    return tx.run(
        "DELETE FROM secret_versions WHERE NOT EXISTS (SELECT 1 FROM secrets s"
        " WHERE s.tenant_id = secret_versions.tenant_id AND s.name = secret_versions.name"
        " AND s.version = secret_versions.version AND NOT s.deleted)"
        " AND NOT EXISTS (SELECT 1 FROM secret_uses u"
        " WHERE u.tenant_id = secret_versions.tenant_id AND u.name = secret_versions.name"
        " AND u.version = secret_versions.version)"
    )


def not_under(tx: Tx, key_id: str, *, limit: int) -> list[Row]:
    """Return versions that another key encrypted."""
    return tx.all(
        "SELECT * FROM secret_versions WHERE key_id <> :key"
        " ORDER BY tenant_id, name, version LIMIT :limit",
        key=key_id,
        limit=limit,
    )


def encrypt_anew(tx: Tx, row: Row, *, key_id: str, ciphertext: str) -> bool:
    """Replace one version's ciphertext if it is still the one that was read."""
    return bool(
        tx.run(
            "UPDATE secret_versions SET key_id = :key, ciphertext = :sealed"
            " WHERE tenant_id = :tenant AND name = :name AND version = :version"
            " AND ciphertext = :held",
            key=key_id,
            sealed=ciphertext,
            tenant=row["tenant_id"],
            name=row["name"],
            version=row["version"],
            held=row["ciphertext"],
        )
    )


def keys_in_use(tx: Tx) -> dict[str, int]:
    """Return how many versions, and secrets of webhooks, each key has encrypted."""
    rows = tx.all(
        "SELECT key_id, count(*) AS n FROM (SELECT key_id FROM secret_versions"
        " UNION ALL SELECT key_id FROM webhooks) q GROUP BY key_id"
    )
    return {row["key_id"]: int(row["n"]) for row in rows}
