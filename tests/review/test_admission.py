"""What is counted, when, and under which lock: limits that many want to pass at once."""

import threading
from datetime import timedelta

import pytest

from leasehold.domain.lifecycle import LEASE_ENDS
from leasehold.errors import ConflictError
from leasehold.orchestrator import holding
from leasehold.store.database import Tx
from story.conftest import House


def _live(house: House) -> int:
    return sum(row["status"] not in LEASE_ENDS for row in house.leases())


def test_one_idle_sandbox_lets_one_run_past_a_full_limit(house: House) -> None:
    house.environment(policy="reuse_by_environment", limits={"max_concurrent": 1})
    house.over(house.submit("true"))
    house.quiet()
    ids = [house.submit("sleep", "0.1") for _ in range(3)]
    most = 0

    def over() -> bool:
        nonlocal most
        most = max(most, _live(house))
        return all(house.run(i)["finished_at"] for i in ids)

    house.until(over)
    assert most == 1


def test_an_idle_sandbox_of_another_workspace_makes_room(house: House) -> None:
    house.environment(policy="reuse_by_workspace", limits={"max_concurrent": 1})
    house.over(house.submit("true", workspace="/one"))
    house.quiet()
    run_id = house.submit("true", workspace="/two")
    most = 0

    def over() -> bool:
        nonlocal most
        most = max(most, _live(house))
        return bool(house.run(run_id)["finished_at"])

    house.until(over)
    assert most == 1


def test_a_run_beside_the_idle_sandbox_is_admitted_at_once(house: House) -> None:
    house.environment(policy="reuse_by_environment", limits={"max_concurrent": 2})
    house.over(house.submit("true"))
    house.quiet()
    ids = [house.submit("sleep", "0.1") for _ in range(3)]
    assert [house.run(i)["status"] for i in ids] == ["running", "running", "queued"]
    house.over(*ids)


def test_a_full_environment_does_not_cost_another_one_its_idle_sandbox(house: House) -> None:
    house.environment("warm", policy="reuse_by_environment")
    house.environment("full", limits={"max_concurrent": 1})
    house.over(house.submit("true", environment="warm"))
    house.quiet()
    ids = [house.submit("sleep", "0.1", environment="full") for _ in range(2)]
    house.over(*ids)
    house.quiet()
    assert "evicted" not in {row["reason"] for row in house.leases()}


def test_only_as_many_runs_as_idle_sandboxes_pass_a_full_deployment(house: House) -> None:
    house.environment(policy="reuse_by_environment")
    house.over(house.submit("true"))
    house.quiet()
    house.worker.max_concurrent = 1
    ids = [house.submit("true") for _ in range(3)]
    assert [house.run(i)["status"] for i in ids] == ["running", "queued", "queued"]
    house.over(*ids)


@pytest.mark.parametrize("dialect", ["postgresql"])
def test_two_who_create_a_lease_at_once_do_not_pass_a_limit_of_one(
    house: House, dialect: str
) -> None:
    """Each counts before the other has written, unless one waits for the other."""
    environment = house.environment(limits={"max_concurrent": 1})
    refused = []

    def create(tx: Tx) -> None:
        hold_for = timedelta(minutes=1)
        holding.create(tx, house.worker, environment, hold_for=hold_for, version="1", key="k")

    def beside() -> None:
        try:
            with house.database.write("test") as tx:
                create(tx)
        except ConflictError as error:
            refused.append(str(error))

    other = threading.Thread(target=beside)
    with house.database.write("test") as tx:
        create(tx)
        tx.settle()
        other.start()
        other.join(0.3)
    other.join(10)
    assert refused
    assert _live(house) == 1
