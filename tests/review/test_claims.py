"""A claim is given up by its holder only, and never outlives the work on it."""

import pytest

from leasehold.orchestrator import claiming
from story.conftest import House


def test_to_give_up_what_another_has_claimed_changes_nothing(house: House) -> None:
    house.environment()
    run_id = house.submit("sleep", "600")
    house.until(lambda: house.run(run_id)["step"] == "heartbeat" and not house.messages)
    first, second = house.worker, house.hire()
    fence = house.leases()[0]["fence"]
    with house.database.write("test") as tx:
        assert claiming.claim_run(tx, second, run_id, fence=fence) is not None
    # The first one's own try to claim was cut off: it cannot know who was faster.
    lease_id = house.run(run_id)["lease_id"]
    claiming.abandon(first, run_id=run_id, lease_id=lease_id, fence=fence + 1)
    assert house.run(run_id)["claimed_by"] == second.worker_id
    assert house.leases()[0]["fence"] == fence + 1
    house.bury(second)
    house.cancel(run_id)
    house.over(run_id)


@pytest.mark.parametrize("dialect", ["postgresql"])
def test_a_claim_that_is_committed_after_its_worker_was_buried_is_given_up(
    house: House, dialect: str
) -> None:
    """Its agent saw the death while the server was still writing the dead one's last commit."""
    house.environment()
    run_id = house.submit("true")
    house.messages.clear()
    dead, house.worker = house.worker, house.hire()
    with house.database.write("test") as tx:
        assert claiming.claim_run(tx, dead, run_id, fence=1) is not None
        tx.settle()
        house.bury(dead)
    assert house.run(run_id)["claimed_by"] == dead.worker_id
    assert house.over(run_id)["status"] == "succeeded"
