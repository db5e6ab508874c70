"""Wall clocks set back and forward by hours make nothing due or late, on both databases."""

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from leasehold.domain.pace import Pace
from leasehold.maintenance import clock
from leasehold.maintenance.sessions import Observer
from leasehold.orchestrator.jobs import Context
from leasehold.provider.budget import Budget
from leasehold.provider.contract import Sandbox
from leasehold.provider.fake import FakeProvider
from leasehold.provider.registry import Registry
from leasehold.store import environments, moves
from leasehold.store.database import Database
from story.conftest import House

HOUR_US = 3_600_000_000


def now(database: Database) -> int:
    with database.read() as tx:
        return tx.now()


def offset(database: Database) -> int:
    with database.read() as tx:
        return int(environments.fact(tx, "clock_offset_us") or 0)


@pytest.mark.parametrize("hours", [3, -3, 24 * 8])
def test_a_clock_that_is_set_ends_nothing_and_delays_nothing(
    house: House, jump: Callable[[int], None], hours: int
) -> None:
    house.environment(policy="retain_on_failure")
    kept = house.over(house.submit("false"))["lease_id"]
    house.quiet()
    running = house.submit("sleep", "60", timeout_s=1800)
    house.until(lambda: house.run(running)["step"] == "heartbeat")
    clock.run_once(house.worker, batch=10)
    before, began = now(house.database), time.monotonic()

    jump(hours * HOUR_US)
    house.turn()

    passed = now(house.database) - before
    assert abs(passed - (time.monotonic() - began) * 1e6) < 6_000_000
    for _ in range(3):
        house.turn()
    run = house.run(running)
    assert (run["finished_at"], run["end_requested"]) == (None, None)
    (lease,) = [row for row in house.leases() if row["id"] == kept]
    assert lease["status"] == "retained"
    late = house.submit("true")
    assert house.over(late)["status"] == "succeeded"
    house.cancel(running)
    house.over(running)


def test_a_jump_between_the_look_and_the_deed_ends_nothing(
    house: House, jump: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    house.environment()
    running = house.submit("sleep", "60", timeout_s=1800)
    house.until(lambda: house.run(running)["step"] == "heartbeat")
    clock.run_once(house.worker, batch=10)
    look = clock.take_pulse

    def then_jump(context: Context) -> object:
        beat = look(context)
        jump(3 * HOUR_US)
        return beat

    with monkeypatch.context() as patch:
        patch.setattr(clock, "take_pulse", then_jump)
        clock.run_once(house.worker, batch=10)
    clock._run_timers(house.worker, batch=10)
    clock._lease_timers(house.worker, batch=10)
    assert house.run(running)["end_requested"] is None
    house.turn()
    house.cancel(running)
    house.over(running)


def test_a_run_that_came_in_the_jump_waits_for_its_sandbox_no_longer_than_it_said(
    house: House, jump: Callable[[int], None]
) -> None:
    left: list[float] = []

    class Patient(FakeProvider):
        def acquire(self, *args: Any, budget: Budget, **more: Any) -> Sandbox:
            left.append(budget.left_s())
            return super().acquire(*args, budget=budget, **more)

    house.registry = Registry({"fake": Patient(house.world)})
    house.worker = house.hire()
    house.environment()
    clock.run_once(house.worker, batch=10)
    jump(3 * HOUR_US)
    caught = house.submit("true", start_timeout_s=60)
    clock.run_once(house.worker, batch=10)
    assert house.over(caught)["status"] == "succeeded"
    assert len(left) == 1
    assert left[0] <= 60


def test_of_many_clocks_one_corrects(house: House, jump: Callable[[int], None]) -> None:
    clocks = [house.hire(f"host-{n}") for n in range(4)]
    for context in clocks:
        clock.run_once(context, batch=10)
    jump(-5 * HOUR_US)
    threads = [
        threading.Thread(target=clock.run_once, args=(context,), kwargs={"batch": 10})
        for context in clocks
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for _ in range(2):
        for context in clocks:
            clock.run_once(context, batch=10)
    assert abs(offset(house.database) - 5 * HOUR_US) < 6_000_000


def test_a_jump_expires_no_session(house: House, jump: Callable[[int], None]) -> None:
    observer = Observer()
    for hours in (0, 9, -9):
        jump(hours * HOUR_US)
        report = clock.run_once(house.worker, batch=10, observer=observer)
        assert report.ended == 0
    with house.database.read() as tx:
        assert observer.run_once(house.worker).expired == 0
        assert not tx.all("SELECT id FROM sessions WHERE status <> 'live'")


def test_real_time_that_passes_still_ends_what_is_over(house: House) -> None:
    house.environment()
    run = house.submit("sleep", "60", timeout_s=1)
    assert house.over(run)["code"] == "timeout"


def test_history_is_in_order_after_a_correction(
    house: House, jump: Callable[[int], None]
) -> None:
    house.environment()
    house.over(house.submit("true"))
    clock.run_once(house.worker, batch=10)
    jump(-3 * HOUR_US)
    house.turn()
    run = house.over(house.submit("true"))
    with house.database.read() as tx:
        times = [row["at"] for row in moves.events_of(tx, run_id=run["id"])]
    assert times == sorted(times)
    assert abs(run["created_at"] - now(house.database)) < 60_000_000


def test_a_new_clock_takes_the_time_as_it_is(house: House, jump: Callable[[int], None]) -> None:
    house.worker.pace = Pace()
    jump(HOUR_US)
    clock.run_once(house.worker, batch=10)
    assert offset(house.database) == 0


def test_what_was_put_off_while_the_time_was_wrong_comes_back(
    house: House, jump: Callable[[int], None]
) -> None:
    house.environment()
    running = house.submit("sleep", "60")
    house.until(lambda: house.run(running)["step"] == "heartbeat")
    clock.run_once(house.worker, batch=10)
    jump(3 * HOUR_US)
    with house.database.write("test") as tx:
        # As a beat does that comes before the next turn of the clock.
        tx.run("UPDATE runs SET due_at = {now} + 8000000 WHERE id = :id", id=running)
        tx.run("UPDATE leases SET renew_at = {now} + 600000000 WHERE run_id = :id", id=running)
    clock.run_once(house.worker, batch=10)
    right = now(house.database)
    assert house.run(running)["due_at"] <= right
    with house.database.read() as tx:
        assert tx.value("SELECT renew_at FROM leases WHERE run_id = :id", id=running) <= right


def test_a_clock_set_back_while_nobody_looked_puts_nothing_off(
    house: House, jump: Callable[[int], None]
) -> None:
    house.environment()
    running = house.submit("sleep", "60")
    house.until(lambda: house.run(running)["step"] == "heartbeat")
    jump(-3 * HOUR_US)
    house.worker.pace = Pace()  # as in an agent that starts only now
    clock.run_once(house.worker, batch=10)
    assert house.run(running)["due_at"] <= now(house.database)
