"""SQL of config checks: questions to workers; see `orchestrator.vetting`."""

from collections.abc import Mapping, Sequence
from typing import Any

from leasehold.ids import new_id
from leasehold.store.database import Row, Tx
from leasehold.store.runs import insert_row
from leasehold.store.sql import dump, load, numbered


def insert(
    tx: Tx,
    *,
    tenant_id: str,
    provider: str,
    config: Mapping[str, Any],
    requires: Mapping[str, str],
    queue: str,
    again_us: int,
    wait_us: int,
) -> str:
    """Ask; return the question's id."""
    now = tx.now()
    values = {
        "id": new_id(),
        "tenant_id": tenant_id,
        "provider": provider,
        "config": dict(config),
        "requires": dict(requires),
        "queue": queue,
        "due_at": now + again_us,
        "asked_at": now,
        "until_at": now + wait_us,
    }
    return str(insert_row(tx, "config_checks", values)["id"])


def find(tx: Tx, check_id: str) -> Row | None:
    row = tx.one("SELECT * FROM config_checks WHERE id = :id", id=check_id)
    if row is not None:
        row["answer"] = load(row["answer"])
    return row


def claim(tx: Tx, check_id: str, *, worker_id: str, for_us: int) -> Row | None:
    """Take a question that is open; None: answered, given up, or another worker is at it."""
    row = tx.one(
        "UPDATE config_checks SET claimed_by = :worker, tries = tries + 1,"
        " due_at = {now} + :lasts WHERE id = :id AND answered_at IS NULL AND until_at > {now}"
        " AND (claimed_by IS NULL OR due_at <= {now}) RETURNING *, {now} AS now_us",
        id=check_id,
        worker=worker_id,
        lasts=for_us,
    )
    if row is not None:
        row["config"] = load(row["config"])
    return row


def answer(tx: Tx, check_id: str, said: Mapping[str, Any]) -> bool:
    """Answer, unless somebody has."""
    return bool(
        tx.run(
            "UPDATE config_checks SET answer = :said, answered_at = {now}, claimed_by = NULL,"
            " due_at = NULL WHERE id = :id AND answered_at IS NULL",
            id=check_id,
            said=dump(dict(said)),
        )
    )


def put_back(tx: Tx, check_id: str, *, worker_id: str, wait_us: int) -> None:
    """Let somebody else try, after a moment."""
    tx.run(
        "UPDATE config_checks SET claimed_by = NULL, due_at = {now} + :wait"
        " WHERE id = :id AND claimed_by = :worker",
        id=check_id,
        worker=worker_id,
        wait=wait_us,
    )


def give_up(tx: Tx, worker_ids: Sequence[str]) -> int:
    """Make due what dead workers were at; return how many."""
    names, params = numbered("w", list(worker_ids))
    return tx.run(
        "UPDATE config_checks SET claimed_by = NULL, due_at = {now}"
        f" WHERE claimed_by IN ({names})",
        **params,
    )


def due(tx: Tx, *, limit: int) -> list[Row]:
    """Take what is to be sent again; what nobody waits for any more rests."""
    tx.run(
        "UPDATE config_checks SET claimed_by = NULL, due_at = NULL"
        " WHERE due_at <= {now} AND until_at <= {now}"
    )
    return tx.all(
        "SELECT * FROM config_checks WHERE due_at <= {now} ORDER BY due_at LIMIT :limit {skip}",
        limit=limit,
    )


def push_on(tx: Tx, check_id: str, *, queue: str, wait_us: int) -> None:
    """Say where a question is sent now, and when it is looked at again."""
    tx.run(
        "UPDATE config_checks SET claimed_by = NULL, queue = :queue, due_at = {now} + :wait"
        " WHERE id = :id",
        id=check_id,
        queue=queue,
        wait=wait_us,
    )


def drop(tx: Tx, *, kept_s: float, limit: int) -> int:
    """Delete questions whose askers went away long ago; return how many."""
    return tx.run(
        "DELETE FROM config_checks WHERE id IN (SELECT id FROM config_checks"
        " WHERE until_at < {now} - :kept ORDER BY until_at LIMIT :limit)",
        kept=int(kept_s * 1_000_000),
        limit=limit,
    )
