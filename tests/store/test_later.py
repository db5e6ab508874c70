"""Writes that wait for the next statement or the commit: all of them, or none."""

from typing import Any

import pytest

from leasehold.domain.lifecycle import LeaseStatus, RunStatus
from leasehold.errors import LostClaimError
from leasehold.store import leases, moves
from leasehold.store.database import Database, Row, Tx
from leasehold.store.runs import insert_later
from leasehold.store.sql import combined, ready
from store.rows import insert_held, insert_run, insert_worker


def stored(database: Database, table: str, row_id: str) -> Row:
    with database.read() as tx:
        row = tx.one(f"SELECT * FROM {table} WHERE id = :id", id=row_id)
    assert row is not None
    return row


def held(database: Database) -> tuple[Row, Row]:
    with database.write("test") as tx:
        insert_worker(tx)
        return insert_held(tx, claimed_by="worker-1", due_at=None)


def test_what_a_holder_writes_is_there_after_the_commit_and_in_its_hands_at_once(
    database: Database,
) -> None:
    run, lease = held(database)
    with database.write("test") as tx:
        before = tx.statements
        lease, run = leases.hold_both(tx, lease, run, fence=lease["fence"])
        moved = moves.move(tx, "runs", run["id"], None, held=run, publishes=7)
        after = moves.move(
            tx, "leases", lease["id"], None, held=lease, fence=lease["fence"] + 1, reason="why"
        )
        moves.record(tx, "step.execute.started", tenant_id="default", run_id=run["id"])
        assert moved is not None
        assert after is not None
        assert tx.statements == before + 1
    for table, row in (("runs", moved), ("leases", after)):
        found = stored(database, table, row["id"])
        assert {name: row[name] for name in found} == found


def test_on_postgresql_what_waits_is_one_statement(database: Database) -> None:
    run, lease = held(database)
    with database.write("test") as tx:
        lease, run = leases.hold_both(tx, lease, run, fence=lease["fence"])
        moves.move(tx, "runs", run["id"], None, held=run, publishes=7)
        moves.move(tx, "leases", lease["id"], None, held=lease, reason="why")
        moves.record(tx, "step.execute.started", tenant_id="default", run_id=run["id"])
        moves.flush(tx)
        before = tx.statements
        tx.settle()
        assert tx.statements - before == (1 if tx.dialect == "postgresql" else 3)


def test_a_statement_sees_what_was_written_before_it(database: Database) -> None:
    run, _ = held(database)
    with database.write("test") as tx:
        moves.move(tx, "runs", run["id"], None, held=run, publishes=7)
        assert tx.value("SELECT publishes FROM runs WHERE id = :id", id=run["id"]) == 7


def test_two_writes_to_one_row_come_in_their_order(database: Database) -> None:
    run, _ = held(database)
    with database.write("test") as tx:
        first = moves.move(tx, "runs", run["id"], None, held=run, fence=run["fence"] + 1)
        assert first is not None
        moves.move(tx, "runs", run["id"], None, held=first, fence=first["fence"] + 1)
    assert stored(database, "runs", run["id"])["fence"] == run["fence"] + 2


@pytest.mark.parametrize("beside", [False, True])
def test_a_row_that_is_not_as_it_was_held_takes_everything_back(
    database: Database, beside: bool
) -> None:
    run, lease = held(database)
    stale = lease | {"fence": lease["fence"] - 1}

    def act(tx: Tx) -> None:
        if beside:
            moves.move(tx, "runs", run["id"], None, held=run, publishes=7)
        moves.move(tx, "leases", lease["id"], None, held=stale, fence=lease["fence"])
        moves.record(tx, "step.execute.started", tenant_id="default", run_id=run["id"])

    with pytest.raises(LostClaimError, match=f"lease {lease['id']}"), database.write("t") as tx:
        act(tx)
    assert stored(database, "runs", run["id"])["publishes"] == run["publishes"]
    assert stored(database, "leases", lease["id"])["fence"] == lease["fence"]


def test_no_arrow_no_write(database: Database) -> None:
    with database.write("test") as tx:
        run = insert_run(tx, status=RunStatus.SUCCEEDED)
        assert moves.move(tx, "runs", run["id"], RunStatus.RUNNING, held=run) is None
    assert stored(database, "runs", run["id"])["status"] == "succeeded"


def test_a_row_of_our_own_making_comes_before_what_names_it(database: Database) -> None:
    run, lease = held(database)
    with database.write("test") as tx:
        values = {"id": f"{run['id']}.0.1", "tenant_id": "default", "run_id": run["id"]}
        more: dict[str, Any] = {"lease_id": lease["id"], "command_index": 0, "number": 1}
        counts = dict.fromkeys(("stdout_offset", "stderr_offset"), 0)
        counts |= dict.fromkeys(("stdout_dropped", "stderr_dropped"), 0)
        ends = {"attempt": 1, "status": "starting", "created_at": 1}
        row = insert_later(tx, "executions", values | more | counts | ends)
        moves.move(tx, "runs", run["id"], None, held=run, starts=1)
    found = stored(database, "executions", row["id"])
    assert {name: row[name] for name in found} == found


def test_a_holder_sees_what_others_wrote_meanwhile_and_nothing_else_is_read(
    database: Database,
) -> None:
    run, lease = held(database)
    with database.write("other") as tx:
        moves.move(tx, "runs", run["id"], None, end_requested="cancel", end_requested_at=5)
        moves.move(tx, "leases", lease["id"], None, retain=True)
    with database.write("test") as tx:
        after, now = leases.hold_both(tx, lease, run, fence=lease["fence"])
        alone = leases.hold(tx, lease, fence=lease["fence"])
    assert (now["end_requested"], now["end_requested_at"]) == ("cancel", 5)
    assert after["retain"]
    assert alone["retain"]
    assert after["status"] == LeaseStatus.ACTIVE
    assert now["spec"] == run["spec"]
    with database.write("test") as tx, pytest.raises(LostClaimError, match="past fence"):
        leases.hold_both(tx, lease, run, fence=lease["fence"] - 1)


def test_the_combined_statement_keeps_the_names_apart() -> None:
    text = combined(("UPDATE a SET x = :x WHERE id = :id", "INSERT INTO b (c) VALUES (:x)"))
    sql = (
        "WITH w0 AS (UPDATE a SET x = $1 WHERE id = $2 RETURNING 1),"
        " w1 AS (INSERT INTO b (c) VALUES ($3) RETURNING 1)"
        " SELECT (SELECT count(*) FROM w0), (SELECT count(*) FROM w1)"
    )
    assert ready(text, "postgresql") == (sql, ("w0_x", "w0_id", "w1_x"))
