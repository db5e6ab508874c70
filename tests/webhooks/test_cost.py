"""What webhooks cost the end of a run: on PostgreSQL no statement, on SQLite a local one."""

from leasehold.domain.lifecycle import RunStatus
from leasehold.orchestrator import ending
from leasehold.store import moves, webhooks
from leasehold.store.database import Database, Row, Tx
from store.rows import insert_run
from webhooks.conftest import Post


def _finish_without(tx: Tx, run: Row) -> None:
    moves.move(
        tx,
        "runs",
        run["id"],
        RunStatus.FAILED,
        held=run,
        finished_at=tx.stamp(),
        step=None,
        claimed_by=None,
        due_at=None,
    )
    moves.record(tx, "run.failed", tenant_id=run["tenant_id"], run_id=run["id"])


def _statements(database: Database, *, told: bool) -> int:
    with database.write("test") as tx:
        run = insert_run(tx)
        moves.flush(tx)
        tx.settle()
        before = tx.statements
        _finish_without(tx, run)
        if told:
            webhooks.owe(tx, run, status="failed")
    return tx.statements - before


def test_the_end_of_a_run_costs_no_round_trip_more(database: Database) -> None:
    more = _statements(database, told=True) - _statements(database, told=False)
    assert more == (0 if database.dialect == "postgresql" else 1)


def test_many_ends_in_one_transaction_are_owed_each(post: Post) -> None:
    post.hook()
    with post.database.write("test") as tx:
        runs = [insert_run(tx, status="queued") for _ in range(3)]
        for run in runs:
            ending.fail_queued(tx, post.context, run, "full", "no room")
    assert {row["run_id"] for row in post.owed()} == {run["id"] for run in runs}
