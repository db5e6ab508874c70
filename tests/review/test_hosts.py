"""Hosts that are away, and what is kept for a person."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from leasehold.errors import UnavailableError
from leasehold.maintenance import hosts_lost
from leasehold.orchestrator import holding
from leasehold.orchestrator.jobs import lease_ref
from leasehold.provider import Budget, Target
from leasehold.provider.contract import Polled
from leasehold.provider.fake import FakeProvider
from leasehold.provider.registry import Registry
from leasehold.store.sql import load
from story.conftest import House


def test_runs_that_must_wait_for_a_lost_host_do_not_hold_up_those_that_need_not(
    house: House,
) -> None:
    house.environment()
    ids = sorted(house.submit("sleep", "600") for _ in range(3))
    free = sorted([house.submit("sleep", "600"), house.submit("sleep", "600", idempotent=True)])
    every = [*ids, *free]
    house.until(lambda: all(house.run(i)["beat"] and house.run(i)["due_at"] for i in every))
    with house.database.write("test") as tx:
        tx.run(
            "INSERT INTO hosts (id, name, capacity, draining, created_at, alive_at)"
            " VALUES ('gone', 'gone', 1, false, 1, 1)"
        )
        tx.run("UPDATE runs SET host_id = 'gone'")
    plain = next(i for i in free if not load(house.run(i)["spec"])["idempotent"])
    house.cancel(plain)
    report = hosts_lost.run_once(house.worker, batch=2)
    assert report.moved == 2
    assert house.run(plain)["status"] == "cancelled"
    assert [house.run(i)["status"] for i in ids] == ["running"] * 3
    with house.database.write("test") as tx:
        tx.run("UPDATE runs SET host_id = NULL")
    for run_id in every:
        house.cancel(run_id)
    house.over(*every)


def test_an_idle_sandbox_that_is_retained_lives_as_long_as_its_lease(house: House) -> None:
    house.environment(policy="reuse_by_environment")
    house.over(house.submit("true"))
    house.quiet()
    with house.database.write("test") as tx:
        holding.retain(tx, house.worker, house.leases()[0]["id"])
    house.until(lambda: house.leases()[0]["status"] == "retained")
    lease = house.leases()[0]
    target = Target(
        lease=lease_ref(lease, deployment="story"), handle=lease["handle"], config={}
    )
    seen = house.registry.require("fake").inspect(target, budget=Budget(1.0))
    assert seen.expires_in_s is not None
    assert timedelta(seconds=seen.expires_in_s) > house.worker.timers.retained_ttl


def test_a_beat_does_not_shorten_the_life_of_a_sandbox_that_is_held(house: House) -> None:
    environment = house.environment()
    with house.database.write("test") as tx:
        hold_for = timedelta(hours=8)
        holding.create(tx, house.worker, environment, hold_for=hold_for, version="1", key="k")
    house.until(lambda: house.leases()[0]["status"] == "idle")
    run_id = house.submit("sleep", "600", lease_id=house.leases()[0]["id"])
    house.until(lambda: bool(house.run(run_id)["beat"]))
    with house.database.write("test") as tx:
        tx.run("UPDATE leases SET renew_at = 1")
    house.until(lambda: house.leases()[0]["renew_at"] > 1)
    house.cancel(run_id)
    house.over(run_id)
    lease = house.leases()[0]
    assert lease["status"] == "idle"
    target = Target(
        lease=lease_ref(lease, deployment="story"), handle=lease["handle"], config={}
    )
    seen = house.registry.require("fake").inspect(target, budget=Budget(1.0))
    assert seen.expires_in_s is not None
    assert seen.expires_in_s > 8 * 3600 - 60


class Cut(FakeProvider):
    """Its sandboxes cannot be looked at, and take orders all the same."""

    def poll(self, *_: Any, **__: Any) -> Sequence[Polled]:
        raise UnavailableError("the network is cut")


def test_the_life_of_a_sandbox_that_does_not_answer_is_not_believed_to_grow(
    house: House,
) -> None:
    house.environment()
    run_id = house.submit("sleep", "600")
    house.until(lambda: bool(house.run(run_id)["beat"]))
    before = house.leases()[0]["sandbox_expires_at"]
    house.registry = Registry({"fake": Cut(house.world)})
    house.bury(house.worker)
    house.worker = house.hire()
    with house.database.write("test") as tx:
        tx.run("UPDATE leases SET renew_at = 1")
    house.until(lambda: house.run(run_id)["publishes"] > 2)
    assert house.leases()[0]["sandbox_expires_at"] == before
    house.registry = Registry({"fake": FakeProvider(house.world)})
    house.worker = house.hire()
    house.until(lambda: house.leases()[0]["sandbox_expires_at"] > before)
    house.cancel(run_id)
    house.over(run_id)


def test_a_run_that_nobody_is_left_to_end_ends_all_the_same(house: House) -> None:
    house.environment()
    house.worker.timers = replace(house.worker.timers, host_grace=timedelta(milliseconds=50))
    ids = [house.submit("sleep", "600") for _ in range(2)]
    house.until(lambda: all(house.run(i)["beat"] and house.run(i)["due_at"] for i in ids))
    house.lossy = True  # whoever served the provider is away
    with house.database.write("test") as tx:
        tx.run("UPDATE sessions SET status = 'expired', ended_at = {now}")
        tx.run("UPDATE providers SET health = 'unhealthy'")
    house.cancel(ids[0])
    house.until(lambda: bool(house.run(ids[0])["finished_at"]))
    assert house.run(ids[0])["status"] == "cancelled"
    assert house.run(ids[1])["status"] == "running"
    lease = next(row for row in house.leases() if row["run_id"] == ids[0])
    assert (lease["status"], lease["mode"]) == ("releasing", "destroy")
    house.lossy = False
    house.worker = house.hire()
    house.cancel(ids[1])
    house.over(*ids)
    house.quiet()
    assert house.world.sandboxes() == []
