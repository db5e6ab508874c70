"""
A private RabbitMQ for tests: one node on free ports of the loopback, tethered to us.

The node and its name server (epmd) are children of ours that the kernel ends with us, whatever
ends us. Everything that it writes, its cookie too, lies in a directory of its own, which is
removed; a directory that a killed session left behind is swept by the next.
"""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic, sleep
from typing import Final

import amqp

from leasehold.embedded import broker, tether

_PREFIX: Final = "leasehold-rmq-"
_PROGRAMS: Final = ("/usr/lib/rabbitmq/bin/rabbitmq-server",)
_START_S: Final = 90.0
_PASSWORD: Final = "for-a-test-on-the-loopback"
_USER: Final = "leasehold"


class MissingRabbitError(Exception):
    """No RabbitMQ is on this machine; says what was looked for."""


class RabbitServer:
    """One node; `restart` keeps what is durable, `wipe` forgets everything."""

    def __init__(self) -> None:
        _sweep()
        self._program = _find()
        self._home = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))
        self.port = broker.free_port()
        names, distribution = broker.free_port(), broker.free_port()
        self._configure()
        self._environment = os.environ | {
            "HOME": str(self._home),
            "ERL_EPMD_PORT": str(names),
            "ERL_EPMD_ADDRESS": broker.HOST,
            "RABBITMQ_NODENAME": f"leasehold{self.port}@localhost",
            "RABBITMQ_DIST_PORT": str(distribution),
            "RABBITMQ_CONFIG_FILE": str(self._home / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": os.devnull,
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self._home / "plugins"),
            "RABBITMQ_MNESIA_BASE": str(self._home / "data"),
            "RABBITMQ_LOG_BASE": str(self._home / "log"),
            # The script then becomes the node instead of its parent, so that we know its pid.
            "RABBITMQ_ALLOW_INPUT": "true",
            "RABBITMQ_SERVER_START_ARGS": (
                "-noinput -start_epmd false -kernel inet_dist_use_interface {127,0,0,1}"
            ),
            # Idle schedulers sleep at once: two cores are all that there is.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                "+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none"
            ),
        }
        self._names = self._spawn(
            ["epmd", "-port", str(names), "-address", broker.HOST], signum=signal.SIGKILL
        )
        self._child: subprocess.Popen[bytes] | None = None
        try:
            self.start()
        except BaseException:
            self.close()
            raise

    def _configure(self) -> None:
        lines = (
            f"listeners.tcp.1 = {broker.HOST}:{self.port}",
            f"default_user = {_USER}",
            f"default_pass = {_PASSWORD}",
            "log.console = true",
            "log.console.level = warning",
            "log.file = false",
            "disk_free_limit.absolute = 50MB",
            "vm_memory_high_watermark.absolute = 1GB",
        )
        (self._home / "rabbitmq.conf").write_text("\n".join(lines) + "\n")
        (self._home / "plugins").write_text("[].\n")

    def _spawn(self, argv: list[str], *, signum: int) -> "subprocess.Popen[bytes]":
        with (self._home / "out").open("ab") as out:
            return subprocess.Popen(
                tether.command(argv, signum=signum),
                cwd="/",
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    def url(self, host: str = broker.HOST, port: int | None = None) -> str:
        """Return its address, through another door if one is named."""
        return f"amqp://{_USER}:{_PASSWORD}@{host}:{port or self.port}//"

    def connect(self) -> amqp.Connection:
        """Return a connection of the plain client."""
        connection = amqp.Connection(
            f"{broker.HOST}:{self.port}",
            userid=_USER,
            password=_PASSWORD,
            login_method="PLAIN",
            connect_timeout=5,
        )
        connection.connect()
        return connection

    def start(self) -> None:
        """Start and wait until it lets us in; from the main thread."""
        self._child = self._spawn([self._program], signum=signal.SIGKILL)
        give_up_at = monotonic() + _START_S
        while True:
            try:
                self.connect().close()
            except (OSError, amqp.AMQPError):
                if self._child.poll() is not None or monotonic() > give_up_at:
                    said = (self._home / "out").read_text(errors="replace")
                    raise RuntimeError(f"RabbitMQ did not start:\n{said[-4000:]}") from None
                sleep(0.1)
            else:
                return

    def kill(self) -> None:
        """End it as a power cut does."""
        if self._child is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._child.pid, signal.SIGKILL)
            self._child.wait()
            self._child = None

    def wipe(self) -> None:
        """Kill it and remove all that it knew."""
        self.kill()
        shutil.rmtree(self._home / "data", ignore_errors=True)

    def forget(self, *queues: str) -> None:
        """Delete these queues with what lies in them, under their consumers' feet."""
        connection = self.connect()
        try:
            for name in queues:
                connection.channel().queue_delete(name)
        finally:
            connection.close()

    def close(self) -> None:
        """End it and remove what it wrote."""
        self.kill()
        self._names.kill()
        self._names.wait()
        shutil.rmtree(self._home, ignore_errors=True)


@contextmanager
def run_rabbitmq() -> Iterator[RabbitServer]:
    """
    Lend a RabbitMQ of our own.

    Raises:
        MissingRabbitError: There is none; says what was looked for.
    """
    server = RabbitServer()
    try:
        yield server
    finally:
        server.close()


def _find() -> str:
    for program in _PROGRAMS:
        if os.access(program, os.X_OK) and shutil.which("epmd"):
            return program
    raise MissingRabbitError(
        f"RabbitMQ: {_PROGRAMS[0]} or epmd is not on this machine; the package is"
        " rabbitmq-server"
    )


def _sweep() -> None:
    """Remove what killed sessions left on disk."""
    for left in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*-*"):
        owner = left.name.removeprefix(_PREFIX).partition("-")[0]
        if owner.isdecimal() and not Path(f"/proc/{owner}").exists():
            shutil.rmtree(left, ignore_errors=True)
