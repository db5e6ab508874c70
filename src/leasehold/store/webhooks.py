"""
SQL of webhooks and their deliveries.

`owe` belongs to the transaction that ends a run: one statement for all webhooks of the tenant,
which PostgreSQL gets together with the run's own (`Tx.later`), so that the end of a run costs
no statement more. A delivery is claimed by raising its fence and setting `next_at` to when its
holder counts as dead, and is recorded only with that fence.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from leasehold.errors import NotFoundError
from leasehold.store import moves
from leasehold.store.database import Row, Tx
from leasehold.store.runs import insert_row
from leasehold.store.sql import load

_WANTED: Final = {
    "postgresql": (
        "(w.statuses IS NULL OR w.statuses @> to_jsonb(CAST(:status AS text)))"
        " AND (w.labels IS NULL OR r.labels @> w.labels)"
    ),
    "sqlite": (
        "(w.statuses IS NULL OR EXISTS"
        " (SELECT 1 FROM json_each(w.statuses) s WHERE s.value = :status))"
        " AND (w.labels IS NULL OR NOT EXISTS (SELECT 1 FROM json_each(w.labels) f"
        " WHERE NOT EXISTS (SELECT 1 FROM json_each(r.labels) l"
        " WHERE l.key = f.key AND l.value = f.value)))"
    ),
}
_OWE: Final = {
    dialect: (
        "INSERT INTO webhook_deliveries (id, tenant_id, webhook_id, run_id, event, status,"
        " next_at, owed_at, created_at)"
        " SELECT w.id || '.' || r.id, w.tenant_id, w.id, r.id,"
        " 'run.' || CAST(:status AS text), 'pending', :at, :at, :at"
        " FROM webhooks w JOIN runs r ON r.id = :run"
        " LEFT JOIN environments e ON e.id = r.environment_id"
        f" WHERE w.tenant_id = :tenant AND w.enabled AND {wanted}"
        " AND (w.environment IS NULL OR w.environment = e.name) ON CONFLICT DO NOTHING"
    )
    for dialect, wanted in _WANTED.items()
}
_JSON: Final = ("statuses", "labels")


def owe(tx: Tx, run: Row, *, status: str) -> None:
    """Write down that this end of a run is owed to each webhook that wants it."""
    params = {"status": status, "at": tx.stamp(), "run": run["id"], "tenant": run["tenant_id"]}
    tx.later("webhook_deliveries", _OWE[tx.dialect], params, what=None)


def _decoded(row: Row) -> Row:
    return row | {name: load(row[name]) for name in _JSON if name in row}


def insert(tx: Tx, values: Mapping[str, Any]) -> Row:
    now = tx.stamp()
    return _decoded(
        insert_row(tx, "webhooks", {**values, "created_at": now, "updated_at": now})
    )


def find_by_name(tx: Tx, name: str, *, tenant_id: str) -> Row | None:
    row = tx.one(
        "SELECT * FROM webhooks WHERE tenant_id = :tenant AND name = :name",
        tenant=tenant_id,
        name=name,
    )
    return _decoded(row) if row else None


def get(tx: Tx, name: str, *, tenant_id: str) -> Row:
    """
    Return a webhook by its name or id.

    Raises:
        NotFoundError: There is none of the tenant.
    """
    row = find_by_name(tx, name, tenant_id=tenant_id) or tx.one(
        "SELECT * FROM webhooks WHERE tenant_id = :tenant AND id = :id",
        tenant=tenant_id,
        id=name,
    )
    if row is None:
        raise NotFoundError(f"there is no webhook {name!r}")
    return _decoded(row)


def page(tx: Tx, *, tenant_id: str) -> list[Row]:
    """List a tenant's webhooks by name."""
    rows = tx.all(
        "SELECT * FROM webhooks WHERE tenant_id = :tenant ORDER BY name", tenant=tenant_id
    )
    return [_decoded(row) for row in rows]


def change(tx: Tx, webhook_id: str, **values: Any) -> Row | None:
    """Change a webhook; None: it is gone."""
    row = moves.move(tx, "webhooks", webhook_id, None, raw=("updated_at = {now}",), **values)
    return _decoded(row) if row else None


def delete(tx: Tx, webhook_id: str) -> None:
    """Delete a webhook with what is owed to it; very much of that is left to the pruner."""
    tx.run(
        "DELETE FROM webhook_deliveries WHERE id IN (SELECT id FROM webhook_deliveries"
        " WHERE webhook_id = :id LIMIT 10000)",
        id=webhook_id,
    )
    tx.run("DELETE FROM webhooks WHERE id = :id", id=webhook_id)


def due(tx: Tx, *, limit: int) -> list[Row]:
    """Return webhooks that are owed something now and do not rest, the longest due first."""
    rows = tx.all(
        "SELECT q.* FROM (SELECT w.*, {now} AS now_us, (SELECT MIN(d.next_at)"
        " FROM webhook_deliveries d WHERE d.webhook_id = w.id AND d.next_at IS NOT NULL)"
        " AS due_at FROM webhooks w WHERE w.rests_until IS NULL OR w.rests_until <= {now}) q"
        " WHERE q.due_at <= q.now_us AND NOT EXISTS (SELECT 1 FROM facts"
        " WHERE name = 'alarm') ORDER BY q.due_at LIMIT :limit",
        limit=limit,
    )
    return [_decoded(row) for row in rows]


def try_again(tx: Tx, webhook: Row, *, hold_us: int) -> bool:
    """Be the one who tries whether a webhook that failed is well again."""
    return bool(
        tx.run(
            "UPDATE webhooks SET rests_until = {now} + :hold WHERE id = :id"
            " AND failures = :failures AND (rests_until IS NULL OR rests_until <= {now})",
            hold=hold_us,
            id=webhook["id"],
            failures=webhook["failures"],
        )
    )


def claim(tx: Tx, webhook_id: str, *, hold_us: int, limit: int) -> list[Row]:
    """Claim deliveries that are due, the longest due first; each is tried once more."""
    return tx.all(
        "UPDATE webhook_deliveries SET fence = fence + 1, attempts = attempts + 1,"
        " last_at = {now}, next_at = {now} + :hold WHERE id IN (SELECT id"
        " FROM webhook_deliveries WHERE webhook_id = :webhook AND next_at <= {now}"
        " ORDER BY next_at LIMIT :limit {skip}) RETURNING *, {now} AS now_us",
        webhook=webhook_id,
        hold=hold_us,
        limit=limit,
    )


def too_old(tx: Tx, webhook_id: str, *, after_us: int, limit: int) -> list[Row]:
    """Lock deliveries that are due and were owed too long ago."""
    return tx.all(
        "SELECT * FROM webhook_deliveries WHERE webhook_id = :webhook AND next_at <= {now}"
        " AND owed_at < {now} - :after ORDER BY next_at LIMIT :limit {skip}",
        webhook=webhook_id,
        after=after_us,
        limit=limit,
    )


def open_of(tx: Tx, webhook_id: str, *, limit: int) -> list[Row]:
    """Lock what is owed to a webhook and nobody else has."""
    return tx.all(
        "SELECT * FROM webhook_deliveries WHERE webhook_id = :webhook"
        " AND next_at IS NOT NULL ORDER BY next_at LIMIT :limit {skip}",
        webhook=webhook_id,
        limit=limit,
    )


def move(tx: Tx, delivery: Row, to: str | None, **values: Any) -> Row | None:
    """Change a delivery as its holder, or as whoever has locked it; None: it is not his."""
    return moves.move(
        tx,
        "webhook_deliveries",
        delivery["id"],
        to,
        guard="fence = :held",
        guard_values={"held": delivery["fence"]},
        **values,
    )


def outcome(
    tx: Tx, webhook_id: str, *, failed: bool, status: int | None, error: str | None
) -> int:
    """Count an answer of a webhook; return how many failures in a row there are now."""
    count = tx.value(
        "UPDATE webhooks SET last_at = {now}, last_status = :status, last_error = :error,"
        f" failures = {'failures + 1' if failed else '0'}, rests_until = NULL"
        " WHERE id = :id RETURNING failures",
        id=webhook_id,
        status=status,
        error=error,
    )
    return int(count or 0)


def rest(tx: Tx, webhook_id: str, *, for_us: int) -> None:
    """Send nothing to a webhook for a while."""
    tx.run(
        "UPDATE webhooks SET rests_until = {now} + :us WHERE id = :id", us=for_us, id=webhook_id
    )


def get_delivery(tx: Tx, delivery_id: str, *, webhook_id: str) -> Row:
    """
    Return one delivery of a webhook.

    Raises:
        NotFoundError: It has no such.
    """
    row = tx.one(
        "SELECT *, {now} AS now_us FROM webhook_deliveries WHERE id = :id AND webhook_id = :w",
        id=delivery_id,
        w=webhook_id,
    )
    if row is None:
        raise NotFoundError(f"there is no delivery {delivery_id!r}")
    return row


def deliveries(
    tx: Tx,
    webhook_id: str,
    *,
    statuses: Sequence[str] = (),
    limit: int,
    after: tuple[int, str] | None = None,
) -> list[Row]:
    """List what is or was owed to a webhook, the newest first."""
    where, params = ["webhook_id = :webhook"], {"webhook": webhook_id, "limit": limit}
    if statuses:
        marks = {f"s{n}": status for n, status in enumerate(statuses)}
        where.append(f"status IN ({', '.join(f':{name}' for name in marks)})")
        params |= marks
    if after:
        where.append("(created_at, id) < (:at, :id)")
        params |= {"at": after[0], "id": after[1]}
    return tx.all(
        f"SELECT * FROM webhook_deliveries WHERE {' AND '.join(where)}"
        " ORDER BY created_at DESC, id DESC LIMIT :limit",
        **params,
    )


def waiting(tx: Tx, *, tenant_id: str) -> dict[str, int]:
    """Return how many deliveries each webhook of a tenant is owed."""
    rows = tx.all(
        "SELECT d.webhook_id, count(*) AS n FROM webhook_deliveries d JOIN webhooks w"
        " ON w.id = d.webhook_id WHERE w.tenant_id = :tenant AND d.next_at IS NOT NULL"
        " GROUP BY d.webhook_id",
        tenant=tenant_id,
    )
    return {row["webhook_id"]: int(row["n"]) for row in rows}


def recall(tx: Tx, *, after_us: int) -> None:
    """Make due what is put off for longer than any wait of ours."""
    tx.run(
        "UPDATE webhook_deliveries SET next_at = {now} WHERE next_at > {now} + :after",
        after=after_us,
    )
    tx.run(
        "UPDATE webhooks SET rests_until = {now} WHERE rests_until > {now} + :after",
        after=after_us,
    )


def not_under(tx: Tx, key_id: str, *, limit: int) -> list[Row]:
    """Return webhooks whose secret another key encrypted."""
    return tx.all(
        "SELECT * FROM webhooks WHERE key_id <> :key ORDER BY id LIMIT :limit",
        key=key_id,
        limit=limit,
    )


def encrypt_anew(tx: Tx, row: Row, *, key_id: str, ciphertext: str) -> bool:
    """Replace a webhook's ciphertext if it is still the one that was read."""
    return bool(
        tx.run(
            "UPDATE webhooks SET key_id = :key, ciphertext = :sealed"
            " WHERE id = :id AND ciphertext = :held",
            key=key_id,
            sealed=ciphertext,
            id=row["id"],
            held=row["ciphertext"],
        )
    )


def drop_deliveries(tx: Tx, tenant_id: str, *, kept_us: int, limit: int) -> int:
    """Delete what was delivered or given up long ago, and what is owed to nobody."""
    return tx.run(
        "DELETE FROM webhook_deliveries WHERE id IN (SELECT d.id FROM webhook_deliveries d"
        " WHERE d.tenant_id = :tenant AND d.finished_at < {now} - :kept"
        " AND d.finished_at IS NOT NULL ORDER BY d.finished_at LIMIT :limit)",
        tenant=tenant_id,
        kept=kept_us,
        limit=limit,
    )


def drop_orphans(tx: Tx, *, limit: int) -> int:
    """Delete what is owed to a webhook that was deleted while a run ended."""
    return tx.run(
        "DELETE FROM webhook_deliveries WHERE id IN (SELECT d.id FROM webhook_deliveries d"
        " WHERE d.next_at IS NOT NULL AND NOT EXISTS (SELECT 1 FROM webhooks w"
        " WHERE w.id = d.webhook_id) LIMIT :limit)",
        limit=limit,
    )


def reseal(tx: Tx, row: Row, *, key_id: str, ciphertext: str, version: int) -> Row | None:
    """Give a webhook another secret; None: it has not the one any more that was read."""
    after = tx.one(
        "UPDATE webhooks SET key_id = :key, ciphertext = :sealed, version = :version,"
        " updated_at = {now} WHERE id = :id AND version = :held RETURNING *",
        key=key_id,
        sealed=ciphertext,
        version=version,
        id=row["id"],
        held=row["version"],
    )
    return _decoded(after) if after else None
