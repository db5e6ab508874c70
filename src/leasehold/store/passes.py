"""SQL of passes: what browsers are signed in with, and links that sign one in."""

from leasehold.domain.passes import LASTS_US, PassKind
from leasehold.store.database import Row, Tx


def insert(tx: Tx, pass_id: str, kind: PassKind, *, key: Row) -> None:
    """Make a pass of a key; those of anybody that have expired are deleted."""
    tx.run("DELETE FROM passes WHERE expires_at <= {now}")
    tx.run(
        "INSERT INTO passes (id, tenant_id, kind, key_id, created_at, expires_at)"
        " VALUES (:id, :tenant, :kind, :key, {now}, {now} + :lasts)",
        id=pass_id,
        tenant=key["tenant_id"],
        kind=kind.value,
        key=key["id"],
        lasts=LASTS_US[kind],
    )


def find_key(tx: Tx, pass_id: str, kind: PassKind) -> Row | None:
    """Return the key of a pass, if both are valid, with the database's time."""
    return tx.one(
        "SELECT k.*, p.expires_at AS pass_expires_at, {now} AS now_us FROM passes p"
        " JOIN api_keys k ON k.id = p.key_id WHERE p.id = :id AND p.kind = :kind"
        " AND p.expires_at > {now} AND k.revoked_at IS NULL"
        " AND (k.expires_at IS NULL OR k.expires_at > {now})",
        id=pass_id,
        kind=kind.value,
    )


def delete(tx: Tx, pass_id: str, kind: PassKind) -> bool:
    """Delete a pass; of two who do it at once, one has done it."""
    return bool(
        tx.run(
            "DELETE FROM passes WHERE id = :id AND kind = :kind", id=pass_id, kind=kind.value
        )
    )
