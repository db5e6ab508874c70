"""
The embedded stack: one per home, held by a file lock.

The holder migrates, starts the broker (which may be lost at any time), the host agent and the
REST API, and starts again what dies. Killed with -9: the kernel ends broker and API and tells
the agent to drain (parent-death signals); commands go on; the next holder of the home
re-attaches. The lock is the kernel's, so it never outlives its holder.
"""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Final, Self

from leasehold import reaching
from leasehold.embedded import api_child, broker
from leasehold.errors import BadInputError, BrokerUnavailableError, ConflictError
from leasehold.log import get_logger
from leasehold.settings import Settings
from leasehold.store import hosts, restored, schema
from leasehold.store.database import Database

log = get_logger(__name__)
READY_S: Final = 30.0
STOP_S: Final = 45.0
_LOOK_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class Where:
    """What a running stack says of itself, in ``<home>/stack.json``."""

    pid: int
    broker: str
    database: str
    api: str = ""
    """Where its REST API is; empty if it serves none."""


def running(home: Path) -> Where | None:
    """Return the stack that holds this home now, or None."""
    try:
        handle = (home / "lock").open("r+")
    except OSError:
        return None
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            try:
                return Where(**json.loads((home / "stack.json").read_text()))
            except (OSError, ValueError, TypeError):
                return Where(pid=0, broker="starting", database="starting")
    return None


class Stack:
    """Broker and agent of one home, as children of this process."""

    def __init__(
        self,
        settings: Settings,
        *,
        port: int = 0,
        processes: int | None = None,
        threads: int | None = None,
        cancel_on_exit: bool = False,
        agent_log: IO[bytes] | None = None,
        api: bool = False,
        api_port: int | None = None,
    ) -> None:
        self.settings = settings
        self.home = settings.home.absolute()
        self._port = port
        self._password = broker.new_password()
        self._processes = processes or settings.worker_processes
        self._threads = threads or settings.worker_threads
        self._cancel_on_exit = cancel_on_exit
        self._agent_log = agent_log
        self._lock: IO[str] | None = None
        self._broker: subprocess.Popen[bytes] | None = None
        self.agent: subprocess.Popen[bytes] | None = None
        self._broker_url = ""
        self._serves_api, self._api_port = api, api_port
        self.api: api_child.ApiChild | None = None
        self._api_is_said = False

    def start(self) -> Where:
        """
        Take the home, bring everything up; return where it is.

        Raises:
            ConflictError: Another stack holds the home.
            BadInputError: The home cannot be written, or the API's port cannot be taken.
            BrokerUnavailableError: No broker could be started.
        """
        self._take_home()
        # Before anything is started that would have to be drained.
        listening = api_child.listen(self._api_port) if self._serves_api else None
        (self.home / reaching.FILE).unlink(missing_ok=True)  # of a stack that was killed
        database = Database(self.settings.database_address)
        try:
            schema.upgrade(database)
        finally:
            database.close()
        self._start_broker()
        if listening is not None:
            self.api = api_child.ApiChild(listening, self._environment(), self._agent_log)
        url = self.api.url if self.api is not None else ""
        where = Where(os.getpid(), _public(self._broker_url), database.where(), url)
        self._write("stack.json", json.dumps(asdict(where)))
        self._start_agent()
        return where

    def _take_home(self) -> None:
        try:
            self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = (self.home / "lock").open("a+")
        except OSError as error:
            raise BadInputError(
                f"LEASEHOLD_HOME: {self.home} cannot be written: {error.strerror}"
            ) from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            self._lock = None
            raise ConflictError(f"another stack holds {self.home}") from None

    def _write(self, name: str, text: str) -> None:
        path = self.home / f"{name}.new"
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(text)
        path.replace(self.home / name)

    def _start_broker(self) -> None:
        if self.settings.broker_url is not None:
            self._broker_url = self.settings.broker_url.get_secret_value()
            return
        kind = broker.choose(self.settings.embedded_broker)
        port = self._port or broker.free_port()
        self._port = port
        self._broker = broker.spawn(kind, port=port, password=self._password)
        self._broker_url = broker.broker_url(port, password=self._password)
        broker.wait_ready(self._broker_url, child=self._broker)
        self._write("broker-url", self._broker_url)
        log.info("broker.started", kind=kind.name, port=port)

    def _environment(self) -> dict[str, str]:
        """Return what agent and API live with."""
        return os.environ | {
            "LEASEHOLD_HOME": str(self.home),
            "LEASEHOLD_ALLOW_FAKE": "true",
            "LEASEHOLD_HOST_LABELS": json.dumps(self.settings.host_labels),
        }

    def _start_agent(self) -> None:
        command = [sys.executable, "-m", "leasehold.agent", "--parent", str(os.getpid())]
        command += ["--processes", str(self._processes), "--threads", str(self._threads)]
        if self._cancel_on_exit:
            command.append("--cancel-on-exit")
        self.agent = subprocess.Popen(
            command,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=self._agent_log,
            stderr=self._agent_log,
            start_new_session=True,
        )

    def wait_ready(self, timeout_s: float = READY_S) -> None:
        """
        Return when a worker and a beat lane of this stack consume.

        Raises:
            BrokerUnavailableError: They did not in time.
        """
        database = Database(self.settings.database_address)
        try:
            until = time.monotonic() + timeout_s
            while time.monotonic() < until:
                with database.read() as tx:
                    ready = {row["kind"] for row in hosts.ready_workers(tx)}
                if ready >= {"steps", "beats"}:
                    return
                self.look()
                time.sleep(0.05)
        finally:
            database.close()
        raise BrokerUnavailableError(f"no worker was ready within {timeout_s:g} s")

    def alarm(self) -> str | None:
        """Return why the home's database is not trusted, or None."""
        database = Database(self.settings.database_address)
        try:
            with database.read() as tx:
                return restored.alarm(tx)
        finally:
            database.close()

    def look(self) -> None:
        """Start again what has died."""
        if self._broker is not None and self._broker.poll() is not None:
            log.warning("broker.died", code=self._broker.returncode)
            self._start_broker()
        if self.agent is not None and self.agent.poll() is not None:
            log.warning("agent.died", code=self.agent.returncode)
            self._start_agent()

    def serve(self, stopped: Callable[[], bool]) -> None:
        """Keep everything up until `stopped` says so."""
        while not stopped():
            self.look()
            # Only now for the first time: until workers consume, they have the processor.
            if self.api is not None:
                self.api.look()
                self._say_where_the_api_is()
            time.sleep(_LOOK_S)

    def _say_where_the_api_is(self) -> None:
        """Let workers of this home tell sandboxes; not before it answers, nobody shall wait."""
        if self.api is not None and not self._api_is_said and self.api.answers():
            self._write(reaching.FILE, self.api.url)
            self._api_is_said = True

    def stop(self) -> None:
        """Drain: steps end, commands go on, API and broker go; then give the home up."""
        if self.api is not None:
            self.api.stop()
        if self.agent is not None and self.agent.poll() is None:
            self.agent.send_signal(signal.SIGTERM)
            try:
                self.agent.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self.agent.kill()
                self.agent.wait()
        if self._broker is not None:
            broker.stop(self._broker)
        if self._lock is not None:  # else the home, and what it says of itself, is another's
            for name in ("stack.json", "broker-url", reaching.FILE):
                (self.home / name).unlink(missing_ok=True)
            self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _public(url: str) -> str:
    """Return the broker's address without its password."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"
