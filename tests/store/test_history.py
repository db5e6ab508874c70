"""Status is recomputed from events; every way in which they can differ is told apart."""

import pytest

from leasehold.store import history, moves
from leasehold.store.database import Database, Tx
from store.rows import insert_execution, insert_held, insert_lease, insert_run

pytestmark = pytest.mark.breaks_invariants


def problems(tx: Tx) -> list[tuple[str, str]]:
    return [(difference.noun, difference.problem) for difference in history.verify(tx)]


def test_rows_whose_events_lead_to_their_status_differ_in_nothing(database: Database) -> None:
    with database.write("test") as tx:
        run, lease = insert_held(tx)
        insert_execution(tx, run, lease_id=lease["id"])
        insert_execution(tx, run, lease_id=lease["id"], number=2, status="cancelled")
        insert_run(tx, status="timed_out")
        insert_lease(tx, status="expired")
        assert not history.verify(tx)


def test_a_status_that_changed_in_silence_is_found(database: Database) -> None:
    with database.write("test") as tx:
        run = insert_run(tx, status="queued")
        moves.move(tx, "runs", run["id"], "running", step="validate", due_at=tx.now())
        (difference,) = history.verify(tx)
    assert difference.noun == "run"
    assert difference.id == run["id"]
    assert (difference.stored, difference.replayed) == ("running", "queued")
    assert str(difference) == f"run {run['id']} is running: its last event says queued"


def test_a_lease_without_events_is_found(database: Database) -> None:
    with database.write("test") as tx:
        insert_lease(tx, status="idle")
        tx.run("DELETE FROM events")
        assert problems(tx) == [("lease", "no event says so")]


def test_a_history_that_begins_in_the_middle_is_found(database: Database) -> None:
    with database.write("test") as tx:
        insert_run(tx, status="running")
        tx.run("DELETE FROM events WHERE name = 'run.queued'")
        begins = "its events begin with running, not with queued"
        assert problems(tx) == [("run", begins)]


def test_a_step_that_is_no_arrow_is_found_although_the_end_is_right(database: Database) -> None:
    with database.write("test") as tx:
        run = insert_run(tx, status="queued")
        names = ("run.parked", "run.queued")
        moves.record(tx, *names, tenant_id="default", run_id=run["id"])
        no_arrow = "its events go from queued to parked, and there is no such arrow"
        assert problems(tx) == [("run", no_arrow)]


def test_an_execution_that_ended_in_silence_is_found(database: Database) -> None:
    with database.write("test") as tx:
        run, lease = insert_held(tx)
        execution = insert_execution(tx, run, lease_id=lease["id"])
        moves.move(tx, "executions", execution["id"], "lost", raw=("ended_at = {now}",))
        assert problems(tx) == [("execution", "its last event says running")]


def test_an_execution_that_is_adopted_after_its_start_is_in_order(database: Database) -> None:
    with database.write("test") as tx:
        run, lease = insert_held(tx)
        execution = insert_execution(tx, run, lease_id=lease["id"])
        adopted = ("execution.adopted", {"execution": execution["id"]})
        moves.record(tx, adopted, tenant_id="default", run_id=run["id"])
        assert not history.verify(tx)


def test_events_of_an_execution_without_a_row_are_found(database: Database) -> None:
    with database.write("test") as tx:
        run = insert_run(tx)
        started = ("execution.started", {"execution": "nobody"})
        moves.record(tx, started, tenant_id="default", run_id=run["id"])
        (difference,) = history.verify(tx)
    assert (difference.noun, difference.id) == ("execution", "nobody")


def test_every_page_is_read(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "PAGE", 2)
    with database.write("test") as tx:
        for _ in range(5):
            insert_run(tx, status="queued")
        tx.run("DELETE FROM events")
        before = tx.statements
        assert len(history.verify(tx)) == 5
        assert tx.statements - before < 20


def test_what_is_written_while_it_is_verified_is_no_difference(database: Database) -> None:
    with database.read() as tx:
        history.hold_still(tx)
        assert history.verify(tx) == []
        with database.write("test") as other:
            run = insert_run(other)
            other.run("UPDATE runs SET message = 'later' WHERE id = :id", id=run["id"])
            other.run("DELETE FROM events WHERE run_id = :id", id=run["id"])
        assert history.verify(tx) == [], "of that moment it knows nothing"
    with database.write("test") as tx:
        tx.run("DELETE FROM runs")
