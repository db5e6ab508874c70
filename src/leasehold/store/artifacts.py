"""SQL of artifacts: what runs left in the store."""

from collections.abc import Mapping, Sequence
from typing import Any

from leasehold.store import blobs
from leasehold.store.database import Row, Tx
from leasehold.store.runs import insert_row


def replace(tx: Tx, run: Row, lines: Sequence[Mapping[str, Any]]) -> None:
    """
    Write what a run left, in the place of what an earlier try may have written.

    What its commands have sent themselves stays, but for paths that were collected as well.
    """
    tx.run("DELETE FROM artifacts WHERE run_id = :run AND NOT pushed", run=run["id"])
    sent = {(row["kind"], row["path"]) for row in of_run(tx, run["id"])}
    for line in lines:
        if (line["kind"], line["path"]) in sent:
            _drop(tx, run["id"], line["kind"], line["path"])
        values = {
            **line,
            "run_id": run["id"],
            "tenant_id": run["tenant_id"],
            "created_at": tx.stamp(),
        }
        insert_row(tx, "artifacts", values, back="run_id")


def _drop(tx: Tx, run_id: str, kind: str, path: str) -> None:
    tx.run(
        "DELETE FROM artifacts WHERE run_id = :run AND kind = :kind AND path = :path",
        run=run_id,
        kind=kind,
        path=path,
    )


def pushed(tx: Tx, run_id: str, *, but: str) -> Row:
    """Count what a run's commands have sent, `files` and `bytes`, without one path."""
    row = tx.one(
        "SELECT count(*) AS files, COALESCE(SUM(bytes), 0) AS bytes FROM artifacts"
        " WHERE run_id = :run AND pushed AND path <> :but",
        run=run_id,
        but=but,
    )
    assert row is not None
    return {name: int(value) for name, value in row.items()}


def push(tx: Tx, held: Row, path: str, *, digest: str, size: int, grace_us: int) -> None:
    """Write the line of a file that a command has sent, over that of one sent before."""
    run_id, tenant_id = held["run_id"], held["tenant_id"]
    before = (
        "SELECT sha256 FROM artifacts WHERE run_id = :run AND kind = 'artifact'"
        " AND path = :path AND sha256 <> :digest"
    )
    blobs.release(
        tx, tenant_id, before, grace_us=grace_us, run=run_id, path=path, digest=digest
    )
    _drop(tx, run_id, "artifact", path)
    values = {
        "run_id": run_id,
        "kind": "artifact",
        "path": path,
        "tenant_id": tenant_id,
        "mode": 0o644,
        "bytes": size,
        "sha256": digest,
        "pushed": True,
        "created_at": tx.stamp(),
    }
    insert_row(tx, "artifacts", values, back="run_id")


def of_run(tx: Tx, run_id: str, *, kinds: Sequence[str] = ()) -> list[Row]:
    """List what a run left, in the order of paths."""
    only = f" AND kind IN ({', '.join(repr(kind) for kind in kinds)})" if kinds else ""
    return tx.all(
        f"SELECT * FROM artifacts WHERE run_id = :run{only} ORDER BY kind, path", run=run_id
    )
