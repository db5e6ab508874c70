"""The services that tests run on hold what the tests assume of them."""

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from time import monotonic, sleep

import psutil
import psycopg
import pytest
import redis as redis_client

import services
from services import Postgres, postgres, redis_server, redis_url

__all__ = ["postgres", "redis_server", "redis_url"]

TESTS = Path(__file__).parents[1]


def _connect(url: str) -> "psycopg.Connection[tuple[object, ...]]":
    return psycopg.connect(url.replace("+psycopg", ""), autocommit=True)


def test_a_database_is_a_copy_of_its_template(postgres: Postgres) -> None:
    with postgres.database() as template:
        with _connect(template) as connection:
            connection.execute("CREATE TABLE things AS SELECT 7 AS number")
        for _ in range(2):
            with postgres.database(template=template) as url, _connect(url) as connection:
                rows = connection.execute("DELETE FROM things RETURNING number")
                assert rows.fetchall() == [(7,)]


def test_a_database_is_dropped_though_somebody_is_connected(postgres: Postgres) -> None:
    with postgres.database() as url:
        left_open = _connect(url)
    with pytest.raises(psycopg.OperationalError):
        _connect(url)
    left_open.close()


def test_redis_is_empty_and_ours(redis_url: str) -> None:
    with redis_client.Redis.from_url(redis_url) as client:
        assert client.dbsize() == 0
        assert client.set("key", "value")


def test_a_copied_sqlite_file_has_what_was_still_in_its_log(tmp_path: Path) -> None:
    source = tmp_path / "source.db"
    with closing(sqlite3.connect(source, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE things AS SELECT 7 AS number")
        target = services.copy_sqlite(source, tmp_path / "target.db")
    with closing(sqlite3.connect(target)) as connection:
        assert connection.execute("SELECT number FROM things").fetchall() == [(7,)]


def test_a_missing_service_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    error = services.MissingServiceError("Redis: none")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="Redis: none"):
        services.missing(error)
    monkeypatch.delenv("CI")
    monkeypatch.delenv("LEASEHOLD_REQUIRE_SERVICES", raising=False)
    with pytest.raises(pytest.skip.Exception, match="NOT TESTED: Redis: none"):
        services.missing(error)


@pytest.mark.slow
def test_no_server_outlives_a_killed_session() -> None:
    script = (
        "import os, signal, services\n"
        "with services.run_postgres(), services.run_redis():\n"
        "    print('ready', flush=True)\n"
        "    signal.pause()\n"
    )
    environment = {name: os.environ[name] for name in os.environ if "_TEST_" not in name}
    environment["PYTHONPATH"] = str(TESTS)
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, env=environment
    ) as session:
        assert session.stdout is not None
        assert session.stdout.readline() == b"ready\n"
        servers = psutil.Process(session.pid).children(recursive=True)
        assert len(servers) > 2
        session.kill()
    give_up_at = monotonic() + 15
    while any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in servers):
        assert monotonic() < give_up_at
        sleep(0.02)
