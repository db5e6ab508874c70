"""The clock tells the lanes of what is due: often enough, and nobody who cannot hear."""

import time

from leasehold.domain.lifecycle import SessionStatus
from leasehold.maintenance import clock, sessions

from .conftest import House


def resting(house: House) -> str:
    """Submit a command that waits, and carry it to its rest between two beats."""
    house.environment()
    run_id = house.submit("sleep", "30")
    house.until(lambda: bool(house.run(run_id)["beat"]))
    house.messages.clear()
    return run_id


def told(house: House, *, seconds: float) -> int:
    """Let the clock turn while nobody reads; return how many lane messages it sent."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        clock.run_once(house.worker, batch=100)
        time.sleep(0.005)
    return sum(message.kind == "beat" for message in house.messages)


def test_a_lane_that_nobody_reads_is_told_less_and_less_often(house: House) -> None:
    run_id = resting(house)
    # At 0, 0.1, 0.2, 0.4, 0.8 s; one more for where the first turn falls.
    assert 2 <= told(house, seconds=1.2) <= 6
    house.cancel(run_id)
    house.over(run_id)
    house.quiet()


def test_the_lane_of_a_host_that_is_away_is_not_told(house: House) -> None:
    run_id = resting(house)
    with house.database.write("test") as tx:
        text = "UPDATE runs SET due_at = {now}, queue = :queue WHERE id = :id"
        tx.run(text, id=run_id, queue=f"{clock.HOST_QUEUE}host-1")
        sessions.end(tx, f"session-{house.worker.worker_id}", to=SessionStatus.EXPIRED)
    assert told(house, seconds=0.3) == 0
    house.worker = house.hire()
    assert told(house, seconds=0.3) >= 1
    house.cancel(run_id)
    house.over(run_id)
    house.quiet()
