"""SQL of what a person may change by hand: follow a run, drain or forget a host, delete."""

from leasehold.domain.lifecycle import LEASE_ENDS
from leasehold.store.columns import among
from leasehold.store.database import Row, Tx


def follow(tx: Tx, run_id: str, *, for_us: int) -> None:
    """
    Ask for quick beats of a run for a while; the first one at once.

    Only a resting beat is made due: what is claimed, or due for a claim, stays as it is.
    """
    tx.run(
        "UPDATE runs SET due_at = CASE WHEN beat AND due_at > {now}"
        " AND COALESCE(follow_until, 0) < {now} THEN {now} ELSE due_at END,"
        " follow_until = {now} + :for_us WHERE id = :id AND finished_at IS NULL",
        id=run_id,
        for_us=for_us,
    )


def drain_host(tx: Tx, host_id: str) -> None:
    """Send nothing new to a host; its agent's next start takes that back."""
    tx.run("UPDATE hosts SET draining = true WHERE id = :id", id=host_id)


def host_debts(tx: Tx, host_id: str) -> Row:
    """Count what still needs a host: live sessions, unfinished runs, live leases."""
    row = tx.one(
        "SELECT (SELECT count(*) FROM sessions WHERE host_id = :id AND status = 'live')"
        " AS sessions, (SELECT count(*) FROM runs WHERE host_id = :id"
        " AND finished_at IS NULL) AS runs, (SELECT count(*) FROM leases WHERE host_id = :id"
        f" AND status NOT IN ({among(LEASE_ENDS)})) AS leases",
        id=host_id,
    )
    assert row is not None
    return row


def live_leases_on(tx: Tx, host_id: str) -> list[Row]:
    """Lock the live leases of a host in the order of their ids."""
    return tx.all(
        "SELECT *, {now} AS now_us FROM leases WHERE host_id = :id"
        f" AND status NOT IN ({among(LEASE_ENDS)}) ORDER BY id {{lock}}",
        id=host_id,
    )


def forget_host(tx: Tx, host_id: str) -> None:
    """Delete a host that has no live session, with its sessions, workers and plugins."""
    for table in ("sweep_reports", "providers", "workers", "sessions"):
        tx.run(f"DELETE FROM {table} WHERE host_id = :id", id=host_id)
    tx.run("DELETE FROM hosts WHERE id = :id", id=host_id)
