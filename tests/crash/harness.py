"""
Forked workers that may be killed at any point, on a cell of their own.

A *cell* is one deployment in one directory: a copy of a migrated SQLite file, a host with its
sandboxes, and the marks that commands leave outside of any sandbox. The parent process, in
which everything is imported, forks a worker into the cell. The worker runs steps, beats and
clock in one loop until its scenario is over. Its broker is a list in its memory, so messages
die with it (P6). Every point of `leasehold.seams` is written down as it is passed, and at the
one that it was told the worker sends itself SIGKILL: nothing is flushed, nothing is closed.

The next worker then sees that death as an agent does (`sessions.worker_gone`) and goes on with
the same scenario, which therefore asks the rows where it is and keeps nothing in memory. Calls
of a provider that the dead worker had under way may go on in the sandbox, as in real life.
"""

import dataclasses
import os
import queue
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from leasehold import bootstrap
from leasehold.domain.after import After
from leasehold.domain.lifecycle import RUN_ENDS, EndKind, LeaseStatus
from leasehold.domain.pace import Pace
from leasehold.domain.specs import EnvironmentSpec, RunSpec, parse
from leasehold.errors import LeaseholdError, StoreUnavailableError
from leasehold.maintenance import clock, sessions
from leasehold.orchestrator import beats, chain, ending, submit
from leasehold.orchestrator.jobs import Context, Message
from leasehold.provider.budget import Budget
from leasehold.provider.contract import LeaseRef, ReleaseMode, Target
from leasehold.provider.fake_world import World
from leasehold.runtime.worker import WorkerRuntime
from leasehold.settings import Settings
from leasehold.store import hosts, runs, schema
from leasehold.store.database import Database, Row

TIMERS: Final = {
    "heartbeat_min": 0.01,
    "heartbeat_follow": 0.04,
    "heartbeat_max": 0.04,
    "retry_base": 0.01,
    "retry_max": 0.02,
    "cleanup_retry_base": 0.01,
    "cleanup_retry_max": 0.02,
    "republish_base": 0.05,
    "republish_max": 0.2,
    "starting_max": 0.3,
    "provider_call": 10,
    "beat_every": 0.05,
    "holder_trust": 0.2,
    "session_ttl": 0.3,
    "observe_gap": 0.25,
}
"""Seconds; all that is not here is as in production."""

SETTINGS: Final = Settings(allow_fake=True, timers=TIMERS)

PROVIDERS: Final = ("fake", "fake_plugin", "local")
"""Whose stories are told."""

POLICIES: Final = ("ephemeral", "reuse_by_environment", "retain_on_failure")


@dataclass(frozen=True, slots=True)
class Cell:
    """One deployment in one directory."""

    path: Path

    @property
    def database_url(self) -> str:
        elsewhere = self.path / "database-url"
        if elsewhere.exists():
            return elsewhere.read_text()
        return f"sqlite:///{self.path / 'leasehold.db'}"

    @property
    def world(self) -> World:
        """The world of the `fake` provider."""
        return World(self.path / "host" / "sandboxes" / "fake")

    def mark(self, key: str) -> Path:
        """Return the file outside of any sandbox to which a run's commands append a line."""
        return self.path / "marks" / key

    def starts(self, key: str) -> int:
        path = self.mark(key)
        return len(path.read_text().splitlines()) if path.exists() else 0

    def once(self, name: str) -> bool:
        """Return True for the first worker that asks, whoever is killed."""
        try:
            (self.path / f"once-{name}").touch(exist_ok=False)
        except FileExistsError:
            return False
        return True

    def points(self, generation: int) -> list[str]:
        """Return the points that a worker of the cell has passed."""
        path = self.path / f"points-{generation}"
        return path.read_text().splitlines() if path.exists() else []

    def logs(self) -> str:
        return "\n".join(p.read_text() for p in sorted(self.path.glob("log-*")))

    def processes(self) -> list[int]:
        """Find processes that belong to the cell: by their words, directory or variables."""
        needle = os.fsencode(f"{self.path}/")
        found = []
        for proc in Path("/proc").glob("[0-9]*"):
            try:
                text = (proc / "cmdline").read_bytes() + (proc / "environ").read_bytes()
                text += os.fsencode(f"{(proc / 'cwd').readlink()}/")
                if needle in text and (proc / "stat").read_text().rpartition(")")[2][1] != "Z":
                    found.append(int(proc.name))
            except OSError:
                continue
        return found

    def end(self) -> None:
        """Kill what a failed test left behind."""
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


class Cells:
    """Makes cells from one template."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._template = root / "template"
        self._count = 0

    def prepare(self) -> None:
        """Make the template: a host with a live session, all providers, all environments."""
        (self._template / "marks").mkdir(parents=True)
        cell = Cell(self._template)
        database = Database(cell.database_url)
        schema.upgrade(database)
        furnish(cell, database)

    def make(self) -> Cell:
        self._count += 1
        return Cell(
            Path(shutil.copytree(self._template, self.root / f"cell-{self._count:05d}"))
        )

    def close(self) -> None:
        """End what still runs in the cells and remove them all."""
        Cell(self.root).end()
        shutil.rmtree(self.root, ignore_errors=True)

    def drop(self, cell: Cell) -> None:
        """Remove a cell that ended well; the others stay for whoever looks into them."""
        shutil.rmtree(cell.path, ignore_errors=True)


def furnish(cell: Cell, database: Database) -> None:
    """Write what a host and its people write once; closes the database."""
    host_id = bootstrap.host_id_of(cell.path / "host")
    with database.write("template") as tx:
        hosts.upsert_host(tx, host_id, name="host", capacity=100)
        hosts.start_session(tx, "session", host_id=host_id, pid=1)
    engine = Engine(cell, "template", database=database)
    engine.boot()
    with database.write("template") as tx:
        for provider in PROVIDERS:
            for policy in POLICIES:
                name = f"{provider}.{policy}"
                values = {"name": name, "provider": provider, "policy": policy}
                submit.create_environment(
                    tx, parse(EnvironmentSpec, values), tenant_id="default"
                )
        sessions.worker_gone(tx, "template")
    engine.close()


class Engine:
    """One worker with everything in one loop; in a forked child, or in the test itself."""

    def __init__(
        self,
        cell: Cell,
        worker_id: str,
        *,
        database: Database | None = None,
        session_id: str = "session",
        **context: Any,
    ) -> None:
        self.cell = cell
        self.worker_id = worker_id
        self.settings = SETTINGS.model_copy(update={"home": cell.path})
        self.database = database or Database(cell.database_url)
        app = bootstrap.build(self.settings, database=self.database)
        self.inbox: queue.Queue[Message | str] = queue.Queue()
        self.runtime = WorkerRuntime(
            app,
            kind="steps",
            worker_id=worker_id,
            host_id=bootstrap.host_id_of(self.settings.host_home),
            session_id=session_id,
            publish=self.send,
            nudge=lambda: None,
            guard=None,
        )
        # An exit that is seen is taken up by this loop or left to the beat: no other thread.
        self.runtime._stop.set()
        self.context: Context = self.runtime.context
        for name, value in context.items():
            setattr(self.context, name, value)
        self.beats = dataclasses.replace(self.context, sticky=False)
        self.clock = self.context
        """The clock's context; the worker's own, unless a test gives it another broker."""

        self._by_key: dict[str, str] = {}

    def boot(self) -> None:
        """Enlist, advertise, be ready: what a worker does before its first message."""
        runtime = self.runtime
        with self.database.write("worker.enlist") as tx:
            hosts.add_worker(
                tx,
                {
                    "id": self.worker_id,
                    "session_id": runtime.session_id,
                    "host_id": runtime.host_id,
                    "kind": "steps",
                    "pid": os.getpid(),
                    "version": "0",
                    "queues": [],
                },
            )
        runtime.advertise()
        self.beats.queues = self.context.queues
        with self.database.write("worker.ready") as tx:
            hosts.worker_ready(tx, self.worker_id, queues=runtime.queues)
        for key in runtime.registry.keys():  # noqa: SIM118  a method
            provider = runtime.registry.require(key)
            if provider.describe().capabilities.watch:
                provider.watch(self.send)

    def later(self, by_us: int) -> None:
        """Let time have passed, for the database and for whoever compares it with boot time."""
        self.database.offset_us = by_us
        self.clock.pace = Pace()

    def send(self, item: Message | str) -> None:
        """Deliver a message, or an exit that was seen, to this worker."""
        self.inbox.put(item)

    def bury(self, worker_id: str) -> None:
        """Give up what a dead worker had claimed, as its agent does."""
        with self.database.write("worker.gone") as tx:
            if tx.value("SELECT 1 FROM workers WHERE id = :id", id=worker_id):
                sessions.worker_gone(tx, worker_id)

    def turn(self) -> None:
        """Do all that lies in the inbox, then let the clock look; wait for at most a moment."""
        while not self.inbox.empty():
            self.handle(self.inbox.get())
        wait = 0.02
        try:
            wait = clock.run_once(self.clock, batch=20).next_in_s
        except StoreUnavailableError as error:
            sys.stderr.write(f"clock: {error}\n")
        try:
            item = self.inbox.get(timeout=min(max(wait, 0.0005), 0.02))
        except queue.Empty:
            return
        self.handle(item)

    def until(self, over: Callable[[], bool], *, within_s: float = 20.0) -> None:
        """Work until something is true."""
        end = time.monotonic() + within_s
        while not over():
            assert time.monotonic() < end, "it did not come true"
            self.turn()

    def handle(self, item: Message | str) -> None:
        """Do what a message asks for; our own errors end there, as at Celery's door."""
        try:
            if isinstance(item, str):
                self.runtime._take_up(item)
            elif item.kind == "beat":
                beats.run_once(self.beats, item.id, limit=100)
                self.context.lanes.clear()
            else:
                chain.run_message(self.context, item)
        except LeaseholdError as error:
            sys.stderr.write(f"stopped: {item} {type(error).__name__}: {error}\n")

    # What the doors do. Each may be repeated by the next worker.

    def submit(
        self,
        key: str,
        commands: list[list[str]],
        *,
        environment: str | None = None,
        lease_id: str | None = None,
        visit: bool = False,
        after: Sequence[After] = (),
        **spec: Any,
    ) -> str:
        """Submit a run under its key; return its id, again and again."""
        if key not in self._by_key:
            body = {"commands": [{"argv": argv} for argv in commands], **spec}
            cwd = body.pop("cwd", None)
            if cwd:
                body["commands"] = [{**command, "cwd": cwd} for command in body["commands"]]
            request = submit.Request(
                spec=parse(RunSpec, body),
                environment=environment,
                lease_id=lease_id,
                visit=visit,
                after=tuple(after),
                key=key,
            )
            with self.database.write("door.submit") as tx:
                row, _ = submit.submit(tx, self.context, request)
            self._by_key[key] = row["id"]
        return self._by_key[key]

    def run(self, key: str) -> Row | None:
        with self.database.read() as tx:
            return runs.find_by_key(tx, tenant_id="default", key=key)

    def over(self, *keys: str) -> bool:
        rows = [self.run(key) for key in keys]
        return all(row is not None and row["status"] in RUN_ENDS for row in rows)

    def cancel(self, key: str) -> None:
        row = self.run(key)
        assert row is not None
        with self.database.write("door.cancel") as tx:
            ending.request_end(tx, self.context, row["id"], EndKind.CANCEL)

    def leases(self, *statuses: LeaseStatus) -> list[Row]:
        with self.database.read() as tx:
            rows = tx.all("SELECT * FROM leases ORDER BY number")
        return [row for row in rows if not statuses or row["status"] in statuses]

    def quiet(self) -> bool:
        """Return whether nothing is owed to anybody any more."""
        with self.database.read() as tx:
            busy = tx.value(
                "SELECT (SELECT count(*) FROM runs WHERE status IN ('queued', 'running'))"
                " + (SELECT count(*) FROM leases"
                " WHERE status IN ('acquiring', 'active', 'releasing'))"
            )
        return not busy

    def owned(self) -> list[str]:
        """Ask every provider which sandboxes it has; return their lease ids."""
        found = []
        for key in PROVIDERS:
            provider = self.runtime.registry.require(key)
            deployment = self.context.deployment
            listed = provider.list_owned(deployment, config={}, budget=Budget(10.0))
            found += [one.lease_id for one in listed]
        return sorted(found)

    def destroy(self, provider: str, lease_id: str) -> None:
        """Remove a sandbox that no live lease knows, as the sweep does."""
        lease = LeaseRef(id=lease_id, number=1, deployment=self.context.deployment)
        self.runtime.registry.require(provider).release(
            Target(lease=lease, handle={}, config={}),
            fence=1 << 39,
            mode=ReleaseMode.DESTROY,
            budget=Budget(10.0),
        )

    def close(self) -> None:
        for key in self.runtime.registry.keys():  # noqa: SIM118  a method
            self.runtime.registry.require(key).close()
        self.database.close()
