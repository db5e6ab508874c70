"""What is stuck or orphaned, each for its own reason, and what comes next; nothing else."""

from collections.abc import Mapping
from typing import Any

import pytest

from command_line import environment, serve
from leasehold.domain.timers import Timers
from leasehold.orchestrator import troubles
from leasehold.orchestrator.jobs import Context
from leasehold.store.database import Database, Tx
from store.rows import (
    HOUR_US,
    insert_execution,
    insert_held,
    insert_lease,
    insert_run,
    insert_worker,
)

SECOND_US = 1_000_000


@pytest.fixture
def context(database: Database) -> Context:
    return Context(
        database=database,
        timers=Timers(),
        deployment="test",
        epoch=1,
        worker_id="",
        publish=lambda _message: None,
    )


def looked(database: Database, context: Context) -> dict[str, Any]:
    with database.read() as tx:
        return troubles.look(tx, context, tenant_id="default")


def kinds(rows: Any) -> dict[str, str]:
    return {one.id: one.kind for one in rows}


def dead_worker(tx: Tx, worker_id: str = "dead") -> Mapping[str, Any]:
    """Make a worker whose host agent was lost."""
    worker = insert_worker(tx, worker_id)
    now = tx.now()
    tx.run("UPDATE workers SET status = 'gone', gone_at = :now WHERE id = :id",
           now=now, id=worker_id)  # fmt: skip
    tx.run("UPDATE sessions SET status = 'expired', ended_at = :now WHERE id = :id",
           now=now, id=worker["session_id"])  # fmt: skip
    return worker


def test_what_goes_on_as_it_should_is_no_trouble(database: Database, context: Context) -> None:
    with database.write("test") as tx:
        host = insert_worker(tx)["host_id"]
        insert_held(tx, claimed_by="worker-1", due_at=None, host_id=host)
        insert_run(tx)
        insert_run(tx, status="succeeded")
        insert_lease(tx, status="idle", host_id=host)
        insert_lease(tx, status="releasing")
        insert_lease(tx, status="released", last_error="was away")
    found = looked(database, context)
    assert (found["stuck"], found["orphaned_runs"], found["leases"]) == ([], [], [])
    assert found["waiting"] == []
    assert found["agents"] == 1


def test_each_stuck_run_says_why_and_what_comes_next(
    database: Database, context: Context
) -> None:
    with database.write("test") as tx:
        insert_worker(tx)
        now = tx.now()
        rows = {
            "parked": insert_run(tx, status="parked", message="the engine is away"),
            "late": insert_run(tx, due_at=now - 60 * SECOND_US),
            "retrying": insert_run(
                tx, due_at=now + 60 * SECOND_US, code="unavailable", message="try again"
            ),
            "ending": insert_run(
                tx, end_requested="cancel", end_requested_at=now - 120 * SECOND_US
            ),
            "unclaimed": insert_run(tx, due_at=now + 60 * SECOND_US, publishes=7),
        }
        elsewhere = insert_run(tx, due_at=now - 60 * SECOND_US, queue="nobody.reads")
    found = looked(database, context)
    wanted = {row["id"]: kind for kind, row in rows.items()} | {elsewhere["id"]: "unclaimed"}
    assert kinds(found["stuck"]) == wanted
    by_id = {one.id: one for one in found["stuck"]}
    assert "the engine is away" in by_id[rows["parked"]["id"]].reason
    assert "timed_out" in by_id[rows["parked"]["id"]].next
    assert "try again" in by_id[rows["retrying"]["id"]].reason
    assert by_id[elsewhere["id"]].reason == "no live worker reads the queue nobody.reads"
    assert all(one.when for one in found["stuck"])


@pytest.mark.breaks_invariants
def test_a_claim_of_the_dead_is_orphaned(database: Database, context: Context) -> None:
    with database.write("test") as tx:
        insert_worker(tx)
        dead_worker(tx)
        run, _ = insert_held(tx, claimed_by="dead", due_at=None)
        lease = insert_lease(tx, status="releasing", claimed_by="dead", due_at=None)
    found = looked(database, context)
    assert kinds(found["orphaned_runs"]) == {run["id"]: "orphaned"}
    assert kinds(found["leases"]) == {lease["id"]: "orphaned"}
    assert "another worker goes on" in found["orphaned_runs"][0].next


def test_an_agent_that_does_not_beat_counts_as_dead_before_its_session_does(
    database: Database, context: Context
) -> None:
    with database.write("test") as tx:
        insert_worker(tx)
        run, _ = insert_held(tx, claimed_by="worker-1", due_at=None)
        tx.run("UPDATE sessions SET beat_at = beat_at - :long", long=HOUR_US)
    found = looked(database, context)
    assert kinds(found["orphaned_runs"]) == {run["id"]: "orphaned"}
    # Nobody is there who would do anything, so nothing is promised.
    assert found["agents"] == 0
    assert found["orphaned_runs"][0].next.startswith("nothing: start `leasehold up`")
    assert found["orphaned_runs"][0].when is None


@pytest.mark.parametrize("idempotent", [False, True])
def test_a_host_that_is_away_keeps_its_work(
    database: Database,
    context: Context,
    idempotent: bool,
) -> None:
    with database.write("test") as tx:
        insert_worker(tx)
        host = dead_worker(tx)["host_id"]
        spec = {"commands": [{"argv": ["true"]}], "idempotent": idempotent}
        run, lease = insert_held(tx, host_id=host, spec=spec)
        insert_execution(tx, run, lease_id=lease["id"], status="running", ended_at=None)
        end = tx.now() + HOUR_US
        tx.run(
            "UPDATE leases SET host_id = :host, sandbox_expires_at = :end", host=host, end=end
        )
    found = looked(database, context)
    one = found["orphaned_runs"][0]
    assert (one.kind, one.at_least) == ("host away", True)
    assert ("another host" in one.next) is idempotent
    assert ("execution_lost" in one.next) is not idempotent
    assert kinds(found["leases"]) == {lease["id"]: "host away"}


def test_a_cleanup_that_fails_says_how_often_and_when_next(
    database: Database, context: Context
) -> None:
    with database.write("test") as tx:
        insert_worker(tx)
        late = tx.now() + 60 * SECOND_US
        lease = insert_lease(
            tx, status="releasing", cleanup_attempts=4, last_error="engine is away", due_at=late
        )
    one = looked(database, context)["leases"][0]
    assert (one.id, one.kind) == (lease["id"], "cleanup failing")
    assert "4 attempts failed, the last one: engine is away" in one.reason
    assert one.when is not None


@pytest.mark.breaks_invariants
def test_runs_that_wait_for_the_same_are_one_group(
    database: Database, context: Context
) -> None:
    with database.write("test") as tx:
        serve(tx, key="fake", host_id=insert_worker(tx)["host_id"])
        place = environment(tx, "elsewhere", requires={"gpu": "yes"})["id"]
        ids = [insert_run(tx, status="queued", environment_id=place)["id"] for _ in range(3)]
        insert_run(tx, status="queued", environment_id=place, waits=1)
    groups = looked(database, context)["waiting"]
    assert [(one.environment, one.runs, one.run_id) for one in groups] == [
        ("elsewhere", 3, min(ids))
    ]
    assert "no live host" in groups[0].reason


@pytest.mark.breaks_invariants
def test_of_another_tenant_nothing_is_said(database: Database, context: Context) -> None:
    with database.write("test") as tx:
        tx.run("INSERT INTO tenants (id, created_at) VALUES ('other', 1)")
        dead_worker(tx)
        insert_run(tx, status="parked", tenant_id="other")
        insert_run(tx, tenant_id="other", claimed_by="dead", due_at=None)
        insert_run(tx, tenant_id="other", status="queued")
        insert_lease(tx, tenant_id="other", status="releasing", last_error="away")
    found = looked(database, context)
    assert [found[name] for name in ("stuck", "orphaned_runs", "leases", "waiting")] == [[]] * 4
