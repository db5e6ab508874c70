"""
Giving up the claims of workers that are no more.

Authority: the caller has proof (the agent saw its child die; an observer saw a session stand
still for its whole time to live). Each claimed row's fence is raised, so that the former
holder, should it still run, writes nothing and starts nothing; and the row becomes due.
Lock order as everywhere: leases by id, then runs by id.
"""

from collections.abc import Sequence
from typing import Final

from leasehold.store import config_checks
from leasehold.store.database import Tx
from leasehold.store.sql import load, numbered

_RESERVED: Final = 32
"""More messages than a worker holds at once: one for each thread, and one beyond."""


def give_up(tx: Tx, worker_ids: Sequence[str]) -> int:
    """Raise the fence of everything these workers claimed, make it due; return how many."""
    if not worker_ids:
        return 0
    names, params = numbered("w", list(worker_ids))
    leases = tx.all(
        "SELECT id FROM leases WHERE"
        f" claimed_by IN ({names}) OR id IN (SELECT lease_id FROM runs"
        f" WHERE claimed_by IN ({names}) AND lease_id IS NOT NULL) ORDER BY id {{lock}}",
        **params,
    )
    for row in leases:
        tx.run("UPDATE leases SET fence = fence + 1 WHERE id = :id", id=row["id"])
    count = tx.run(
        "UPDATE leases SET due_at = {now}, claimed_by = NULL, publishes = 0"
        f" WHERE claimed_by IN ({names})",
        **params,
    )
    runs = tx.all(
        f"SELECT id FROM runs WHERE claimed_by IN ({names}) ORDER BY id {{lock}}", **params
    )
    for row in runs:
        count += tx.run(
            "UPDATE runs SET fence = fence + 1, due_at = {now}, claimed_by = NULL,"
            " publishes = 0, beat = (beat AND end_requested IS NULL) WHERE id = :id",
            id=row["id"],
        )
    return count + config_checks.give_up(tx, worker_ids)


ORPHANED: Final = (
    "SELECT {table}.claimed_by FROM {table} JOIN workers ON workers.id = {table}.claimed_by"
    " WHERE {table}.claimed_by IS NOT NULL AND workers.status = 'gone'"
)


def of_the_gone(tx: Tx) -> list[str]:
    """
    Return workers that are gone and still claim something.

    The server may write a dead client's last commit after its death was seen and its claims
    were looked for.
    """
    both = " UNION ".join(ORPHANED.replace("{table}", table) for table in ("leases", "runs"))
    return [row["claimed_by"] for row in tx.all(f"{both} ORDER BY 1")]


def hurry(tx: Tx, worker_ids: Sequence[str]) -> None:
    """
    Make due what dead workers may have taken from the broker and had not claimed yet.

    Nobody knows which messages those were; it is what was sent longest ago and is not claimed.
    To send one twice costs a look, to wait for the clock's next try costs seconds.
    """
    names, params = numbered("w", worker_ids)
    rows = tx.all(f"SELECT queues FROM workers WHERE id IN ({names})", **params)
    queues = sorted({queue for row in rows for queue in load(row["queues"])})
    names, params = numbered("q", queues)
    # Later steps count their own tries in `publishes`: to them it may be a wait.
    fresh = " AND status = 'running' AND step IN ('validate', 'acquire')"
    for table, runs_only in (("leases", ""), ("runs", fresh)):
        tx.run(
            f"UPDATE {table} SET due_at = {{now}} WHERE id IN (SELECT id FROM {table}"
            f" WHERE due_at > {{now}} AND claimed_by IS NULL AND publishes > 0"
            f" AND queue IN ({names}){runs_only} ORDER BY due_at LIMIT :most {{skip}})",
            most=_RESERVED,
            **params,
        )


def abandon(
    tx: Tx,
    *,
    run_id: str | None,
    lease_id: str | None,
    fence: int,
    worker_id: str,
    wait_us: int,
) -> None:
    """
    Give up one claim of our own, if it is still ours at this fence; due after a pause.

    What another holds at this very fence stays as it is: a worker whose own try to claim was
    cut off does not know who was faster.
    """
    if lease_id is not None and not tx.all(
        "SELECT 1 AS held FROM leases WHERE id = :id AND fence = :fence {lock}",
        id=lease_id,
        fence=fence,
    ):
        return
    if run_id is None:
        tx.run(
            "UPDATE leases SET fence = fence + 1, claimed_by = NULL, due_at = {now} + :wait"
            " WHERE id = :id AND claimed_by = :worker",
            id=lease_id,
            wait=wait_us,
            worker=worker_id,
        )
        return
    given_up = tx.run(
        "UPDATE runs SET fence = fence + 1, claimed_by = NULL, due_at = {now} + :wait,"
        " beat = (beat AND end_requested IS NULL) WHERE id = :id AND claimed_by = :worker",
        id=run_id,
        wait=wait_us,
        worker=worker_id,
    )
    if given_up and lease_id is not None:
        tx.run("UPDATE leases SET fence = fence + 1 WHERE id = :id", id=lease_id)
