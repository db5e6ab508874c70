"""Commands on stored output, leases, workers, hosts and the schema; no worker runs."""

import json

import pytest

from command_line import call, create_environment, submitted
from leasehold.store import executions, schema
from leasehold.store.database import Database
from leasehold.store.executions import CHUNK_BYTES
from store.rows import insert_execution, insert_held, insert_lease, insert_run, insert_worker

pytestmark = pytest.mark.usefixtures("deployment")


def test_stored_output_is_written_whole_and_in_order(database: Database) -> None:
    with database.write("test") as tx:
        run, lease = insert_held(tx)
        row = insert_execution(tx, run, lease_id=lease["id"])
        for offset in range(0, 10 * CHUNK_BYTES, CHUNK_BYTES):
            data = b"%07d\n" % offset * (CHUNK_BYTES // 8)
            executions.append(tx, row["id"], stream="stdout", offset=offset, data=data)
        executions.append(tx, row["id"], stream="stderr", offset=0, data=b"oops\n")
    said = call("runs", "logs", run["id"])
    assert said.code == 0
    assert len(said.out) == 10 * CHUNK_BYTES
    assert said.out.splitlines() == sorted(said.out.splitlines())
    assert said.err == "oops\n"
    pieces = call("runs", "logs", "--json", run["id"]).json()
    text = "".join(piece["text"] for piece in pieces if piece["stream"] == "stdout")
    assert text == said.out


def test_leases_are_listed_with_their_fence_and_cleanup(database: Database) -> None:
    with database.write("test") as tx:
        idle = insert_lease(tx, status="idle")
        insert_lease(tx, status="released")
    rows = call("leases", "list", "--json").json()
    assert [row["status"] for row in rows] == ["released", "idle"]
    assert {
        *("id", "status", "provider", "sandbox_id", "environment", "run_id", "fence"),
        *("expires_at", "cleanup_status", "cleanup_attempts", "metadata"),
    } <= set(rows[0])
    assert rows[0]["expires_at"] is None
    assert rows[1]["expires_at"].endswith("Z")
    live = call("leases", "list", "--live", "--json").json()
    assert [row["id"] for row in live] == [idle["id"]]
    assert call("leases", "list", "--status", "broken").code == 2
    assert idle["id"].rsplit("-", 1)[-1] in call("leases", "list").out
    events = call("leases", "show", idle["id"], "--json").json()["events"]
    assert events[-1]["name"] == "lease.idle"


def test_an_idle_lease_is_retained_and_an_active_one_not_destroyed(
    database: Database,
) -> None:
    with database.write("test") as tx:
        idle = insert_lease(tx, status="idle")
        _, active = insert_held(tx)
    # Nobody is there to push the sandbox's own end on yet.
    assert call("leases", "retain", idle["id"], "--json").json()["status"] == "releasing"
    assert call("leases", "retain", idle["id"], "--json").json()["status"] == "releasing"
    said = call("leases", "destroy", active["id"])
    assert said.code == 4
    assert "is in use by run" in said.err
    assert call("leases", "retain", active["id"], "--json").json()["status"] == "active"


def test_a_lease_needs_a_time_above_zero_and_a_host() -> None:
    create_environment("place")
    assert call("leases", "create", "--env", "place", "--ttl", "-1s").code == 2
    with_nobody = call("env", "create", "other", "--provider", "fake")
    assert with_nobody.code == 0
    said = call("leases", "create", "--env", "place", "--wait", "0", "--json")
    assert said.code == 0, said.err
    assert said.json()["status"] == "acquiring"


def test_workers_hosts_and_providers_are_listed() -> None:
    worker = call("workers", "list", "--json").json()[0]
    assert worker["providers"] == ["fake"]
    assert worker["queues"] == ["leasehold"]
    assert {"id", "host", "pid", "status", "started_at"} <= set(worker)
    provider = call("providers", "list", "--json").json()[0]
    assert (provider["key"], provider["health"], provider["live"]) == ("fake", "healthy", True)
    assert "fake" in call("providers", "list").out
    assert "isolation" in call("providers", "show", "fake").out
    assert "worker-1" in call("workers", "list").out
    assert call("hosts", "list", "--json").json()[0]["live"] is True
    assert "here" in call("hosts", "list").out


def test_a_drained_host_gets_nothing_new() -> None:
    create_environment("place")
    assert call("workers", "drain", "worker-1", "--json").json()["draining"] is True
    run = submitted("--env", "place", "--", "true")
    assert run["status"] == "queued"
    assert call("workers", "drain", "nobody").code == 3


def test_a_live_host_is_not_forgotten_and_a_dead_one_with_its_leases(
    database: Database,
) -> None:
    assert call("hosts", "forget", "here", "--yes").code == 4
    with database.write("test") as tx:
        dead = insert_worker(tx, "worker-2")
        tx.run("UPDATE workers SET status = 'gone', gone_at = started_at WHERE id = 'worker-2'")
        tx.run(
            "UPDATE sessions SET status = 'expired', ended_at = started_at WHERE id = :id",
            id=dead["session_id"],
        )
        idle = insert_lease(tx, status="idle", host_id=dead["host_id"])
        owed = insert_lease(tx, status="releasing", host_id=dead["host_id"])
    assert "2 leases" in call("hosts", "forget", dead["host_id"]).err
    said = call("hosts", "forget", dead["host_id"], "--yes", "--json").json()
    assert said["leases_ended"] == 2
    for lease in (idle, owed):
        shown = call("leases", "show", lease["id"], "--json").json()
        assert (shown["status"], shown["reason"]) == ("failed", "its host was forgotten")
    assert len(call("hosts", "list", "--json").json()) == 1


@pytest.mark.breaks_invariants
def test_verify_finds_a_status_that_no_event_says(database: Database) -> None:
    assert call("verify", "--json").json()["ok"] is True
    with database.write("test") as tx:
        run = insert_run(tx, status="queued")
        tx.run("DELETE FROM events WHERE run_id = :id", id=run["id"])
    said = call("verify", "--json")
    assert said.code == 1
    found = said.json()
    assert {v["promise"] for v in found["violations"]} == {"P9"}
    assert found["differences"][0]["id"] == run["id"]
    assert call("verify").code == 1


def test_the_schema_is_checked_and_upgraded(database_url: str) -> None:
    assert call("db", "check").code == 0
    assert json.loads(call("db", "upgrade", "--json").out)["from"] == schema.HEAD
    assert call("db", "check", "--json").json()["ok"] is True
