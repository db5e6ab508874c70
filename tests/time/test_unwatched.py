"""A clock that is set while nobody watches calls no command lost, on both databases."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from leasehold.domain.lifecycle import SessionStatus
from leasehold.domain.pace import Pace
from leasehold.maintenance import clock, sessions
from leasehold.orchestrator.jobs import Context
from leasehold.provider.budget import boot_time
from leasehold.provider.contract import Info
from leasehold.provider.fake import FakeProvider
from leasehold.provider.registry import Registry
from leasehold.store import watch
from leasehold.store.database import Database
from leasehold.store.watch import Watch
from story.conftest import House

DAY_US = 24 * 3_600_000_000
GRACE = timedelta(seconds=2)
LIFE = timedelta(seconds=1)


class OfAHost(FakeProvider):
    """Its sandboxes are reached by their host alone."""

    def describe(self) -> Info:
        about = super().describe()
        return replace(about, capabilities=replace(about.capabilities, host_bound=True))


def starting_agent(house: House, host: str) -> Context:
    """Return a process that has not looked at the time yet."""
    worker = house.hire(host)
    worker.timers = replace(worker.timers, host_grace=GRACE, sandbox_ttl=LIFE)
    worker.pace = Pace()
    return worker


def running_on_a_lost_host(house: House) -> str:
    """Return a run whose host has died with its agent, and with every clock."""
    house.registry = Registry({"fake": OfAHost(house.world)})
    house.environment()
    house.worker = starting_agent(house, "host-a")
    with house.database.write("test") as tx:
        tx.run("UPDATE hosts SET draining = true WHERE id <> 'host-a'")
    run_id = house.submit("sleep", "600")
    house.until(lambda: bool(house.run(run_id)["beat"] and house.run(run_id)["due_at"]))
    assert house.run(run_id)["host_id"] == "host-a"
    house.messages.clear()
    with house.database.write("test") as tx:
        for row in tx.all("SELECT id FROM sessions WHERE host_id = 'host-a'"):
            sessions.end(tx, row["id"], to=SessionStatus.EXPIRED)
    return run_id


def test_the_first_clock_after_a_jump_waits_for_a_whole_life_of_the_sandbox(
    house: House, jump: Callable[[int], None]
) -> None:
    run_id = running_on_a_lost_host(house)
    jump(DAY_US)
    house.worker = starting_agent(house, "host-b")
    began = boot_time()
    for _ in range(5):
        clock.run_once(house.worker, batch=10)
        run = house.run(run_id)
        assert (run["status"], house.executions(run_id)[0]["status"]) == ("running", "running")
    house.until(lambda: house.run(run_id)["finished_at"] is not None, seconds=60)
    assert house.run(run_id)["code"] == "execution_lost"
    assert boot_time() - began > (LIFE + GRACE).total_seconds()


def test_time_that_somebody_watched_is_not_waited_for_again(house: House) -> None:
    first, second = house.hire("host-b"), house.hire("host-c")
    for worker in (first, second):
        worker.timers = replace(worker.timers, host_grace=timedelta(hours=1))
        worker.pace = Pace()
    clock.run_once(first, batch=10)
    with house.database.write("test") as tx:
        # Both long ago: watched since then, and to be vouched for again.
        tx.run("UPDATE facts SET value = '1000000' WHERE name = 'watched_from_us'")
        tx.run(
            "UPDATE facts SET value = CAST({now} - 1200000000 AS VARCHAR(20))"
            " WHERE name = 'clock_seen_us'"
        )
    clock.run_once(second, batch=10)
    with house.database.read() as tx:
        assert watch.read(tx, grace_us=60_000_000).from_us == 1_000_000


def test_nobody_believes_a_time_that_was_set_a_moment_ago(
    house: House, jump: Callable[[int], None]
) -> None:
    clock.run_once(house.worker, batch=10)
    with house.database.read() as tx:
        assert watch.read(tx, grace_us=60_000_000).from_us is not None
    jump(DAY_US)
    with house.database.read() as tx:
        assert watch.read(tx, grace_us=60_000_000).from_us is None


@pytest.mark.parametrize(
    ("away_us", "watched_us", "is_gap"),
    [
        (20_000_000, 0, False),
        (40_000_000, 0, True),
        (-40_000_000, 0, True),
        (DAY_US, DAY_US, False),
        (DAY_US, 1_000_000, True),
    ],
)
def test_a_gap_is_what_neither_the_facts_nor_the_process_can_vouch_for(
    database: Database,
    jump: Callable[[int], None],
    away_us: int,
    watched_us: int,
    is_gap: bool,
) -> None:
    grace_us = 60_000_000
    with database.write("test") as tx:
        assert watch.vouch(tx, watched_us=0, grace_us=grace_us)
    jump(away_us)
    with database.write("test") as tx:
        assert watch.vouch(tx, watched_us=watched_us, grace_us=grace_us) is is_gap
        seen = watch.read(tx, grace_us=grace_us)
        assert seen.from_us is not None
        assert (seen.now_us - seen.from_us < 10_000_000) is is_gap


def test_a_life_that_a_drain_made_longer_is_waited_for_whole() -> None:
    lease = {"sandbox_expires_at": 24_000, "renew_at": 8_000}
    for now_us, over in ((24_500, False), (34_000, False), (35_100, True)):
        watched = Watch(now_us, from_us=10_000, grace_us=1_000)
        assert watched.surely_over(lease) is over
    assert not Watch(10**9, from_us=None, grace_us=1_000).surely_over(lease)
    unknown = {"sandbox_expires_at": None, "renew_at": None}
    assert not Watch(10**9, from_us=0, grace_us=1_000).surely_over(unknown)
