"""A run gets more time while it is live: its deadline always, its timeout before a start."""

from typing import Any

import pytest

from leasehold.errors import BadInputError, ConflictError
from leasehold.maintenance import clock
from leasehold.orchestrator import extending
from leasehold.store import leases
from leasehold.store.database import Database, Row
from store.rows import insert_execution, insert_held, insert_run

from .conftest import House


def extend(database: Database, run_id: str, **more: Any) -> Row:
    spec = extending.ExtendSpec.model_validate(more)
    with database.write("test") as tx:
        return extending.extend(tx, run_id, spec, actor="somebody")


def test_a_deadline_that_was_moved_strikes_when_it_says_and_not_before(house: House) -> None:
    house.environment()
    run_id = house.submit("sleep", "30", deadline_s=3600)
    house.until(lambda: bool(house.run(run_id)["beat"]))
    before = house.run(run_id)
    after = extend(house.database, run_id, deadline_s="2h")
    assert after["deadline_at"] > before["deadline_at"] + 3500 * 1_000_000
    # The old deadline comes: nothing ends, the timer goes on to the new one.
    with house.database.write("test") as tx:
        tx.run("UPDATE runs SET timer_at = {now} WHERE id = :id", id=run_id)
    clock.run_once(house.worker, batch=100)
    run = house.run(run_id)
    assert (run["end_requested"], run["timer_at"]) == (None, after["deadline_at"])
    with house.database.write("test") as tx:
        tx.run(
            "UPDATE runs SET timer_at = {now}, deadline_at = {now} WHERE id = :id", id=run_id
        )
    clock.run_once(house.worker, batch=100)
    house.over(run_id)
    assert house.run(run_id)["status"] == "timed_out"
    house.quiet()


def test_who_holds_the_run_reads_the_new_deadline_with_its_next_transaction(
    database: Database,
) -> None:
    with database.write("test") as tx:
        run, lease = insert_held(tx, claimed_by="worker-1", due_at=None)
    after = extend(database, run["id"], deadline_s="9h")
    with database.write("test") as tx:
        held = leases.hold_both(tx, lease, run, fence=lease["fence"])[1]
        assert held["deadline_at"] == after["deadline_at"]
        tx.run("UPDATE runs SET claimed_by = NULL, due_at = {now} WHERE id = :id", id=run["id"])


def test_a_timeout_is_longer_for_what_starts_later(house: House) -> None:
    house.environment()
    run_id = house.submit("sleep", "0.3", timeout_s=0.1)
    extend(house.database, run_id, timeout_s=60)
    house.over(run_id)
    assert house.run(run_id)["status"] == "succeeded"
    assert "run.extended" in house.events(run_id)
    house.quiet()


def test_less_time_is_refused_and_so_is_what_cannot_be_kept(database: Database) -> None:
    spec = {"commands": [{"argv": ["true"]}], "timeout_s": 600}
    with database.write("test") as tx:
        waits = insert_run(tx, spec=spec)["id"]
        held = insert_run(tx, spec=spec, claimed_by="worker-1", due_at=None)["id"]
        run, lease = insert_held(tx, spec=spec)
        insert_execution(tx, run, lease_id=lease["id"])
        ends = insert_run(tx, end_requested="cancel", timer_at=None)["id"]
        over = insert_run(tx, status="failed")["id"]
        bare = insert_run(tx)["id"]
    for run_id, more, words in (
        (waits, {"deadline_s": 60}, "a run gets more time, never less"),
        (waits, {"timeout_s": 60}, "have 600 s; a run gets more time, never less"),
        (held, {"timeout_s": 900}, "a worker prepares the next command"),
        (
            run["id"],
            {"timeout_s": 900},
            "runs with a timeout of 600 s, which its sandbox keeps",
        ),
        (run["id"], {"timeout_s": 900, "deadline_s": "9h"}, "nobody can move"),
        (ends, {"deadline_s": "9h"}, "is to end already (cancel)"),
        (over, {"deadline_s": "9h"}, "is failed; only a live one gets more time"),
        (bare, {"timeout_s": 60}, "have no timeout"),
    ):
        with database.read() as tx:
            before = tx.all("SELECT * FROM runs ORDER BY id"), tx.all("SELECT * FROM events")
        with pytest.raises(ConflictError, match=words.replace("(", r"\(").replace(")", r"\)")):
            extend(database, run_id, **more)
        with database.read() as tx:
            assert before == (
                tx.all("SELECT * FROM runs ORDER BY id"),
                tx.all("SELECT * FROM events"),
            )
    with pytest.raises(BadInputError, match="give deadline_s, timeout_s or both"):
        extend(database, waits)
    with database.write("test") as tx:
        tx.run("UPDATE runs SET claimed_by = NULL, due_at = {now} WHERE id = :id", id=held)
