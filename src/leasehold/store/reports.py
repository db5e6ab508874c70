"""SQL of what commands report of their runs."""

from typing import Any, Final

from leasehold.store.database import Row, Tx
from leasehold.store.sql import dump, load

_CURRENT: Final = (
    "SELECT x.id AS execution_id, x.run_id, x.tenant_id, x.secrets, l.facts, r.end_requested,"
    " r.lease_id FROM executions x JOIN runs r ON r.id = x.run_id"
    " JOIN leases l ON l.id = x.lease_id"
    " WHERE x.id = :id AND x.status IN ('starting', 'running') AND r.status = 'running'"
    " AND x.runtime_url IS NOT NULL"
)


def current(tx: Tx, execution_id: str) -> Row | None:
    """Return a start that is its run's current one, with its run; None: it is over."""
    row = tx.one(_CURRENT, id=execution_id)
    if row is not None:
        row["secrets"], row["facts"] = load(row["secrets"]), load(row["facts"])
    return row


def hold(tx: Tx, execution_id: str, *, run_id: str) -> Row | None:
    """
    Return it while nothing can end it: whoever does needs the run's row, which is locked.

    Reports of one run come one after the other, so that what they count is right.
    """
    tx.one("SELECT id FROM runs WHERE id = :id {lock}", id=run_id)
    return current(tx, execution_id)


def note(tx: Tx, held: Row, **values: Any) -> None:
    """Write what was reported over what was; a report's own time is `{now}`."""
    for name in ("progress_at", "result_at"):
        if name in values:
            values[name] = tx.stamp()
    if "result" in values:
        values["result"] = dump(values["result"])
    names = ["execution_id", "heard_at", *values]
    columns = ", ".join(["run_id", "tenant_id", *names])
    marks = ", ".join(f":{name}" for name in ("run_id", "tenant_id", *names))
    sets = ", ".join(f"{name} = excluded.{name}" for name in names)
    tx.run(
        f"INSERT INTO run_reports ({columns}) VALUES ({marks})"
        f" ON CONFLICT (run_id) DO UPDATE SET {sets}",
        run_id=held["run_id"],
        tenant_id=held["tenant_id"],
        execution_id=held["execution_id"],
        heard_at=tx.stamp(),
        **values,
    )


def find(tx: Tx, run_id: str) -> Row | None:
    """Return what was heard of a run last."""
    row = tx.one("SELECT * FROM run_reports WHERE run_id = :run", run=run_id)
    if row is not None:
        row["result"] = load(row["result"])
    return row


def count_line(tx: Tx, held: Row, *, most: int) -> bool:
    """Count a line of history that a command writes; False: it has written all it may."""
    note(tx, held)
    return bool(
        tx.run(
            "UPDATE run_reports SET lines = lines + 1 WHERE run_id = :run AND lines < :most",
            run=held["run_id"],
            most=most,
        )
    )
