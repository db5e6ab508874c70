"""
SQL of the objects in the store of blobs: none is there without a row, none is gone too early.

A row is written before its object and deleted after it. In between it is asked, at `look_at`,
whether a run or an artifact still names its digest: if so it rests until one of those is
deleted, if not it is *going*. What is going is never named again: whoever puts the same bytes
meanwhile writes an object of another name, so that a late deletion hits nothing that is used.
"""

from typing import Any, Final

from leasehold.store.database import Row, Tx

_NAMED: Final = (
    "(EXISTS (SELECT 1 FROM artifacts a WHERE a.tenant_id = blobs.tenant_id"
    " AND a.sha256 = blobs.digest) OR EXISTS (SELECT 1 FROM runs r"
    " WHERE r.tenant_id = blobs.tenant_id AND r.blob = blobs.digest))"
)
_LOOKED_AT: Final = (
    "(tenant_id, name) IN (SELECT tenant_id, name FROM blobs WHERE look_at <= {now}"
    " AND going_at IS NULL ORDER BY look_at LIMIT :limit)"
)


def live(tx: Tx, tenant_id: str, digest: str) -> Row | None:
    """Lock the row of the object that holds these bytes and stays; None: there is none."""
    return tx.one(
        "SELECT name, look_at, {now} AS now_us FROM blobs"
        " WHERE tenant_id = :tenant AND digest = :digest AND going_at IS NULL {lock}",
        tenant=tenant_id,
        digest=digest,
    )


def insert(tx: Tx, tenant_id: str, digest: str, *, name: str, size: int, grace_us: int) -> bool:
    """Say that an object will be there; False: there is a row that forbids it."""
    return bool(
        tx.run(
            "INSERT INTO blobs (tenant_id, name, digest, bytes, look_at)"
            " VALUES (:tenant, :name, :digest, :size, {now} + :grace) ON CONFLICT DO NOTHING",
            tenant=tenant_id,
            name=name,
            digest=digest,
            size=size,
            grace=grace_us,
        )
    )


def put_off(tx: Tx, tenant_id: str, name: str, *, grace_us: int) -> None:
    """Ask later whether anything names it: who puts it will name it soon."""
    tx.run(
        "UPDATE blobs SET look_at = {now} + :grace WHERE tenant_id = :tenant AND name = :name",
        tenant=tenant_id,
        name=name,
        grace=grace_us,
    )


def release(tx: Tx, tenant_id: str, digests: str, *, grace_us: int, **params: Any) -> None:
    """Have it asked whether anything names these, which the query `digests` returns."""
    tx.run(
        "UPDATE blobs SET look_at = {now} + :grace"
        f" WHERE tenant_id = :tenant AND going_at IS NULL AND digest IN ({digests})",
        tenant=tenant_id,
        grace=grace_us,
        **params,
    )


def look(tx: Tx, *, limit: int) -> tuple[int, int]:
    """Ask what is due to be asked; return how many are going now, and how many stay."""
    going = tx.run(
        "UPDATE blobs SET going_at = {now}, look_at = NULL"
        f" WHERE {_LOOKED_AT} AND look_at <= {{now}} AND NOT {_NAMED}",
        limit=limit,
    )
    stay = tx.run(
        f"UPDATE blobs SET look_at = NULL WHERE {_LOOKED_AT} AND going_at IS NULL"
        f" AND look_at <= {{now}} AND {_NAMED}",
        limit=limit,
    )
    return going, stay


def going(tx: Tx, *, limit: int) -> list[Row]:
    """Return objects that are to be deleted, the oldest decision first."""
    return tx.all(
        "SELECT tenant_id, name, bytes FROM blobs WHERE going_at IS NOT NULL"
        " ORDER BY going_at, name LIMIT :limit",
        limit=limit,
    )


def gone(tx: Tx, tenant_id: str, name: str) -> bool:
    """Delete the row of an object that is not there any more."""
    return bool(
        tx.run(
            "DELETE FROM blobs WHERE tenant_id = :tenant AND name = :name"
            " AND going_at IS NOT NULL",
            tenant=tenant_id,
            name=name,
        )
    )


def forecast(tx: Tx) -> Row:
    """Count the objects that go with the next turn: `objects` and their `object_bytes`."""
    row = tx.one(
        "SELECT count(*) AS objects, COALESCE(SUM(bytes), 0) AS object_bytes FROM blobs"
        f" WHERE going_at IS NOT NULL OR (look_at <= {{now}} AND NOT {_NAMED})"
    )
    assert row is not None
    return {name: int(value) for name, value in row.items()}
