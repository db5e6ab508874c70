"""
A home in which real Leasehold processes live, for tests of doors.

Everything that is started here dies with the test: each process in a group of its own, ended
at the end, and tethered to us where it is a server. What a test waits for is a condition, in
bounded polls; what a process said is read from its log, one JSON line each.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Final, Self

import psutil

from leasehold import bootstrap, transport
from leasehold import settings as knobs
from leasehold.domain.specs import EnvironmentSpec, RunSpec, parse
from leasehold.orchestrator import submit
from leasehold.store import executions, history, hosts, invariants, leases, runs, schema
from leasehold.store.database import Database, Row

SHORT: Final = {
    "beat_every": 0.5,
    "holder_trust": 4,
    "session_ttl": 6,
    "observe_gap": 2,
    "host_grace": 10,
    "republish_base": 0.4,
    "republish_max": 1,
    "clock_max_sleep": 0.5,
    "heartbeat_max": 0.5,
    "retry_base": 0.1,
}
"""Timers of a quick test that nobody dies in: a slow machine does not end a session."""

HASTY: Final = {**SHORT, "beat_every": 0.2, "holder_trust": 1.2, "session_ttl": 2} | {
    "observe_gap": 1.2
}
"""Timers of a test that waits for a session to expire."""


def wait_for(what: str, found: Callable[[], Any], *, within_s: float = 20.0) -> Any:
    """Poll until `found` returns something true; return that."""
    until = time.monotonic() + within_s
    while True:
        value = found()
        if value:
            return value
        if time.monotonic() >= until:
            raise AssertionError(f"not within {within_s:g} s: {what}")
        time.sleep(0.01)


class Process:
    """One process that we started, and its log."""

    def __init__(self, argv: Sequence[str], *, environment: dict[str, str], log: Path) -> None:
        self.log = log
        with log.open("ab") as err, log.with_suffix(".out").open("ab") as out:
            self.popen = subprocess.Popen(
                argv,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self.popen.pid

    def send(self, signum: int) -> None:
        self.popen.send_signal(signum)

    def ended(self, *, within_s: float = 30.0) -> int:
        """Return the exit code once there is one."""
        wait_for(f"the end of {self.log.name}", lambda: self.popen.poll() is not None,
                 within_s=within_s)  # fmt: skip
        return self.popen.returncode

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def lines(self) -> list[dict[str, Any]]:
        """Return the log's whole lines; all of them must be JSON."""
        text = self.text()
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]

    def said(self, event: str, **fields: Any) -> list[dict[str, Any]]:
        """Return the log's lines of one event with these fields."""
        return [
            line
            for line in self.lines()
            if line["event"] == event and fields.items() <= line.items()
        ]

    def end(self) -> None:
        if self.popen.poll() is None:
            self.popen.kill()
            self.popen.wait()


class Home:
    """One deployment: a database, a broker's address, and the processes of a host."""

    def __init__(
        self,
        path: Path,
        *,
        broker_url: str,
        database_url: str | None = None,
        timers: dict[str, float] | None = None,
        **env: str,
    ) -> None:
        if database_url is not None:
            env = {"LEASEHOLD_DATABASE_URL": database_url, **env}
        self.path = path
        self.broker_url = broker_url
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("LEASEHOLD_")},
            "LEASEHOLD_HOME": str(path),
            "LEASEHOLD_BROKER_URL": broker_url,
            "LEASEHOLD_TIMERS": json.dumps(SHORT if timers is None else timers),
            "LEASEHOLD_ALLOW_FAKE": "true",
            "LEASEHOLD_LOG_JSON": "true",
            "LEASEHOLD_WORKER_THREADS": "4",
            **env,
        }
        path.mkdir(parents=True, exist_ok=True)
        self.marks = path / "marks"
        self.marks.mkdir()
        self.settings = knobs.load(
            home=path,
            broker_url=broker_url,
            database_url=database_url,
            timers=json.loads(self.environment["LEASEHOLD_TIMERS"]),
            allow_fake=True,
        )
        database = Database(self.settings.database_address)
        schema.upgrade(database)
        database.close()
        self.app = bootstrap.build(self.settings)
        self._stack = ExitStack()
        self._count = 0
        publish = transport.publisher(self.settings)
        self.context = self.app.context(publish=publish)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        self.app.database.close()
        self._end_commands()

    def _end_commands(self) -> None:
        """End what a failed test left running; commands outlive their workers."""
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get("MARKS") == str(self.marks):
                    process.kill()

    def start(self, *argv: str, name: str = "process", **env: str) -> Process:
        self._count += 1
        process = Process(
            argv,
            environment={**self.environment, **env},
            log=self.path / f"{name}-{self._count}.log",
        )
        self._stack.callback(process.end)
        return process

    def agent(self, **env: str) -> Process:
        return self.start(sys.executable, "-m", "leasehold.agent", name="agent", **env)

    def celery(self, *arguments: str, **env: str) -> Process:
        """Start a plain Celery worker, as an operator would."""
        argv = [sys.executable, "-m", "celery", "-q", "-A", "leasehold.celery_app", "worker"]
        return self.start(*argv, *arguments, name="celery", **env)

    def workers(self) -> dict[str, int]:
        """Return kind → pid of the workers that consume."""
        with self.app.database.read() as tx:
            return {row["kind"]: row["pid"] for row in hosts.ready_workers(tx)}

    def live_sessions(self) -> int:
        with self.app.database.read() as tx:
            return len(hosts.live_sessions(tx))

    def ready(self, *, besides: Sequence[int] = ()) -> dict[str, int]:
        """Wait until steps and beats are consumed (by others than these pids)."""

        def both() -> dict[str, int]:
            found = {k: pid for k, pid in self.workers().items() if pid not in besides}
            return found if found.keys() >= {"steps", "beats"} else {}

        result: dict[str, int] = wait_for("a ready worker and beat lane", both, within_s=30)
        return result

    def submit(self, script: str, *, provider: str = "fake_plugin", **spec: Any) -> str:
        """Submit one shell command that leaves a mark at each start; return the run's id."""
        env = {"MARKS": str(self.marks)}
        argv = ["/bin/sh", "-c", f'echo $$ >> "$MARKS/$NAME"\n{script}']
        name = f"run{len(list(self.marks.iterdir()))}-{time.monotonic_ns()}"
        env |= {"NAME": name, **spec.pop("env", {})}
        body = {"commands": [{"argv": argv}], "env": env, **spec}
        with self.app.database.write("test.submit") as tx:
            environment = {"name": provider, "provider": provider}
            submit.ensure_environment(
                tx, parse(EnvironmentSpec, environment), tenant_id="default"
            )
            row, _ = submit.submit(
                tx,
                self.context,
                submit.Request(spec=parse(RunSpec, body), environment=provider),
            )
        return str(row["id"])

    def run(self, run_id: str) -> Row:
        with self.app.database.read() as tx:
            row = runs.find(tx, run_id)
        assert row is not None
        return row

    def finished(self, run_id: str, *, within_s: float = 30.0) -> Row:
        """Wait until the run is over; return its row."""

        def over() -> Row | None:
            row = self.run(run_id)
            return row if row["finished_at"] else None

        row: Row = wait_for(f"the end of run {run_id}", over, within_s=within_s)
        return row

    def running(self, run_ids: Sequence[str], *, within_s: float = 30.0) -> None:
        """Wait until each run's command has begun."""
        wait_for(
            "commands that run",
            lambda: (
                all(self.run(run_id)["step"] == "heartbeat" for run_id in run_ids)
                and len(self.starts()) >= len(run_ids)
            ),
            within_s=within_s,
        )

    def starts(self) -> list[int]:
        """Return how often each command wrote its mark."""
        return [len(p.read_text().splitlines()) for p in sorted(self.marks.iterdir())]

    def output(self, run_id: str) -> bytes:
        with self.app.database.read() as tx:
            rows = executions.of_run(tx, run_id)
            return b"".join(
                executions.output(tx, row["id"], stream="stdout", offset=0) for row in rows
            )

    def settled(self) -> None:
        """Wait until no lease lives; then every invariant must hold."""

        def live() -> list[Row]:
            with self.app.database.read() as tx:
                return leases.page(tx, tenant_id="default", live=True)

        wait_for("no live lease", lambda: not live())
        with self.app.database.read() as tx:
            assert not invariants.check(tx)
            assert not history.verify(tx)


def stop_all(processes: Sequence[Process]) -> Iterator[int]:
    """Ask all to drain, then wait for each; yields exit codes."""
    for process in processes:
        process.send(signal.SIGTERM)
    for process in processes:
        yield process.ended()
