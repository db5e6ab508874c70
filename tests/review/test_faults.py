"""What a plugin may do wrong, and a database that fails in an unusual way."""

import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from leasehold.errors import ProviderError
from leasehold.orchestrator import beats, claiming
from leasehold.provider import Budget, Polled, PollItem, Renewal, Target, boot_time
from leasehold.provider.fake import FakeProvider
from leasehold.provider.registry import Registry
from leasehold.runtime.guard import Beacon
from leasehold.runtime.keeper import Keeper
from leasehold.store.database import Database
from story.conftest import House


class Plugin(FakeProvider):
    """A fake with faults of its own."""

    short_bytes = 0
    broken_renewals: frozenset[str] = frozenset()
    words: str | None = None

    def acquire(self, *args: Any, **kwargs: Any) -> Any:
        if self.words is not None:
            raise ProviderError(self.words, retryable=False)
        return super().acquire(*args, **kwargs)

    def poll(
        self, items: Sequence[PollItem], *, limit_bytes: int, budget: Budget
    ) -> Sequence[Polled]:
        """Lose the end of the output, as when somebody truncates its file."""
        answers = super().poll(items, limit_bytes=limit_bytes, budget=budget)
        if not self.short_bytes:
            return answers
        return [
            replace(
                a, exit=replace(a.exit, stdout_bytes=a.exit.stdout_bytes + self.short_bytes)
            )
            if a.exit
            else a
            for a in answers
        ]

    def renew(self, target: Target, *, fence: int, ttl: timedelta, budget: Budget) -> Renewal:
        if target.lease.id in self.broken_renewals:
            raise OSError("no space left on device")
        return super().renew(target, fence=fence, ttl=ttl, budget=budget)


@pytest.fixture
def plugin(house: House) -> Plugin:
    plugin = Plugin(house.world)
    house.registry = Registry({"fake": plugin})
    house.worker.providers = house.registry
    return plugin


def test_output_that_has_vanished_from_the_sandbox_does_not_hold_the_run(
    house: House, plugin: Plugin
) -> None:
    house.environment()
    plugin.short_bytes = 3
    run_id = house.submit("echo", "hello")
    run = house.over(run_id)
    assert (run["status"], run["exit_code"]) == ("succeeded", 0)
    assert house.output(run_id) == b"hello\n"
    assert house.executions(run_id)[0]["stdout_dropped"] == 3


def test_a_renewal_that_fails_does_not_cost_others_theirs(house: House, plugin: Plugin) -> None:
    house.environment()
    ids = [house.submit("sleep", "600") for _ in range(2)]
    house.until(lambda: all(house.run(i)["beat"] and house.run(i)["due_at"] for i in ids))
    with house.database.write("test") as tx:
        tx.run("UPDATE leases SET renew_at = 1")
        tx.run("UPDATE runs SET due_at = 1")
    lane = house.run(ids[0])["queue"]
    for broken in [row["id"] for row in house.leases()]:
        plugin.broken_renewals = frozenset({broken})
        beats.run_once(house.worker, lane, limit=10)
        with house.database.write("test") as tx:
            tx.run("UPDATE runs SET due_at = 1")
    assert all(row["renew_at"] > 1 for row in house.leases())
    for run_id in ids:
        house.cancel(run_id)
    house.over(*ids)


@pytest.mark.parametrize("words", ["a\0b", "a\udcffb", "a\\u0000b"])
def test_words_of_a_plugin_that_no_database_takes_do_not_hold_the_run(
    house: House, plugin: Plugin, words: str
) -> None:
    house.environment()
    plugin.words = words
    run = house.over(house.submit("true"))
    assert (run["status"], run["code"]) == ("failed", "provider_error")
    assert run["message"].startswith("a")
    assert run["message"].endswith("b")


def test_a_session_outlives_a_database_that_fails_in_an_unusual_way(
    database: Database, tmp_path: Path, wait_for: Callable[[Callable[[], bool]], bool]
) -> None:
    """A dump that is restored over a live database: its tables are not there for a moment."""
    beacon = Beacon(tmp_path / "beacon")
    keeper = Keeper(database, session_id="mine", beacon=beacon, beat_every_s=0.01)
    keeper.start(host_id="host", host_name="host", capacity=1, pid=os.getpid())

    def counter() -> int:
        with database.read() as tx:
            return int(tx.value("SELECT counter FROM sessions"))

    assert wait_for(lambda: counter() > 1)
    with database.write("test") as tx:
        tx.run("ALTER TABLE sessions RENAME TO away")
    end = boot_time() + 0.2
    assert wait_for(lambda: boot_time() > end)
    with database.write("test") as tx:
        tx.run("ALTER TABLE away RENAME TO sessions")
    before = counter()
    assert wait_for(lambda: counter() > before + 1)
    keeper.stop()


@pytest.mark.parametrize("dialect", ["postgresql"])
def test_work_goes_on_while_a_migration_adds_a_column(house: House) -> None:
    house.environment()
    for _ in range(7):
        house.over(house.submit("true"))
    running = house.submit("sleep", "0.3")
    house.until(lambda: house.run(running)["step"] == "heartbeat")
    with house.database.write("test") as tx:
        tx.run("ALTER TABLE runs ADD COLUMN later_idea text")
        tx.run("ALTER TABLE leases ADD COLUMN later_idea text")
    ids = [running, *(house.submit("true") for _ in range(3))]
    assert house.over(*ids)["status"] == "succeeded"
    assert {house.run(i)["status"] for i in ids} == {"succeeded"}


def test_a_claim_is_given_up_even_if_the_database_fails_in_an_unusual_way(
    house: House, wait_for: Callable[[Callable[[], bool]], bool]
) -> None:
    house.environment()
    run_id = house.submit("true")
    with house.database.write("test") as tx:
        job = claiming.claim_run(tx, house.worker, run_id, fence=house.run(run_id)["fence"])
        assert job is not None
    with house.database.write("test") as tx:
        tx.run("ALTER TABLE runs RENAME TO away")
    giving_up = threading.Thread(
        target=claiming.abandon,
        args=(house.worker,),
        kwargs={"run_id": run_id, "lease_id": None, "fence": job.fence},
    )
    giving_up.start()
    giving_up.join(0.3)
    with house.database.write("test") as tx:
        tx.run("ALTER TABLE away RENAME TO runs")
    giving_up.join(10)
    assert house.run(run_id)["claimed_by"] is None
    house.over(run_id)
