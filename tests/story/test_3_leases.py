"""Leases: who gets which sandbox, for how long, and what becomes of it."""

from datetime import timedelta
from typing import Any

import pytest

from leasehold.errors import ConflictError, FullError
from leasehold.orchestrator import holding
from leasehold.store import environments, leases

from .conftest import House


def hold(house: House, name: str = "lab") -> str:
    """Create a lease on its own and wait until it is there."""
    with house.database.write("test") as tx:
        row = environments.get(tx, name, tenant_id="default")
        lease = holding.create(
            tx, house.worker, row, hold_for=timedelta(minutes=5), version="1", key="k"
        )
    house.until(lambda: status(house, lease["id"]) == "idle")
    return str(lease["id"])


def status(house: House, lease_id: str) -> str:
    with house.database.read() as tx:
        return str(leases.get(tx, lease_id, tenant_id="default")["status"])


def let_time_pass(house: House) -> None:
    with house.database.write("test") as tx:
        for row in leases.page(tx, tenant_id="default"):
            leases.expire_now(tx, row["id"])


def test_an_environment_reuses_its_sandbox(house: House) -> None:
    house.environment(policy="reuse_by_environment")
    first = house.over(house.submit("true"))
    house.quiet()
    second = house.over(house.submit("true"))
    house.quiet()
    assert first["lease_id"] == second["lease_id"]
    (lease,) = house.leases()
    assert lease["status"] == "idle"
    assert lease["facts"]["acquired"] == "resumed"
    assert house.world.sandboxes() == [lease["id"]]
    let_time_pass(house)
    house.until(lambda: house.world.sandboxes() == [])
    assert house.leases()[0]["status"] == "expired"


def test_a_workspace_reuses_its_own_sandbox_only(house: House) -> None:
    house.environment(policy="reuse_by_workspace")
    ids = []
    for workspace in ("a", "b", "a", None):
        ids.append(house.over(house.submit("true", workspace=workspace))["lease_id"])
        house.quiet()
    assert ids[0] == ids[2]
    assert len(set(ids)) == 3


def test_a_failed_run_keeps_its_sandbox_where_the_policy_says_so(house: House) -> None:
    house.environment(policy="retain_on_failure")
    house.over(house.submit("true"))
    failed = house.over(house.submit("exit", "1"))
    house.quiet()
    kept = {row["id"]: row["status"] for row in house.leases()}
    assert sorted(kept.values()) == ["released", "retained"]
    assert kept[failed["lease_id"]] == "retained"
    assert house.world.sandboxes() == [failed["lease_id"]]
    let_time_pass(house)
    house.until(lambda: house.world.sandboxes() == [])


def test_a_changed_environment_does_not_get_the_old_sandbox(house: House) -> None:
    row = house.environment(policy="reuse_by_environment", config={"image": "one"})
    house.over(house.submit("true"))
    house.quiet()
    spec = {**row["spec"], "config": {"image": "two"}}
    with house.database.write("test") as tx:
        environments.change_spec(tx, row["id"], spec)
    house.over(house.submit("true"))
    house.quiet()
    rows = house.leases()
    assert [row["status"] for row in rows] == ["idle", "released"]
    assert rows[1]["reason"] == "fingerprint_mismatch"


def test_a_reused_sandbox_that_is_gone_is_replaced(house: House) -> None:
    house.environment(policy="reuse_by_environment")
    first = house.over(house.submit("true"))
    house.quiet()
    house.world.lose(first["lease_id"])
    second = house.over(house.submit("true"))
    house.quiet()
    assert second["status"] == "succeeded"
    assert second["infra_attempts"] == 0
    by_id = {row["id"]: row for row in house.leases()}
    assert by_id[first["lease_id"]]["status"] == "failed"
    assert by_id[second["lease_id"]]["status"] == "idle"


def test_several_runs_use_a_held_lease_in_order(house: House) -> None:
    house.environment()
    lease_id = hold(house)
    ids = [house.submit("echo", str(n), lease_id=lease_id) for n in range(3)]
    house.over(*ids)
    rows = [house.run(run_id) for run_id in ids]
    assert [row["status"] for row in rows] == ["succeeded"] * 3
    assert {row["lease_id"] for row in rows} == {lease_id}
    starts = [row["started_at"] for row in rows]
    assert starts == sorted(starts)
    assert status(house, lease_id) == "idle"
    with house.database.write("test") as tx:
        holding.give_back(tx, house.worker, lease_id, actor="me")
    house.quiet()
    assert status(house, lease_id) == "released"
    assert house.world.sandboxes() == []


def test_a_run_whose_lease_is_taken_in_the_last_moment_waits_for_it(house: House) -> None:
    house.environment()
    lease_id = hold(house)
    run_id = house.submit("true", lease_id=lease_id)
    assert house.run(run_id)["status"] == "running", "admitted, and not yet at work"
    with house.database.write("test") as tx:
        taken = "UPDATE leases SET status = 'active', run_id = 'another' WHERE id = :id"
        tx.run(taken, id=lease_id)
    house.until(lambda: "step.validate.finished" in house.events(run_id))
    house.until(lambda: house.run(run_id)["code"] == "lease_busy")
    with house.database.write("test") as tx:
        tx.run("UPDATE leases SET status = 'idle', run_id = NULL WHERE id = :id", id=lease_id)
    run = house.over(run_id)
    assert (run["status"], run["infra_attempts"]) == ("succeeded", 0)


def test_a_run_for_a_lease_that_ends_fails_with_its_reason(house: House) -> None:
    house.environment()
    lease_id = hold(house)
    first = house.submit("sleep", "600", lease_id=lease_id)
    house.until(lambda: house.run(first)["step"] == "heartbeat")
    second = house.submit("true", lease_id=lease_id)
    with pytest.raises(ConflictError, match="in use"), house.database.write("test") as tx:
        holding.give_back(tx, house.worker, lease_id, actor="me")
    house.world.lose(lease_id)
    run = house.over(first, second)
    assert (run["status"], run["code"]) == ("failed", "lease_unavailable")
    with pytest.raises(ConflictError, match="failed"):
        house.submit("true", lease_id=lease_id)


def test_a_full_environment_lets_runs_wait_in_order_of_priority(house: House) -> None:
    house.environment(limits={"max_concurrent": 1})
    first = house.submit("sleep", "0.1")
    low, high = house.submit("true", priority=1), house.submit("true", priority=9)
    house.over(first, low, high)
    assert house.run(high)["started_at"] < house.run(low)["started_at"]


def test_a_full_environment_does_not_block_another(house: House) -> None:
    house.environment("full", limits={"max_concurrent": 1})
    house.environment("free")
    first = house.submit("sleep", "600", environment="full")
    waiting = house.submit("true", environment="full")
    assert house.over(house.submit("true", environment="free"))["status"] == "succeeded"
    assert house.run(waiting)["status"] == "queued"
    house.cancel(first)
    house.over(first, waiting)


def test_a_full_limit_evicts_an_idle_sandbox_first(house: House) -> None:
    house.environment("idle", policy="reuse_by_environment")
    house.environment("other")
    house.over(house.submit("true", environment="idle"))
    house.quiet()
    house.worker.max_concurrent = 1
    run = house.over(house.submit("true", environment="other"))
    assert run["status"] == "succeeded"
    house.quiet()
    assert {row["reason"] for row in house.leases()} == {"evicted", "run succeeded"}


def test_a_full_queue_refuses_and_says_when_to_come_again(house: House) -> None:
    house.environment(limits={"max_concurrent": 1})
    house.worker.max_queued = 2
    ids = [house.submit("sleep", "600"), house.submit("true"), house.submit("true")]
    with pytest.raises(FullError) as caught:
        house.submit("true")
    assert caught.value.retry_after_s > 0
    house.cancel(ids[0])
    house.over(*ids)


def test_a_provider_that_is_full_is_waited_for(house: House) -> None:
    house.environment()
    house.world.set_capacity(1)
    house.worker = house.hire()
    ids: list[Any] = [house.submit("sleep", "0.05") for _ in range(3)]
    house.over(*ids)
    assert {house.run(run_id)["status"] for run_id in ids} == {"succeeded"}
    assert {house.run(run_id)["infra_attempts"] for run_id in ids} == {0}
