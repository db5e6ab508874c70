"""SQL of tenants' API keys."""

from collections.abc import Mapping
from typing import Any

from leasehold.store.database import Row, Tx
from leasehold.store.runs import insert_row


def insert(tx: Tx, values: Mapping[str, Any]) -> Row:
    return insert_row(tx, "api_keys", values)


def find_by_prefix(tx: Tx, prefix: str) -> Row | None:
    """Return the key with this public part, and the database's time."""
    return tx.one(
        "SELECT *, {now} AS now_us FROM api_keys WHERE prefix = :prefix", prefix=prefix
    )


def find_valid(tx: Tx, name: str, *, tenant_id: str) -> Row | None:
    """Return the tenant's key of this name or id that is not revoked."""
    return tx.one(
        "SELECT * FROM api_keys WHERE tenant_id = :tenant AND (name = :name OR id = :name)"
        " AND revoked_at IS NULL ORDER BY created_at DESC",
        tenant=tenant_id,
        name=name,
    )


def page(tx: Tx, *, tenant_id: str) -> list[Row]:
    """List keys, the newest first, the revoked ones too."""
    return tx.all(
        "SELECT *, {now} AS now_us FROM api_keys WHERE tenant_id = :tenant"
        " ORDER BY created_at DESC, id DESC",
        tenant=tenant_id,
    )


def revoke(tx: Tx, key_id: str) -> Row | None:
    """Revoke a key that is not; None: it was already."""
    return tx.one(
        "UPDATE api_keys SET revoked_at = {now} WHERE id = :id AND revoked_at IS NULL"
        " RETURNING *",
        id=key_id,
    )


def touch(tx: Tx, key_id: str, *, after_us: int) -> bool:
    """Note that a key is used, if that was not noted within the last `after_us`."""
    return bool(
        tx.run(
            "UPDATE api_keys SET last_used_at = {now} WHERE id = :id"
            " AND (last_used_at IS NULL OR last_used_at <= {now} - :after)",
            id=key_id,
            after=after_us,
        )
    )
