"""Two threads of one worker never work on one claim, whatever the database does not answer."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

from leasehold.errors import StoreUnavailableError
from leasehold.maintenance import clock
from leasehold.orchestrator import chain, claiming
from leasehold.orchestrator.jobs import Message
from leasehold.provider.contract import Sandbox
from leasehold.provider.fake import FakeProvider
from leasehold.provider.registry import Registry
from leasehold.seams import listening

from .conftest import House

PATIENCE_S = 30.0


class Doors(FakeProvider):
    """Its acquire of that number stops until it is let go on."""

    stops_at = 0
    acquires = 0

    def __init__(self, world: Any) -> None:
        super().__init__(world)
        self.entered, self.opened = threading.Event(), threading.Event()

    def acquire(self, *args: Any, **more: Any) -> Sandbox:
        self.acquires += 1
        if self.acquires == self.stops_at:
            self.entered.set()
            assert self.opened.wait(PATIENCE_S)
        return super().acquire(*args, **more)


@pytest.fixture
def doors(house: House) -> Doors:
    provider = Doors(house.world)
    house.registry = Registry({"fake": provider})
    house.worker = house.hire()
    return provider


def cut_once(at: str) -> Callable[[str], None]:
    """Let the first answer at a point get lost."""
    seen: list[str] = []

    def cut(point: str) -> None:
        if point == at and not seen:
            seen.append(point)
            raise StoreUnavailableError("the connection was cut")

    return cut


class Other:
    """Another thread of the house's worker, which takes a message."""

    def __init__(self, house: House, doors: Doors) -> None:
        self._house, self._doors = house, doors
        self._thread: threading.Thread | None = None

    def take(self, message: Message) -> None:
        """Take it, and come as far as the door."""
        self._thread = threading.Thread(
            target=chain.run_message, args=(self._house.worker, message)
        )
        self._thread.start()
        assert self._doors.entered.wait(PATIENCE_S)

    def go_on(self) -> None:
        self._doors.opened.set()
        assert self._thread is not None
        self._thread.join(PATIENCE_S)


def test_a_record_whose_answer_was_lost_is_not_taken_for_anothers_claim(
    house: House, doors: Doors, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reused sandbox was gone: the run may go on elsewhere, the lease is owed."""
    house.environment(policy="reuse_by_environment")
    first = house.over(house.submit("true"))
    house.quiet()
    (idle,) = house.leases()
    house.world.lose(idle["id"])
    other, doors.stops_at = Other(house, doors), 3

    def while_we_wait(_seconds: float) -> None:
        if doors.entered.is_set():
            return
        while not house.messages:
            clock.run_once(house.worker, batch=100)
        other.take(house.messages.pop())

    monkeypatch.setattr(chain, "sleep", while_we_wait)
    second = house.submit("true")
    with listening(cut_once("commit.record.acquire:after")):
        chain.run_message(house.worker, house.messages.pop())
    assert {row["id"]: row["status"] for row in house.leases()}[idle["id"]] == "failed"
    assert doors.acquires == 3
    other.go_on()
    assert house.over(second)["status"] == first["status"] == "succeeded"
    assert doors.acquires == 3


def test_a_claim_whose_answer_was_lost_is_not_taken_for_anothers(
    house: House, doors: Doors, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was not written; the same message, sent again, has reached another thread."""
    house.environment()
    run_id = house.submit("true")
    message = house.messages.pop()
    other, doors.stops_at = Other(house, doors), 1

    def while_we_wait(_seconds: float) -> None:
        if not doors.entered.is_set():
            other.take(message)

    monkeypatch.setattr(claiming, "sleep", while_we_wait)
    with listening(cut_once("commit.claim:before")):
        chain.run_message(house.worker, message)
    assert house.run(run_id)["step"] == "acquire"
    assert doors.acquires == 1
    other.go_on()
    assert house.over(run_id)["status"] == "succeeded"
    assert (doors.acquires, house.run(run_id)["starts"]) == (1, 1)
