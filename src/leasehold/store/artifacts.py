"""SQL of artifacts: what runs left in the store."""

from collections.abc import Mapping, Sequence
from typing import Any

from leasehold.store.database import Row, Tx
from leasehold.store.runs import insert_row


def replace(tx: Tx, run: Row, lines: Sequence[Mapping[str, Any]]) -> None:
    """Write what a run left, in the place of what an earlier try may have written."""
    tx.run("DELETE FROM artifacts WHERE run_id = :run", run=run["id"])
    for line in lines:
        values = {
            **line,
            "run_id": run["id"],
            "tenant_id": run["tenant_id"],
            "created_at": tx.stamp(),
        }
        insert_row(tx, "artifacts", values, back="run_id")


def of_run(tx: Tx, run_id: str, *, kinds: Sequence[str] = ()) -> list[Row]:
    """List what a run left, in the order of paths."""
    only = f" AND kind IN ({', '.join(repr(kind) for kind in kinds)})" if kinds else ""
    return tx.all(
        f"SELECT * FROM artifacts WHERE run_id = :run{only} ORDER BY kind, path", run=run_id
    )
