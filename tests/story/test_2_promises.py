"""The promises: what holds although workers die, the broker forgets, the provider fails."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from leasehold.errors import (
    IdempotencyConflictError,
    LostClaimError,
    ProviderError,
    StoreUnavailableError,
)
from leasehold.orchestrator import chain, submit
from leasehold.orchestrator.jobs import Message
from leasehold.seams import listening

from .conftest import House


class Killed(BaseException):
    """The worker dies here; nothing below it catches this."""


def die_at(name: str) -> Callable[[str], None]:
    """Return a hook that kills the worker at the first point of this name."""
    done = threading.Event()

    def hook(point: str) -> None:
        if point == name and not done.is_set():
            done.set()
            raise Killed

    return hook


@pytest.mark.parametrize(
    "point",
    [
        "commit.claim:after",
        "provider.acquire:before",
        "provider.acquire:after",
        "commit.record.acquire:after",
        "provider.start:before",
        "provider.start:after",
        "commit.record.execute:before",
        "commit.record.heartbeat:after",
        "provider.release:before",
        "provider.release:after",
        "commit.record.release:before",
    ],
)
def test_a_command_starts_once_though_its_worker_dies(house: House, point: str) -> None:
    house.environment()
    run_id = house.submit("echo", "hello")
    with listening(die_at(point)), pytest.raises(Killed):
        house.over(run_id)
        house.quiet()
    house.bury(house.worker)
    house.worker = house.hire()
    run = house.over(run_id)
    house.quiet()
    assert run["status"] == "succeeded"
    assert house.output(run_id) == b"hello\n"
    (execution,) = house.executions(run_id)
    assert execution["number"] == 1
    assert house.world.sandboxes() == []


def test_a_broker_that_loses_everything_costs_time_only(house: House) -> None:
    house.environment()
    house.lossy = True
    run_id = house.submit("echo", "hello")
    house.turn()
    assert house.run(run_id)["status"] == "running"
    house.lossy = False
    assert house.over(run_id)["status"] == "succeeded"


def test_a_message_delivered_five_times_is_claimed_once(house: House) -> None:
    house.environment()
    run_id = house.submit("echo", "hello")
    (message,) = house.messages
    house.messages.clear()

    def deliver(_: int) -> bool:
        return chain.run_message(house.worker, message)

    with ThreadPoolExecutor(5) as pool:
        assert sorted(pool.map(deliver, range(5))) == [False] * 4 + [True]
    assert house.over(run_id)["status"] == "succeeded"
    assert len(house.executions(run_id)) == 1


def test_a_stale_message_changes_nothing(house: House) -> None:
    house.environment()
    run_id = house.submit("sleep", "600")
    (message,) = house.messages
    house.until(lambda: house.run(run_id)["step"] == "heartbeat")
    before = house.run(run_id)
    for fence in range(5):
        stale = Message("run", run_id, fence - 10, message.step, message.queue)
        assert not chain.run_message(house.worker, stale)
    assert house.run(run_id) == before
    house.cancel(run_id)
    house.over(run_id)


def test_one_key_makes_one_run_however_many_ask_at_once(house: House) -> None:
    house.environment()
    with ThreadPoolExecutor(8) as pool:
        ids = set(pool.map(lambda _: house.submit("true", key="k"), range(100)))
    assert len(ids) == 1
    with pytest.raises(IdempotencyConflictError):
        house.submit("false", key="k")
    house.over(*ids)


def test_a_provider_that_fails_for_a_while_is_tried_again(house: House) -> None:
    house.environment()
    house.world.script("acquire", fail="provider_unavailable", times=2, after_effect=True)
    run = house.over(house.submit("true"))
    house.quiet()
    assert (run["status"], run["infra_attempts"]) == ("succeeded", 2)
    assert len(house.leases()) == 1, "the same lease id adopts what the lost answer made"
    assert house.world.sandboxes() == []


def test_too_many_failures_park_the_run_and_a_person_resumes_it(house: House) -> None:
    house.environment()
    house.world.script("acquire", fail="provider_unavailable", times=2)
    run_id = house.submit("echo", "hello", max_infra_attempts=2)
    house.until(lambda: house.run(run_id)["status"] == "parked")
    house.quiet()
    run = house.run(run_id)
    assert run["code"] == "infra_exhausted"
    assert run["lease_id"] is None
    assert house.world.sandboxes() == []
    with house.database.write("test") as tx:
        submit.resume(tx, house.worker, run_id)
    assert house.over(run_id)["status"] == "succeeded"


def test_what_a_provider_is_owed_is_never_forgotten(house: House) -> None:
    house.environment()
    house.world.script("release", fail="provider_unavailable", times=3)
    run_id = house.submit("true")
    assert house.over(run_id)["status"] == "succeeded", "its end does not wait for the release"
    house.quiet()
    (lease,) = house.leases()
    assert (lease["status"], lease["cleanup_attempts"]) == ("released", 4)
    assert house.world.sandboxes() == []


def test_a_lost_sandbox_fails_a_run_that_is_not_idempotent(house: House) -> None:
    house.environment()
    run_id = house.submit("sleep", "600")
    house.until(lambda: house.run(run_id)["step"] == "heartbeat")
    (lease_id,) = house.world.sandboxes()
    house.world.lose(lease_id)
    run = house.over(run_id)
    assert (run["status"], run["code"]) == ("failed", "execution_lost")
    assert [row["status"] for row in house.executions(run_id)] == ["lost"]


def test_a_lost_sandbox_is_replaced_for_an_idempotent_run(house: House) -> None:
    house.environment()
    run_id = house.submit("sleep", "0.3", "then", "echo", "hello", idempotent=True)
    house.until(lambda: house.run(run_id)["step"] == "heartbeat")
    (lease_id,) = house.world.sandboxes()
    house.world.lose(lease_id)
    run = house.over(run_id)
    assert (run["status"], run["attempt"], run["infra_attempts"]) == ("succeeded", 2, 1)
    assert house.output(run_id) == b"hello\n"


def test_a_fault_of_a_plugin_is_counted_and_never_stops_the_house(house: House) -> None:
    house.environment()
    with pytest.raises(ProviderError):
        house.world.script("validate", fail="provider_error")
        house.registry.require("fake").validate({}, budget=None)  # type: ignore[arg-type]  # unused
    house.world.script("validate", fail="provider_error")
    run = house.over(house.submit("true"))
    assert (run["status"], run["code"]) == ("failed", "provider_error")


def test_a_worker_of_another_host_leaves_the_row_alone(house: House) -> None:
    house.environment()
    run_id = house.submit("echo", "hello")
    (message,) = house.messages
    stranger = house.hire("host-2")
    stranger.queues = frozenset({"leasehold", "leasehold.host.host-2"})
    before = house.run(run_id)
    assert not chain.run_message(stranger, message)
    assert house.run(run_id) == before
    assert house.over(run_id)["status"] == "succeeded"


def test_a_row_whose_message_was_not_sent_is_due_again_soon(house: House) -> None:
    house.environment()
    house.worker.publish = lambda _message: False
    run_id = house.submit("echo", "hello")
    for _ in range(6):
        with house.database.write("test") as tx:
            tx.run("UPDATE runs SET due_at = {now}")
        house.turn()
    run = house.run(run_id)
    with house.database.read() as tx:
        wait = run["due_at"] - tx.now()
    assert wait <= 1_000_000, "no backoff is counted for a broker that is away"
    house.worker.publish = house.publish
    assert house.over(run_id)["status"] == "succeeded"


def test_what_a_worker_took_and_never_claimed_is_sent_again_when_it_dies(
    house: House,
) -> None:
    house.environment()
    run_id = house.submit("echo", "hello")
    assert [message.id for message in house.messages] == [run_id]
    house.messages.clear()  # taken from the broker by the worker that dies now
    house.bury(house.worker)
    row = house.run(run_id)
    with house.database.read() as tx:
        assert row["due_at"] <= tx.now()
    house.worker = house.hire()
    assert house.over(run_id)["status"] == "succeeded"


def test_a_death_does_not_shorten_the_wait_of_a_retry(house: House) -> None:
    house.environment()
    house.world.script("acquire", fail="provider_unavailable", times=2)
    run_id = house.submit("echo", "hello")
    while house.messages:
        chain.run_message(house.worker, house.messages.pop(0))
    waits_until = house.run(run_id)["due_at"]
    assert waits_until is not None
    house.bury(house.worker)
    assert house.run(run_id)["due_at"] == waits_until
    house.worker = house.hire()
    assert house.over(run_id)["status"] == "succeeded"


def test_a_death_does_not_shorten_the_wait_of_a_start_that_failed(house: House) -> None:
    house.environment()
    house.world.script("start", fail="provider_unavailable", times=1)
    run_id = house.submit("echo", "hello")
    while house.messages:
        chain.run_message(house.worker, house.messages.pop(0))
    row = house.run(run_id)
    assert row["publishes"] == 1
    house.bury(house.worker)
    assert house.run(run_id)["due_at"] == row["due_at"]
    house.worker = house.hire()
    assert house.over(run_id)["status"] == "succeeded"


def test_a_claim_whose_answer_was_lost_with_the_trust_is_given_back(house: House) -> None:
    """The claim is written, its answer is not heard, then the session is too old to go on."""
    house.environment()
    run_id = house.submit("echo", "hello")
    message = house.messages.pop()
    away: list[str] = []

    class Guard:
        def lost(self) -> str | None:
            return "the last confirmed beat is too old" if away else None

    def cut(point: str) -> None:
        if point == "commit.claim:after" and not away:
            away.append(point)
            raise StoreUnavailableError("the connection was cut")

    house.worker.guard = Guard()
    with listening(cut), pytest.raises(LostClaimError):
        chain.run_message(house.worker, message)
    assert house.run(run_id)["claimed_by"] is None
    house.worker.guard = None
    assert house.over(run_id)["status"] == "succeeded"
