"""A small house to tell stories in: one database, one host or more, no broker that lasts."""

import itertools
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from leasehold.bootstrap import App
from leasehold.domain.lifecycle import EndKind
from leasehold.domain.specs import EnvironmentSpec, RunSpec, parse
from leasehold.domain.timers import Timers
from leasehold.maintenance import clock, sessions
from leasehold.orchestrator import beats, chain, ending, submit
from leasehold.orchestrator.jobs import Context, Message
from leasehold.provider.budget import Budget
from leasehold.provider.fake import make
from leasehold.provider.fake_world import World
from leasehold.provider.registry import Registry
from leasehold.runtime.worker import advertised
from leasehold.settings import Settings
from leasehold.store import executions, hosts, leases, moves, runs
from leasehold.store.database import Database, Row

SHORT = Timers(
    heartbeat_min=timedelta(milliseconds=20),
    heartbeat_max=timedelta(milliseconds=100),
    retry_base=timedelta(milliseconds=20),
    cleanup_retry_base=timedelta(milliseconds=20),
    republish_base=timedelta(milliseconds=200),
)


class House:
    """Everything in one process; `turn` does what workers and clocks would do next."""

    def __init__(self, database: Database, root: Path) -> None:
        self.database = database
        self.root = root
        self.world = World(root)
        self.messages: list[Message] = []
        self.lossy = False
        self._ids = itertools.count(1)
        self.app = App(
            settings=Settings(),
            database=database,
            timers=SHORT,
            deployment="story",
            epoch=0,
        )
        self.registry = Registry({"fake": make({"root": str(root)})})
        self.worker = self.hire()

    def hire(
        self,
        host: str = "host-1",
        *,
        labels: dict[str, str] | None = None,
        **advert: Any,
    ) -> Context:
        """Start a worker on a host, whose agent says this of it; return what it works with."""
        name = f"worker-{next(self._ids)}"
        provider = self.registry.require("fake")
        with self.database.write("test") as tx:
            hosts.upsert_host(tx, host, name=host, capacity=1000, labels=labels)
            hosts.start_session(tx, f"session-{name}", host_id=host, pid=1)
            hosts.add_worker(
                tx,
                {
                    "id": name,
                    "session_id": f"session-{name}",
                    "host_id": host,
                    "kind": "steps",
                    "pid": 1,
                    "version": "test",
                    "queues": [],
                },
            )
            health = provider.probe({}, budget=Budget(1.0))
            hosts.advertise(tx, host, advertised(provider.describe(), health) | advert)
            hosts.worker_ready(tx, name, queues=["leasehold.provider.fake"])
        return self.app.context(
            publish=self.publish, worker_id=name, providers=self.registry, nudge=lambda: None
        )

    def bury(self, worker: Context) -> None:
        """Do what an agent does that sees its child die."""
        with self.database.write("test") as tx:
            sessions.worker_gone(tx, worker.worker_id)

    def publish(self, message: Message) -> None:
        if not self.lossy:
            self.messages.append(message)

    def environment(self, name: str = "lab", **spec: Any) -> Row:
        body = {"name": name, "provider": "fake", **spec}
        with self.database.write("test") as tx:
            return submit.create_environment(
                tx, parse(EnvironmentSpec, body), tenant_id="default"
            )

    def submit(self, *argv: str, environment: str = "lab", **spec: Any) -> str:
        request = {"commands": [{"argv": argv}], **spec}
        options = {k: request.pop(k) for k in ("key", "lease_id") if k in request}
        where = None if "lease_id" in options else environment
        with self.database.write("test") as tx:
            row, _ = submit.submit(
                tx,
                self.worker,
                submit.Request(spec=parse(RunSpec, request), environment=where, **options),
            )
        return str(row["id"])

    def cancel(self, run_id: str) -> Row:
        with self.database.write("test") as tx:
            return ending.request_end(tx, self.worker, run_id, EndKind.CANCEL)

    def turn(self) -> None:
        """Handle every message that is under way, then let the clock take one turn."""
        while self.messages:
            message = self.messages.pop(0)
            if message.kind == "beat":
                beats.run_once(self.worker, message.id, limit=100)
            else:
                chain.run_message(self.worker, message)
        clock.run_once(self.worker, batch=100)

    def until(self, condition: Callable[[], bool], *, seconds: float = 10.0) -> None:
        give_up = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < give_up, "the condition never came true"
            self.turn()
            time.sleep(0.002)

    def over(self, *run_ids: str) -> Row:
        """Let the house go on until these runs are over; return the last one's row."""
        self.until(lambda: all(self.run(i)["finished_at"] for i in run_ids))
        return self.run(run_ids[-1])

    def quiet(self) -> None:
        """Let the house go on until the provider is owed nothing."""
        self.until(lambda: not any(r["status"] == "releasing" for r in self.leases()))

    def run(self, run_id: str) -> Row:
        with self.database.read() as tx:
            row = runs.find(tx, run_id)
        assert row is not None
        return row

    def leases(self) -> list[Row]:
        with self.database.read() as tx:
            return leases.page(tx, tenant_id="default")

    def events(self, run_id: str) -> list[str]:
        with self.database.read() as tx:
            return [row["name"] for row in moves.events_of(tx, run_id=run_id)]

    def executions(self, run_id: str) -> list[Row]:
        with self.database.read() as tx:
            return executions.of_run(tx, run_id)

    def output(self, run_id: str) -> bytes:
        with self.database.read() as tx:
            return b"".join(
                executions.output(tx, row["id"], stream="stdout", offset=0)
                for row in executions.of_run(tx, run_id)
            )


@pytest.fixture
def house(database: Database, tmp_path: Path) -> Iterator[House]:
    house = House(database, tmp_path / "fake")
    yield house
    house.until(lambda: not any(r["claimed_by"] for r in house.leases()))
