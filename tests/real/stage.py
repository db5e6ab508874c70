"""
PostgreSQL, a broker, wires to both, and one host's real processes: all private, all ours.

The host reaches its servers through the wires only; the test itself goes around them, as a
control plane elsewhere would. What is asked at the end trusts no row alone: each command
leaves a mark in a file of its own at each start, and sandboxes are counted on the disk.
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Protocol

import kombu
from sqlalchemy.engine import make_url

import services
from chaos.checks import sandboxes_of
from chaos.servers import BrokerServer, PostgresServer, real_broker
from leasehold.domain.specs import EnvironmentSpec, RunSpec, parse
from leasehold.errors import LeaseholdError
from leasehold.orchestrator import submit
from leasehold.orchestrator.submit import Request
from living import SHORT, Home, Process, wait_for
from rabbitmq import RabbitServer
from wires import Wire

TIMERS: Final = {**SHORT, "canary_every": 1, "deaf_after": 4, "child_silent": 10}
PATIENT_S: Final = 90.0
"""How long a test waits for what should come in seconds: the machine may be busy."""


class Broker(Protocol):
    """A broker that can be started anew, with and without what it knew."""

    port: int

    def url(self, host: str = ..., port: int | None = ...) -> str: ...

    def start(self) -> None: ...

    def kill(self) -> None: ...

    def close(self) -> None: ...


def make_broker(kind: str) -> Broker:
    """Start a `redis` or a `rabbitmq`."""
    return RabbitServer() if kind == "rabbitmq" else BrokerServer(real_broker())


def forget(server: Broker, *queues: str) -> None:
    """Make a running broker lose all messages: FLUSHALL, or its queues deleted."""
    if isinstance(server, BrokerServer):
        server.flush()
    elif isinstance(server, RabbitServer):
        server.forget(*queues)


class Stage:
    """One deployment on real services; `play` submits, `proven` judges."""

    def __init__(
        self,
        path: Path,
        postgres: PostgresServer,
        broker: Broker,
        *,
        timers: dict[str, float] = TIMERS,
    ) -> None:
        self.postgres, self.broker = postgres, broker
        # A database of its own: a stage before this one may have left a host behind.
        database = make_url(services.Postgres(postgres.url()).create())
        self.to_broker, self.to_postgres = Wire(broker.port), Wire(postgres.port)
        self.home = Home(
            path,
            broker_url=broker.url(),
            database_url=database.render_as_string(hide_password=False),
            timers=timers,
        )
        self._database = database
        self.agent = self.hire()
        self.ready()
        self._count = 0
        self._names: dict[str, str] = {}

    def hire(self) -> Process:
        """Start an agent that reaches its servers through the wires only."""
        there = self._database.set(port=self.to_postgres.port)
        return self.home.agent(
            LEASEHOLD_BROKER_URL=self.broker.url(port=self.to_broker.port),
            LEASEHOLD_DATABASE_URL=there.render_as_string(hide_password=False),
        )

    def close(self) -> None:
        self.home.__exit__()
        self.to_broker.close()
        self.to_postgres.close()

    def ready(self, *, besides: tuple[int, ...] = ()) -> dict[str, int]:
        """Wait until steps and beats are consumed, by others than these pids."""

        def both() -> dict[str, int]:
            with suppress(LeaseholdError):
                now = self.home.workers()
                if now.keys() >= {"steps", "beats"} and not set(now.values()) & set(besides):
                    return now
            return {}

        result: dict[str, int] = wait_for("ready workers", both, within_s=PATIENT_S)
        return result

    def submit(self, script: str, *, provider: str = "local", **spec: Any) -> str:
        """Submit one command until it is accepted, under one key; return the run's id."""
        self._count += 1
        name = f"mark-{self._count}"
        argv = ["/bin/sh", "-c", f'echo started >> "$MARKS/$NAME"\n{script}']
        env = {"MARKS": str(self.home.marks), "NAME": name, **spec.pop("env", {})}
        body = {"commands": [{"argv": argv}], "env": env, **spec}
        request = Request(spec=parse(RunSpec, body), environment=provider, key=name)
        run_id: str = wait_for("a database", lambda: self._accepted(request), within_s=60)
        self._names[run_id] = name
        return run_id

    def _accepted(self, request: Request) -> str | None:
        named = {"name": request.environment, "provider": request.environment}
        try:
            with self.home.app.database.write("test.submit") as tx:
                submit.ensure_environment(
                    tx, parse(EnvironmentSpec, named), tenant_id="default"
                )
                row, _ = submit.submit(tx, self.home.context, request)
                return str(row["id"])
        except LeaseholdError:
            time.sleep(0.1)
            return None

    def load(self, quick: int = 8, *, trouble: Callable[[], None]) -> list[str]:
        """Submit quick commands and two that talk, with `trouble` in the middle of it."""
        talking = "i=0; while [ $i -lt 30 ]; do echo line $i; i=$((i+1)); sleep 0.1; done"
        ids = [self.submit(talking) for _ in range(2)]
        self.started(ids)
        ids += [self.submit("echo before") for _ in range(quick // 2)]
        trouble()
        ids += [self.submit("echo after") for _ in range(quick - quick // 2)]
        return ids

    def started(self, ids: list[str]) -> None:
        wait_for(
            "commands that run",
            lambda: all(self.starts(run_id) for run_id in ids),
            within_s=PATIENT_S,
        )

    def starts(self, run_id: str) -> int:
        path = self.home.marks / self._names[run_id]
        return len(path.read_text().splitlines()) if path.exists() else 0

    def proven(self, ids: list[str], *, status: str = "succeeded") -> None:
        """All are over as they should, were started once, said all, and left nothing."""
        rows = [self.finished(run_id) for run_id in ids]
        assert [row["status"] for row in rows] == [status] * len(ids), rows
        assert {run_id: self.starts(run_id) for run_id in ids} == dict.fromkeys(ids, 1)
        for run_id in ids[:2]:
            assert self.home.output(run_id) == b"".join(b"line %d\n" % n for n in range(30))
        wait_for("no sandbox on the disk", lambda: not self.sandboxes(), within_s=PATIENT_S)
        self.home.settled()

    def finished(self, run_id: str) -> Any:
        def over() -> Any:
            with contextlib.suppress(LeaseholdError):
                row = self.home.run(run_id)
                return row if row["finished_at"] else None

        return wait_for(f"the end of run {run_id}", over, within_s=PATIENT_S)

    def sandboxes(self) -> list[Path]:
        return sandboxes_of(self.home.settings.host_home)

    def kill(self, kind: str) -> int:
        """Kill one worker process; return its pid."""
        pid = self.home.workers()[kind]
        os.kill(pid, signal.SIGKILL)
        return pid


@contextlib.contextmanager
def impatient_neighbour(stage: Stage) -> Iterator[None]:
    """
    Let a consumer of the same keys give back, all the time, what is older than a second.

    With Redis the shortest visibility timeout of all that use the keys wins. RabbitMQ has none.
    """
    if isinstance(stage.broker, RabbitServer):
        yield
        return
    over = threading.Event()
    options = {
        "visibility_timeout": 1,
        "global_keyprefix": stage.home.settings.broker_prefix,
    }

    def give_back() -> None:
        with kombu.Connection(stage.broker.url(), transport_options=options) as connection:
            channel: Any = connection.channel()
            while not over.wait(0.3):
                channel.qos.restore_visible(start=0, num=1000)

    thread = threading.Thread(target=give_back, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(10)
