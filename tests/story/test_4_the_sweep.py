"""The sweep: no sandbox stays behind, and nobody else's is touched."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from leasehold.errors import ProviderError, StoreUnavailableError
from leasehold.orchestrator.sweep import Report, Sweep
from leasehold.provider import Budget, Info, LeaseRef, Owned
from leasehold.provider.fake import FakeProvider
from leasehold.provider.fake_world import World
from leasehold.store import leases

from .conftest import House


@pytest.fixture
def sweep() -> Sweep:
    return Sweep("host-1")


def once(house: House, sweep: Sweep) -> Report:
    house.worker.timers = house.app.timers.__class__(sweep_grace=timedelta(microseconds=1))
    return sweep.run_once(house.worker, house.registry.require("fake"))


def plant(house: House, lease_id: str, *, number: int, deployment: str = "story") -> None:
    """Make a sandbox that SQL knows nothing of."""
    house.registry.require("fake").acquire(
        LeaseRef(id=lease_id, number=number, deployment=deployment),
        {},
        known=None,
        ttl=timedelta(minutes=5),
        fence=7,
        budget=Budget(5.0),
    )


def test_a_sandbox_without_a_row_is_destroyed_when_seen_twice(
    house: House, sweep: Sweep
) -> None:
    house.environment(policy="reuse_by_environment")
    run = house.over(house.submit("true"))
    house.quiet()
    plant(house, "stray", number=1)
    first = once(house, sweep)
    assert (first.listed, first.strays, first.destroyed) == (2, 1, [])
    assert once(house, sweep).destroyed == ["stray"]
    assert house.world.sandboxes() == [run["lease_id"]], "a live lease keeps its own"


def test_a_sighting_is_not_forgotten_when_another_provider_is_swept(
    house: House, sweep: Sweep, tmp_path: Path
) -> None:
    house.environment()
    house.over(house.submit("true"))
    house.quiet()
    plant(house, "stray", number=1)

    class Other(FakeProvider):
        def describe(self) -> Info:
            return replace(super().describe(), key="other")

    once(house, sweep)
    sweep.run_once(house.worker, Other(World(tmp_path / "other")))
    assert once(house, sweep).destroyed == ["stray"]


def test_a_sandbox_of_an_ended_lease_is_destroyed(house: House, sweep: Sweep) -> None:
    house.environment()
    run = house.over(house.submit("true"))
    house.quiet()
    plant(house, run["lease_id"], number=1)
    once(house, sweep)
    assert once(house, sweep).destroyed == [run["lease_id"]]
    assert house.world.sandboxes() == []


def test_a_number_above_the_highest_stops_the_sweep(house: House, sweep: Sweep) -> None:
    house.environment()
    house.over(house.submit("true"))
    house.quiet()
    plant(house, "stray", number=1)
    plant(house, "of-tomorrow", number=10**6)
    for _ in range(3):
        report = once(house, sweep)
        assert report.alarm is not None
        assert "restored" in report.alarm
        assert report.destroyed == []
    assert house.world.sandboxes() == ["of-tomorrow", "stray"]


def test_on_an_empty_database_nothing_is_destroyed(house: House, sweep: Sweep) -> None:
    plant(house, "stray", number=3)
    assert [once(house, sweep).destroyed for _ in range(3)] == [[], [], []]
    assert house.world.sandboxes() == ["stray"]


def test_another_deployments_sandbox_is_not_even_listed(house: House, sweep: Sweep) -> None:
    house.environment()
    house.over(house.submit("true"))
    house.quiet()
    plant(house, "theirs", number=1, deployment="another")
    assert [once(house, sweep).listed for _ in range(3)] == [0, 0, 0]
    assert house.world.sandboxes() == ["theirs"]


def test_a_kept_lease_without_its_sandbox_is_lost(house: House, sweep: Sweep) -> None:
    house.environment(policy="reuse_by_environment")
    run = house.over(house.submit("true"))
    house.quiet()
    house.world.lose(run["lease_id"])
    assert once(house, sweep).lost == []
    assert once(house, sweep).lost == [run["lease_id"]]
    house.quiet()
    with house.database.read() as tx:
        lease = leases.get(tx, run["lease_id"], tenant_id="default")
    assert (lease["status"], lease["reason"]) == ("failed", "lost")


def test_two_sightings_with_a_failure_between_them_are_one(house: House, sweep: Sweep) -> None:
    house.environment(policy="reuse_by_environment")
    run = house.over(house.submit("true"))
    house.quiet()
    house.world.lose(run["lease_id"])
    assert once(house, sweep).absent == 1
    house.world.script("list_owned", fail="provider_unavailable")
    with pytest.raises(ProviderError):
        once(house, sweep)
    assert once(house, sweep).lost == []
    assert once(house, sweep).lost == [run["lease_id"]]
    house.quiet()


class Slow(FakeProvider):
    """A listing that was taken, and arrives only after something has happened."""

    meanwhile: Callable[[], object] = staticmethod(lambda: None)

    def list_owned(self, *args: Any, **kwargs: Any) -> Iterator[Owned]:
        found = list(super().list_owned(*args, **kwargs))
        self.meanwhile()
        yield from found


def test_a_listing_says_nothing_of_what_was_made_after_it(house: House, sweep: Sweep) -> None:
    house.environment(policy="reuse_by_environment")
    slow = Slow(house.world)
    slow.meanwhile = lambda: house.over(house.submit("true"))
    report = sweep.run_once(house.worker, slow)
    house.quiet()
    assert [row["status"] for row in house.leases()] == ["idle"]
    assert (report.listed, report.absent) == (0, 0)


def test_nothing_is_destroyed_while_sql_does_not_answer(
    house: House, sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.environment()
    house.over(house.submit("true"))
    house.quiet()
    plant(house, "stray", number=1)
    once(house, sweep)

    def away() -> None:
        raise StoreUnavailableError("away")

    with monkeypatch.context() as patch:
        patch.setattr(house.worker.database, "read", away)
        with pytest.raises(StoreUnavailableError):
            once(house, sweep)
    assert house.world.sandboxes() == ["stray"]
