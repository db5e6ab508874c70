"""Queues in numbers: depth, age, waits and rates, of one tenant and of the last hour."""

from typing import Any

import pytest

from leasehold.store import queues
from leasehold.store.database import Database
from store.rows import insert_run, insert_worker

SECOND_US = 1_000_000


def look(database: Database) -> queues.Queues:
    with database.read() as tx:
        return queues.look(tx, tenant_id="default")


@pytest.mark.breaks_invariants
def test_depth_and_waits_are_those_of_each_environment(database: Database) -> None:
    with database.write("test") as tx:
        tx.run("INSERT INTO tenants (id, created_at) VALUES ('other', 1)")
        now = tx.now()
        for age in (10, 20):
            insert_run(tx, status="queued", created_at=now - age * SECOND_US)
        insert_run(tx, status="queued", waits=1)
        insert_run(tx, status="queued", tenant_id="other")
        for wait in range(1, 101):
            times: dict[str, Any] = {"created_at": now - wait * SECOND_US, "started_at": now}
            insert_run(tx, status="succeeded", environment_id="b", **times)
        long_ago: dict[str, Any] = {
            "finished_at": now - 2 * queues.WINDOW_US,
            "started_at": 1,
            "created_at": 0,
        }
        insert_run(tx, status="succeeded", environment_id="c", **long_ago)
        pruned: dict[str, Any] = {
            "output_pruned_at": now,
            "created_at": now - 5 * SECOND_US,
            "started_at": now,
        }
        insert_run(tx, status="failed", environment_id="d", **pruned)
    found = look(database)
    first, second, third = found.queues
    assert (first.environment_id, first.depth) == ("environment-1", 2)
    assert first.oldest_us is not None
    assert first.oldest_us >= 20 * SECOND_US
    assert (second.environment_id, second.depth, second.started) == ("b", 0, 100)
    assert second.shares() == [51 * SECOND_US, 96 * SECOND_US, 100 * SECOND_US]
    assert (third.environment_id, third.ended) == ("d", 1)
    assert (found.preceded, found.is_cut) == (1, False)
    shape = queues.queue_view(second, {"b": "builds"})
    assert (shape["environment"], shape["p50_s"]) == ("builds", 51.0)


@pytest.mark.breaks_invariants
def test_what_is_admitted_is_counted_by_its_queue(database: Database) -> None:
    with database.write("test") as tx:
        insert_worker(tx)
        now = tx.now()
        insert_run(tx, due_at=now - SECOND_US)
        insert_run(tx, due_at=now + 3600 * SECOND_US)
        insert_run(tx, claimed_by="worker-1", due_at=None, queue="mine")
        insert_run(tx, beat=True, due_at=now - SECOND_US, queue="mine")
    first, second = look(database).lanes
    assert (first["queue"], first["running"], first["due"]) == ("leasehold", 2, 1)
    assert first["oldest_at"] == now - SECOND_US
    assert (second["queue"], second["due"], second["claimed"], second["beating"]) == (
        "mine", 0, 1, 1)  # fmt: skip


def test_nothing_is_no_queue(database: Database) -> None:
    found = look(database)
    assert (found.queues, found.lanes, found.preceded) == ([], [], 0)


def test_more_than_is_looked_at_is_said(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queues, "MOST", 2)
    with database.write("test") as tx:
        for _ in range(3):
            insert_run(tx, status="queued")
    found = look(database)
    assert (found.queues[0].depth, found.is_cut) == (2, True)
