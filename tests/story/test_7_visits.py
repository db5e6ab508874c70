"""Visits: a person looks into a sandbox that is kept, and it stays what it is."""

import dataclasses
from datetime import timedelta
from typing import Any

import pytest

from leasehold.domain.lifecycle import EndKind
from leasehold.domain.specs import RunSpec, parse
from leasehold.errors import ConflictError
from leasehold.orchestrator import ending, holding, submit
from leasehold.store import environments, leases
from leasehold.store.database import Row

from .conftest import House
from .test_3_leases import hold, status


def visit(house: House, lease_id: str, *argv: str, **spec: Any) -> str:
    """Look into a lease's sandbox, as `leasehold exec` does."""
    body = {"commands": [{"argv": argv}], **spec}
    request = submit.Request(spec=parse(RunSpec, body), lease_id=lease_id, visit=True)
    with house.database.write("test") as tx:
        row, _ = submit.submit(tx, house.worker, request)
    return str(row["id"])


def lease(house: House, lease_id: str) -> Row:
    with house.database.read() as tx:
        return leases.get(tx, lease_id, tenant_id="default")


@pytest.fixture
def kept(house: House) -> str:
    """A lease that is retained, since its run failed."""
    house.environment(policy="retain_on_failure", retained_ttl_s=3600)
    failed = house.over(house.submit("exit", "3"))
    house.quiet()
    assert status(house, failed["lease_id"]) == "retained"
    return str(failed["lease_id"])


def seen(house: House, lease_id: str, run_id: str) -> Row:
    """Let a visit end; return the lease, which is retained again and ends when it was to."""
    end = house.over(run_id)
    house.until(lambda: status(house, lease_id) == "retained")
    row = lease(house, lease_id)
    assert row["retained_until"] is None
    assert row["run_id"] == end["id"]
    assert house.world.sandboxes() == [lease_id]
    return row


def test_a_retained_sandbox_is_looked_into_and_keeps_its_end(house: House, kept: str) -> None:
    before, run_id = lease(house, kept), ""
    for word in ("one", "two"):
        run_id = visit(house, kept, "echo", word)
        after = seen(house, kept, run_id)
        assert house.output(run_id) == f"{word}\n".encode()
        assert house.run(run_id)["lease_id"] == kept
        assert after["timer_at"] == before["timer_at"]
        assert after["fence"] > before["fence"]
    names = [name for name in house.events(run_id) if name.startswith("lease.")]
    assert names == ["lease.active", "lease.releasing", "lease.retained"]


def test_a_visit_that_fails_times_out_or_is_cancelled_leaves_it_retained(
    house: House, kept: str
) -> None:
    before = lease(house, kept)
    failed = visit(house, kept, "exit", "3")
    seen(house, kept, failed)
    late = visit(house, kept, "sleep", "600", timeout_s=0.05, grace_s=0)
    seen(house, kept, late)
    again = visit(house, kept, "sleep", "600", grace_s=0)
    house.until(lambda: house.run(again)["step"] == "heartbeat")
    house.cancel(again)
    after = seen(house, kept, again)
    ends = [house.run(run_id)["status"] for run_id in (failed, late, again)]
    assert ends == ["failed", "timed_out", "cancelled"]
    assert after["timer_at"] == before["timer_at"]


def test_a_visit_whose_worker_dies_goes_on_and_leaves_it_retained(
    house: House, kept: str
) -> None:
    run_id = visit(house, kept, "echo", "a", "then", "sleep", "0.2", "then", "echo", "b")
    house.until(lambda: house.run(run_id)["step"] == "heartbeat")
    dead, house.worker = house.worker, house.hire()
    house.bury(dead)
    seen(house, kept, run_id)
    assert house.output(run_id) == b"a\nb\n"
    assert len(house.executions(run_id)) == 1


def test_a_visit_that_is_retried_or_parked_leaves_it_retained(house: House, kept: str) -> None:
    tries = visit(house, kept, "exit", "1", retries=2)
    seen(house, kept, tries)
    assert {row["lease_id"] for row in house.executions(tries)} == {kept}
    assert len(house.executions(tries)) == 3
    house.world.script(method="start", fail="provider_unavailable", times=2)
    parked = visit(house, kept, "true", max_infra_attempts=2)
    house.until(lambda: house.run(parked)["status"] == "parked")
    house.until(lambda: status(house, kept) == "retained")
    with house.database.write("test") as tx:
        submit.resume(tx, house.worker, parked)
    seen(house, kept, parked)
    assert house.run(parked)["status"] == "succeeded"


def test_a_retained_sandbox_that_was_suspended_is_resumed_for_a_visit(house: House) -> None:
    house.environment(policy="reuse_by_environment")
    run = house.over(house.submit("true"))
    house.quiet()
    with house.database.write("test") as tx:
        holding.retain(tx, house.worker, run["lease_id"])
    house.until(lambda: status(house, run["lease_id"]) == "retained")
    run_id = visit(house, run["lease_id"], "echo", "there")
    seen(house, run["lease_id"], run_id)
    assert house.output(run_id) == b"there\n"


def test_a_sandbox_idle_for_reuse_is_looked_into_and_idle_again(house: House) -> None:
    house.environment(policy="reuse_by_environment")
    first = house.over(house.submit("true"))
    house.quiet()
    run_id = visit(house, first["lease_id"], "echo", "there")
    house.over(run_id)
    house.quiet()
    assert house.output(run_id) == b"there\n"
    assert status(house, first["lease_id"]) == "idle"
    assert house.over(house.submit("true"))["lease_id"] == first["lease_id"]


def test_a_held_lease_is_looked_into_and_held_again(house: House) -> None:
    house.environment()
    lease_id = hold(house)
    before = lease(house, lease_id)
    run_id = visit(house, lease_id, "echo", "there")
    house.over(run_id)
    after = lease(house, lease_id)
    assert (after["status"], after["timer_at"]) == ("idle", before["timer_at"])


def test_a_run_at_work_is_named_and_not_disturbed(house: House, kept: str) -> None:
    run_id = house.submit("sleep", "600")
    house.until(lambda: house.run(run_id)["step"] == "heartbeat")
    with pytest.raises(ConflictError, match=f"run {run_id} is at work in lease"):
        visit(house, house.run(run_id)["lease_id"], "true")
    first = visit(house, kept, "sleep", "600", grace_s=0)
    with pytest.raises(ConflictError, match=f"run {first} is at work in lease {kept}"):
        visit(house, kept, "true")
    house.until(lambda: house.run(first)["step"] == "heartbeat")
    with pytest.raises(ConflictError, match=f"run {first} is at work in lease {kept}"):
        visit(house, kept, "true")
    house.cancel(run_id)
    house.cancel(first)
    seen(house, kept, first)


def test_what_is_gone_is_said_to_be_gone(house: House, kept: str) -> None:
    with house.database.write("test") as tx:
        holding.give_back(tx, house.worker, kept, actor="me")
    with pytest.raises(ConflictError, match=r"being released \(asked by me\)"):
        visit(house, kept, "true")
    house.quiet()
    with pytest.raises(ConflictError, match=r"is released .*: its sandbox is gone"):
        visit(house, kept, "true")


def test_a_visit_waits_for_the_one_before_to_leave(house: House, kept: str) -> None:
    house.world.script(method="release", fail="provider_unavailable", times=3)
    first = visit(house, kept, "true")
    house.until(lambda: status(house, kept) == "releasing")
    second = visit(house, kept, "echo", "second")
    assert house.run(second)["status"] == "queued"
    house.over(first)
    seen(house, kept, second)
    assert house.run(second)["status"] == "succeeded"


def test_a_lost_sandbox_ends_the_visit_and_the_lease(house: House, kept: str) -> None:
    house.world.lose(kept)
    run = house.over(visit(house, kept, "true"))
    assert (run["status"], run["code"]) == ("failed", "lease_unavailable")
    house.quiet()
    assert status(house, kept) == "failed"


def test_a_visit_needs_no_environment_any_more(house: House, kept: str) -> None:
    with house.database.write("test") as tx:
        row = environments.get(tx, "lab", tenant_id="default")
        environments.delete(tx, row["id"])
    run_id = visit(house, kept, "echo", "there")
    seen(house, kept, run_id)
    assert house.output(run_id) == b"there\n"


def test_the_sandbox_outlives_its_retained_lease_while_somebody_looks(
    house: House, kept: str
) -> None:
    before = lease(house, kept)
    house.worker.timers = dataclasses.replace(
        house.worker.timers, sandbox_ttl=timedelta(seconds=200)
    )
    run_id = visit(house, kept, "sleep", "600", grace_s=0)
    house.until(lambda: house.run(run_id)["beat"])
    with house.database.write("test") as tx:
        tx.run("UPDATE leases SET renew_at = 1")
    house.until(lambda: lease(house, kept)["renew_at"] > 1)
    assert lease(house, kept)["sandbox_expires_at"] > before["timer_at"]
    house.cancel(run_id)
    seen(house, kept, run_id)


def test_a_retained_lease_whose_time_ends_during_a_visit_ends_after_it(
    house: House, kept: str
) -> None:
    run_id = visit(house, kept, "sleep", "600", grace_s=0)
    house.until(lambda: house.run(run_id)["step"] == "heartbeat")
    with house.database.write("test") as tx:
        tx.run("UPDATE leases SET retained_until = {now} - 1")
    house.turn()
    assert status(house, kept) == "active"
    house.cancel(run_id)
    house.over(run_id)
    house.until(lambda: status(house, kept) == "expired")
    assert house.world.sandboxes() == []


def test_a_visit_whose_sandbox_does_not_answer_at_first_is_acquired_before_it_starts(
    house: House, kept: str
) -> None:
    house.world.script(method="inspect", fail="provider_unavailable", times=2)
    run_id = visit(house, kept, "echo", "hello")
    seen(house, kept, run_id)
    assert house.output(run_id) == b"hello\n"
    steps = [name for name in house.events(run_id) if name.startswith("step.acquire")]
    failed = ["step.acquire.failed"] * 2
    assert [n for n in steps if n != "step.acquire.started"] == [*failed, steps[-1]]
    assert steps[-1] == "step.acquire.finished"


def test_a_visit_on_a_host_that_is_lost_before_its_start_leaves_it_retained(
    house: House, kept: str
) -> None:
    with house.database.write("test") as tx:
        tx.run("UPDATE leases SET host_id = 'host-1'")
    run_id = visit(house, kept, "true")
    house.world.script(method="inspect", fail="provider_unavailable", times=100)
    house.until(lambda: status(house, kept) == "active")
    with house.database.write("test") as tx:
        tx.run("UPDATE hosts SET alive_at = 1 WHERE id = 'host-1'")
        tx.run("UPDATE sessions SET status = 'expired', ended_at = 1")
    run = house.over(run_id)
    assert (run["status"], run["code"]) == ("failed", "lease_unavailable")
    assert lease(house, kept)["final"] == "retained"
    house.worker = house.hire()
    house.until(lambda: status(house, kept) == "retained")


def test_a_held_lease_that_is_to_be_retained_is_when_its_run_ends(house: House) -> None:
    house.environment()
    lease_id = hold(house)
    run_id = house.submit("sleep", "600", lease_id=lease_id, grace_s=0)
    house.until(lambda: house.run(run_id)["step"] == "heartbeat")
    with house.database.write("test") as tx:
        holding.retain(tx, house.worker, lease_id)
        ending.request_end(tx, house.worker, run_id, EndKind.CANCEL)
    house.over(run_id)
    house.until(lambda: status(house, lease_id) == "retained")
    assert lease(house, lease_id)["held_until"] is None
    seen(house, lease_id, visit(house, lease_id, "true"))
