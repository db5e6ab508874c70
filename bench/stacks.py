"""
The stacks that are measured: services, host agent and a door to submit, each of our own.

Everything listens on loopback, on a free port, and dies with this process: servers by the
kernel's parent-death signal, the agent by a drain. Files live below one temporary directory.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Final

import psutil

from leasehold import bootstrap, log, transport
from leasehold import settings as knobs
from leasehold.domain.specs import EnvironmentSpec, RunSpec, parse
from leasehold.embedded import broker
from leasehold.embedded.broker import FAKEREDIS, BrokerKind
from leasehold.orchestrator import submit
from leasehold.orchestrator.jobs import Context
from leasehold.settings import Settings
from leasehold.store import hosts, schema
from leasehold.store.database import Database

ROOT: Final = Path(__file__).parents[1]
RESULTS: Final = Path(__file__).parent / "results"
READY_S: Final = 60.0


@dataclass(frozen=True)
class Services:
    """A database and a broker; pid None: it lives in the processes that use it."""

    name: str
    database_url: str
    broker_url: str
    broker_name: str
    broker_pid: int
    spare_url: str
    """Another, empty database of the same kind."""

    database_pid: int | None = None


@contextmanager
def services(kind: str, home: Path, *, pure_python: bool = False) -> Iterator[Services]:
    """Run `production` (PostgreSQL as it comes, Redis) or `embedded` (SQLite, its broker)."""
    with ExitStack() as stack:
        real = [one for one in broker.available() if one.binary is not None]
        on_path = [one for one in real if one.name.endswith("-server")]
        chosen = broker.choose()
        if pure_python:
            chosen = FAKEREDIS
        elif kind == "production":
            chosen = [*on_path, *real][0]
        url, pid = stack.enter_context(_broker(chosen))
        if kind == "embedded":
            files = [f"sqlite:///{home / name}" for name in ("leasehold.db", "spare.db")]
            yield Services(f"SQLite + {chosen.name}", files[0], url, chosen.name, pid, files[1])
            return
        # The tests' servers, with the durability that PostgreSQL has by default.
        sys.path.append(str(ROOT / "tests"))
        from services import run_postgres

        server = stack.enter_context(run_postgres(durable=True))
        database_url = stack.enter_context(server.database())
        spare = stack.enter_context(server.database())
        pids = pid, _postmaster(database_url)
        name = f"PostgreSQL + {chosen.name}"
        yield Services(name, database_url, url, chosen.name, pids[0], spare, pids[1])


@contextmanager
def _broker(kind: BrokerKind) -> Iterator[tuple[str, int]]:
    password, port = broker.new_password(), broker.free_port()
    child = broker.spawn(kind, port=port, password=password)
    try:
        url = broker.broker_url(port, password=password)
        broker.wait_ready(url, child=child)
        yield url, child.pid
    finally:
        broker.stop(child)


def _postmaster(url: str) -> int:
    """Return the pid of the server, the parent of whoever serves us."""
    database = Database(url)
    try:
        with database.read() as tx:
            return psutil.Process(int(tx.value("SELECT pg_backend_pid()"))).ppid()
    finally:
        database.close()


@dataclass
class Stack:
    """Services, one host agent, and our own door to the engine."""

    services: Services
    settings: Settings
    app: bootstrap.App
    context: Context
    processes: int
    threads: int
    agent: "subprocess.Popen[bytes] | None" = None

    def start_agent(self) -> None:
        """Start the host agent and wait until all of its workers consume."""
        command = [sys.executable, "-m", "leasehold.agent", "--parent", str(os.getpid())]
        command += ["--processes", str(self.processes), "--threads", str(self.threads)]
        self.agent = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
        until = monotonic() + READY_S
        while len(self.workers("steps")) < self.processes or not self.workers("beats"):
            if self.agent.poll() is not None or monotonic() > until:
                raise SystemExit("bench: the agent did not get ready")
            sleep(0.05)

    def stop_agent(self) -> None:
        if self.agent is None:
            return
        if self.agent.poll() is None:
            self.agent.send_signal(signal.SIGTERM)
        try:
            self.agent.wait(60)
        except subprocess.TimeoutExpired:
            self.agent.kill()
            self.agent.wait()
        self.agent = None

    def workers(self, kind: str) -> list[int]:
        """Return the pids of the workers of this kind that are ready."""
        with self.app.database.read() as tx:
            return [row["pid"] for row in hosts.ready_workers(tx) if row["kind"] == kind]

    def environment(self, name: str, provider: str) -> None:
        spec = parse(EnvironmentSpec, {"name": name, "provider": provider})
        with self.app.database.write("bench.environment") as tx:
            submit.ensure_environment(tx, spec, tenant_id="default")

    def submit(self, environment: str, spec: RunSpec) -> str:
        """Submit one run, as any client does; return its id."""
        request = submit.Request(spec=spec, environment=environment)
        with self.app.database.write("bench.submit") as tx:
            row, _ = submit.submit(tx, self.context, request)
        return str(row["id"])

    def gate(self, provider: str, *, is_open: bool) -> None:
        """Hold admission back, as an unhealthy provider does, or let it go on."""
        health = "healthy" if is_open else "unhealthy"
        with self.app.database.write("bench.gate") as tx:
            tx.run("UPDATE providers SET health = :h WHERE key = :k", h=health, k=provider)

    def count(self, where: str) -> int:
        with self.app.database.read() as tx:
            return int(tx.value(f"SELECT count(*) FROM runs WHERE {where}"))

    def wait_for(self, where: str, wanted: int, *, timeout_s: float) -> None:
        """Wait until so many runs are `where`; look four times a second."""
        until = monotonic() + timeout_s
        while (seen := self.count(where)) < wanted:
            if monotonic() > until:
                raise SystemExit(
                    f"bench: {seen} of {wanted} runs are {where} in {timeout_s:g} s"
                )
            sleep(0.25)

    def wait_released(self, *, timeout_s: float) -> None:
        """Wait until no lease is live: the release belongs to the run."""
        until = monotonic() + timeout_s
        while live := self._live():
            if monotonic() > until:
                raise SystemExit(f"bench: {live} leases are still live")
            sleep(0.1)

    def _live(self) -> int:
        with self.app.database.read() as tx:
            over = "('released', 'expired', 'failed')"
            return int(tx.value(f"SELECT count(*) FROM leases WHERE status NOT IN {over}"))


@contextmanager
def memory() -> Iterator[Path]:
    """Lend a directory in memory, where there is one, for what stands for a remote world."""
    shared = Path("/dev/shm")
    place = shared if os.access(shared, os.W_OK) else None
    path = Path(tempfile.mkdtemp(prefix="leasehold-bench-", dir=place))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def stack(
    services: Services, home: Path, *, processes: int, threads: int, world: Path | None = None
) -> Iterator[Stack]:
    """Migrate, build our door and start the agent; drain it in the end."""
    before = dict(os.environ)
    os.environ |= {
        "LEASEHOLD_HOME": str(home),
        "LEASEHOLD_HOST_ROOT": str(world or home / "host"),
        "LEASEHOLD_DATABASE_URL": services.database_url,
        "LEASEHOLD_BROKER_URL": services.broker_url,
        "LEASEHOLD_ALLOW_FAKE": "true",
        "LEASEHOLD_LOG_LEVEL": "ERROR",
    }
    log.configure(level="ERROR")
    settings = knobs.load()
    database = Database(settings.database_address)
    schema.upgrade(database)
    app = bootstrap.build(settings, database=database)
    context = app.context(publish=transport.publisher(settings))
    made = Stack(services, settings, app, context, processes, threads)
    try:
        made.start_agent()
        yield made
    finally:
        made.stop_agent()
        database.close()
        os.environ.clear()
        os.environ |= before


@contextmanager
def home() -> Iterator[Path]:
    """Lend a directory for the length of the block."""
    path = Path(tempfile.mkdtemp(prefix="leasehold-bench-"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def write_result(name: str, result: dict[str, Any]) -> Path:
    """Write a result as JSON below `bench/results`, which git ignores."""
    import json

    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(result, indent=2) + "\n")
    return path
