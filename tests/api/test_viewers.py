"""Many who watch: what they cost, who may, who is let go, and that nobody waits for another."""

import asyncio
import json
import socket

import httpx
import psycopg
import pytest

from api.served import client_of, make_key, serving
from api.streaming import (
    QUICK,
    RUNS,
    end,
    leave,
    start,
    streaming,
    tell,
    watch_of,
    whole,
    write,
    written,
)
from api.test_runs import refused
from command_line import until
from leasehold.api.serving import Service
from leasehold.api.watch import Pace
from leasehold.settings import Settings
from leasehold.store.database import Database
from store.rows import insert_run


def test_as_many_may_watch_as_the_process_allows(
    settings: Settings, database: Database, run: str
) -> None:
    with (
        serving(settings, pace=Pace(viewers=2, **QUICK)) as service,
        client_of(service, make_key(database)) as client,
    ):
        path = f"{run}/events/stream"
        with streaming(client, path) as first:
            next(first)
            with streaming(client, path) as second:
                next(second)
                problem = refused(client.get(f"{RUNS}/{path}"), 429, "full")
                assert "2 streams are open already" in problem["message"]
                assert problem["details"]["retry_after_s"] == 5.0
            until("one has gone", lambda: len(watch_of(service)) == 1)
            with streaming(client, path) as third:
                assert next(third).data["name"] == "run.queued"


@pytest.mark.parametrize("how", ["revoked_at", "expires_at"])
def test_a_key_that_is_not_valid_any_more_ends_its_streams_and_no_others(
    settings: Settings, database: Database, run: str, how: str
) -> None:
    with serving(settings, pace=Pace(check_s=0.05, **QUICK)) as service:
        lasting, short = make_key(database), make_key(database, name="short")
        path = f"{run}/output/stream"
        with (
            client_of(service, lasting) as client,
            client_of(service, short) as other,
            streaming(client, path) as stays,
            streaming(other, path) as goes,
        ):
            with database.write("test") as tx:
                tx.run(f"UPDATE api_keys SET {how} = {{now}} WHERE name = 'short'")
            (last,) = goes
            assert (last.name, last.data["code"]) == ("closed", "unauthenticated")
            write(database, start(database, run, 1), b"hello")
            assert next(stays).data["text"] == "hello"
            refused(other.get(f"{RUNS}/{path}"), 401, "unauthenticated")


def test_a_server_that_stops_lets_its_viewers_go_on_elsewhere(
    settings: Settings, database: Database, run: str
) -> None:
    key, path = make_key(database), f"{run}/events/stream"
    with serving(settings, pace=Pace(**QUICK)) as one, client_of(one, key) as client:
        with streaming(client, path) as coming:
            first = next(coming)
            second = next(coming)
            one.stop()
            (last,) = coming
        assert (last.name, last.id, last.data["code"]) == ("closed", "", "stopping")
    with (
        serving(settings, pace=Pace(**QUICK)) as other,
        client_of(other, key) as client,
        streaming(client, path, after=first.id) as coming,
    ):
        assert next(coming) == second


@pytest.mark.parametrize("dialect", ["postgresql"], indirect=True)
def test_a_database_that_was_away_ends_no_stream(
    quick: Service, database: Database, database_url: str, run: str
) -> None:
    with (
        client_of(quick, make_key(database)) as client,
        streaming(client, f"{run}/events/stream") as coming,
    ):
        assert [next(coming).data["name"] for _ in range(2)] == ["run.queued", "run.running"]
        database.close()
        url = database_url.replace("+psycopg", "")
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        tell(database, run, "afterwards")
        assert next(coming).data["name"] == "afterwards"


def test_what_is_asked_of_the_database_does_not_grow_with_the_viewers(
    settings: Settings, database: Database
) -> None:
    with database.write("test") as tx:
        runs = [insert_run(tx)["id"] for _ in range(3)]
    key = make_key(database)
    with serving(settings, pace=Pace(tick_s=0.02, check_s=3600.0)) as service:
        asyncio.run(_many(service, database, runs, key))


async def _many(service: Service, database: Database, runs: list[str], key: str) -> None:
    watch, viewers = watch_of(service), 60
    headers = {"Authorization": f"Bearer {key}"}
    limits = httpx.Limits(max_connections=None)
    told: list[str] = []
    everybody = asyncio.Event()

    async def view(client: httpx.AsyncClient, run: str) -> None:
        async with client.stream("GET", f"{RUNS}/{run}/events/stream") as answer:
            async for line in answer.aiter_lines():
                if not line.startswith("data:"):
                    continue
                name = json.loads(line.removeprefix("data:"))["name"]
                if name in {"run.running", "news"}:
                    told.append(name)
                    if len(told) % viewers == 0:
                        everybody.set()
                if name == "news":
                    return

    async with (
        httpx.AsyncClient(
            base_url=service.url, headers=headers, limits=limits, timeout=60
        ) as client,
        asyncio.TaskGroup() as group,
    ):
        for n in range(viewers):
            group.create_task(view(client, runs[n % len(runs)]))
        await everybody.wait()
        everybody.clear()
        asked, turns = watch.statements, watch.turns
        await asyncio.to_thread(until, "ten turns", lambda: watch.turns >= turns + 10)
        # One for each turn; the one under way may be counted already.
        assert watch.statements - asked <= watch.turns - turns + 1
        asked, turns = watch.statements, watch.turns
        for run in runs:
            await asyncio.to_thread(tell, database, run, "news")
        await everybody.wait()
        assert watch.statements - asked <= 2 * (watch.turns - turns + 1)
    assert told.count("news") == viewers


def test_a_viewer_who_does_not_read_holds_nobody_up_and_loses_nothing(
    quick: Service, database: Database, run: str
) -> None:
    execution = start(database, run, 1)
    out = b"".join(b"%07d\n" % n for n in range(1024 * 1024))
    for first in range(0, len(out), 2**20):
        write(database, execution, out[first : first + 2**20])
    leave(database, execution)
    end(database, run)
    key = make_key(database)
    with (
        client_of(quick, key) as slow,
        client_of(quick, key) as fast,
        streaming(slow, f"{run}/output/stream") as coming,
    ):
        one = next(coming)
        # It waits now, with all that follows still to be sent.
        assert written(whole(fast, f"{run}/output/stream"), "stdout") == out
        assert len(watch_of(quick)) == 1
        assert written([one, *coming], "stdout") == out


def test_a_viewer_who_takes_nothing_is_let_go(
    settings: Settings, database: Database, run: str
) -> None:
    execution = start(database, run, 1)
    for _ in range(16):
        write(database, execution, b"x" * 2**20)
    with serving(settings, pace=Pace(stuck_s=0.2, **QUICK)) as service:
        key = make_key(database)
        with socket.create_connection(("127.0.0.1", service.port)) as connection:
            connection.sendall(
                f"GET {RUNS}/{run}/output/stream HTTP/1.1\r\nHost: here\r\n"
                f"Authorization: Bearer {key}\r\n\r\n".encode()
            )
            assert connection.recv(12) == b"HTTP/1.1 200"
            until("it is let go", lambda: len(watch_of(service)) == 0)
