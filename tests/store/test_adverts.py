"""What a worker says of its host before it consumes, and what only then."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from leasehold import bootstrap
from leasehold.domain.timers import Timers
from leasehold.provider import contract as c
from leasehold.provider.budget import Budget
from leasehold.provider.fake import FakeProvider
from leasehold.provider.fake_world import World
from leasehold.provider.registry import Registry
from leasehold.runtime.worker import WorkerRuntime
from leasehold.settings import Settings
from leasehold.store import hosts
from leasehold.store.database import Database


class Probed(FakeProvider):
    """A provider that counts its probes."""

    def __init__(self, world: World, key: str, *, bound: bool) -> None:
        super().__init__(world)
        self.key, self.bound = key, bound
        self.version = "1"
        self.state = c.HealthState.HEALTHY
        self.probes = 0

    def describe(self) -> c.Info:
        info = super().describe()
        capabilities = replace(info.capabilities, host_bound=self.bound)
        return replace(info, key=self.key, version=self.version, capabilities=capabilities)

    def probe(self, config: c.Json, *, budget: Budget) -> c.Health:
        self.probes += 1
        return c.Health(state=self.state, summary=self.state.value)


@pytest.fixture
def providers(tmp_path: Path) -> list[Probed]:
    world = World(tmp_path / "fake")
    return [Probed(world, "here", bound=True), Probed(world, "anywhere", bound=False)]


@pytest.fixture
def hire(database: Database, providers: list[Probed]) -> Callable[[], WorkerRuntime]:
    """Return what makes another worker of one host."""
    registry = Registry({provider.key: provider for provider in providers})

    class App(bootstrap.App):
        def registry(self, host_id: str) -> Registry:
            return registry

    app = App(
        settings=Settings(), database=database, timers=Timers(), deployment="here", epoch=0
    )
    with database.write("test") as tx:
        hosts.upsert_host(tx, "host-1", name="host-1", capacity=1)

    def made() -> WorkerRuntime:
        return WorkerRuntime(
            app,
            kind="steps",
            worker_id="worker",
            host_id="host-1",
            session_id="session",
            publish=lambda _message: True,
            nudge=lambda: None,
            guard=None,
        )

    return made


def health(database: Database) -> dict[str, str]:
    with database.read() as tx:
        return {row["key"]: row["health"] for row in hosts.providers(tx)}


def test_the_first_worker_of_a_host_probes_all_before_it_consumes(
    hire: Callable[[], WorkerRuntime], providers: list[Probed], database: Database
) -> None:
    worker = hire()
    assert "leasehold.provider.anywhere" in worker.advertise()
    assert health(database) == {"here": "healthy", "anywhere": "healthy"}
    worker.prove()
    assert [provider.probes for provider in providers] == [1, 1]


def test_the_next_one_probes_what_was_healthy_here_once_it_consumes(
    hire: Callable[[], WorkerRuntime], providers: list[Probed], database: Database
) -> None:
    hire().advertise()
    for provider in providers:
        provider.state = c.HealthState.UNHEALTHY
    worker = hire()
    assert "leasehold.provider.anywhere" not in worker.advertise()
    assert [provider.probes for provider in providers] == [1, 2]
    assert health(database) == {"here": "healthy", "anywhere": "unhealthy"}
    worker.prove()
    assert health(database) == {"here": "unhealthy", "anywhere": "unhealthy"}
    # What was not healthy is looked at before anybody relies on it.
    providers[0].state = c.HealthState.HEALTHY
    hire().advertise()
    assert health(database)["here"] == "healthy"


def test_another_version_is_probed_at_once(
    hire: Callable[[], WorkerRuntime], providers: list[Probed]
) -> None:
    hire().advertise()
    providers[0].version = "2"
    hire().advertise()
    assert providers[0].probes == 2
