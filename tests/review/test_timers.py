"""Timers: which of them applies, and who may set one."""

import threading
import time

import pytest

from leasehold.maintenance import clock
from leasehold.store import leases, moves, pulse, runs
from story.conftest import House

_WAITS = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    " AND wait_event_type = 'Lock'"
)


def test_a_parked_run_ends_by_its_deadline_and_by_no_older_timer(house: House) -> None:
    house.environment()
    house.world.script("acquire", fail="provider_unavailable", times=1)
    run_id = house.submit("true", max_infra_attempts=1, start_timeout_s=0.3, deadline_s=0.6)
    house.until(lambda: house.run(run_id)["status"] == "parked")
    run = house.over(run_id)
    assert (run["status"], run["code"]) == ("timed_out", "deadline")


def test_a_cancel_of_a_run_that_is_to_be_parked_is_not_forgotten(house: House) -> None:
    house.environment()
    house.world.script("start", fail="provider_unavailable", times=1)
    run_id = house.submit("sleep", "600", max_infra_attempts=1)
    house.until(lambda: house.run(run_id)["end_requested"] == "park")
    house.cancel(run_id)
    run = house.over(run_id)
    assert (run["status"], run["code"]) == ("cancelled", "cancelled")


def test_a_timer_that_nobody_will_act_on_does_not_keep_the_clock_awake(house: House) -> None:
    house.environment()
    house.world.script("start", fail="provider_unavailable", times=1)
    run_id = house.submit("sleep", "600", max_infra_attempts=1)
    house.until(lambda: house.run(run_id)["end_requested"] == "park")
    with house.database.write("test") as tx:
        runs.set_timer(tx, run_id, timer_at=1)
        assert pulse.read(tx, grace_us=1).run_timer is None
    house.cancel(run_id)
    house.over(run_id)


@pytest.mark.parametrize("dialect", ["postgresql"])
def test_a_clock_that_looked_before_the_start_does_not_undo_its_timeout(
    house: House, dialect: str
) -> None:
    """The holder writes the command's timeout while a clock judges the timer before it."""
    house.environment()
    run_id = house.submit("sleep", "600", timeout_s=600)
    house.until(lambda: house.run(run_id)["step"] == "heartbeat" and not house.messages)
    timeout_at = house.run(run_id)["timeout_at"]
    with house.database.write("test") as tx:
        moves.move(tx, "runs", run_id, None, step="execute", timeout_at=None, timer_at=1)

    def look() -> None:
        with house.database.write("test") as tx:
            clock._end_by_timer(tx, house.worker, run_id)

    beside = threading.Thread(target=look)
    with house.database.write("test") as tx:
        lease_id = house.run(run_id)["lease_id"]
        assert leases.lock(tx, lease_id)
        moves.move(
            tx,
            "runs",
            run_id,
            None,
            step="heartbeat",
            timeout_at=timeout_at,
            timer_at=timeout_at,
        )
        beside.start()
        while not _waiting(house):
            time.sleep(0.01)
    beside.join(10)
    assert house.run(run_id)["timer_at"] == timeout_at
    house.cancel(run_id)
    house.over(run_id)


def _waiting(house: House) -> int:
    with house.database.read() as tx:
        return int(tx.value(_WAITS))
