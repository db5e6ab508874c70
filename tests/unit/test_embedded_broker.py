"""Every kind of embedded broker carries Celery, and none outlives who started it."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis
from celery import Celery, chain

import broker_probe
from leasehold.embedded import broker
from leasehold.embedded.broker import BrokerKind
from leasehold.errors import BrokerUnavailableError

KINDS = broker.available()
TESTS = Path(__file__).parents[1]


def until(condition: Callable[[], Any], *, seconds: float = 20.0) -> Any:
    """Wait for a condition and return what it said."""
    give_up_at = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < give_up_at, "the condition did not come"
        time.sleep(0.01)
    return answer


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: kind.name)
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    with broker.running(request.param) as address:
        yield address


@pytest.fixture
def client(url: str) -> Iterator["redis.Redis"]:
    with redis.Redis.from_url(url) as connection:
        connection.flushall()
        yield connection


@contextmanager
def worker(url: str, log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a Celery worker on the threads pool; killed at the end if it still lives."""
    argv = [sys.executable, "-m", "celery", "-A", "broker_probe", "worker", "-P", "threads"]
    argv += ["-c", "2", "-E", "--without-gossip", "--without-mingle", "-l", "INFO"]
    environment = {**os.environ, "PROBE_BROKER_URL": url, "C_FORCE_ROOT": "1"}
    with log.open("ab") as out:
        process = subprocess.Popen(argv, cwd=TESTS, env=environment, stdout=out, stderr=out)
    try:
        until(lambda: b" ready." in log.read_bytes())
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def app(url: str) -> Iterator["Celery[Any]"]:
    with broker_probe.make(url) as made:
        yield made
    made.close()


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


@contextmanager
def events(app: "Celery[Any]") -> Iterator[list[dict[str, Any]]]:
    """Collect the workers' events while the block runs."""
    seen: list[dict[str, Any]] = []
    listening, enough = threading.Event(), threading.Event()

    def collect() -> None:
        with app.connection_for_read() as connection:
            receiver = app.events.Receiver(connection, handlers={"*": seen.append})
            with receiver.consumer_context() as (link, _, _):
                listening.set()
                while not enough.is_set():
                    try:
                        link.drain_events(timeout=0.2)
                    except TimeoutError:
                        continue

    thread = threading.Thread(target=collect)
    thread.start()
    try:
        assert listening.wait(10)
        yield seen
    finally:
        enough.set()
        thread.join(10)


@pytest.mark.slow
def test_celery_runs_a_chain_with_events_and_lives_through_a_flush(
    url: str, app: "Celery[Any]", client: "redis.Redis", tmp_path: Path
) -> None:
    out, words = tmp_path / "out", ["one", "two", "three", "four", "five"]
    with worker(url, tmp_path / "log"), events(app) as seen:
        until(lambda: seen)  # the first heartbeat: now we are surely subscribed
        steps = [
            app.signature("probe.write", (str(out), word), immutable=True) for word in words
        ]
        chain(*steps, app=app).apply_async()
        until(lambda: lines(out) == words)
        until(lambda: [event["type"] for event in seen].count("task-succeeded") == 5)

        client.flushall()
        app.send_task("probe.write", (str(out), "after the flush"), queue="celery")
        until(lambda: lines(out)[-1] == "after the flush")


@pytest.mark.slow
def test_what_a_killed_worker_held_goes_to_the_next_one(
    url: str, app: "Celery[Any]", tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with worker(url, tmp_path / "log-1") as first:
        app.send_task("probe.hold", (str(out),), {"first_only": str(tmp_path / "first")})
        until(lambda: lines(out) == ["began"])
        first.send_signal(signal.SIGKILL)
        first.wait()
        with worker(url, tmp_path / "log-2"):
            until(lambda: lines(out) == ["began", "began", "ended"])


def test_an_error_reply_keeps_the_connection(client: "redis.Redis") -> None:
    with redis.Redis(
        connection_pool=client.connection_pool, single_connection_client=True
    ) as one:
        before = one.client_id()
        with pytest.raises(redis.ResponseError):
            one.execute_command("NOSUCHCOMMAND")
        with pytest.raises(redis.exceptions.NoScriptError):
            one.evalsha("0" * 40, 0)
        assert one.client_id() == before


def test_nobody_gets_in_without_the_password(url: str) -> None:
    address = url.partition("@")[2]
    for bad in (f"redis://{address}", f"redis://:wrong@{address}"):
        for protocol in (2, 3):
            stranger = redis.Redis.from_url(bad, protocol=protocol)
            with stranger, pytest.raises(redis.AuthenticationError):
                stranger.ping()
    host, _, port = address.partition("/")[0].partition(":")
    with socket.create_connection((host, int(port))) as raw:
        raw.sendall(b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n")
        assert raw.recv(100).startswith(b"-NOAUTH")


def test_the_old_protocol_and_the_new_one_are_both_spoken(url: str) -> None:
    for protocol in (2, 3):
        with redis.Redis.from_url(url, protocol=protocol) as either:
            assert either.ping()
            assert either.hset("hash", "field", "value") in (0, 1)
            assert either.hgetall("hash") == {b"field": b"value"}


def test_info_says_who_serves(client: "redis.Redis") -> None:
    info: Any = client.info()
    assert info["redis_version"]
    assert info["maxmemory_policy"] == "noeviction"
    assert info["connected_clients"] >= 1


def test_only_the_loopback_is_served(url: str) -> None:
    port = int(url.rpartition(":")[2].partition("/")[0])
    listening = [
        link.laddr
        for link in psutil.net_connections("tcp")
        if link.status == psutil.CONN_LISTEN and link.laddr and link.laddr.port == port
    ]
    assert listening == [("127.0.0.1", port)]


def test_a_big_body_passes_whole(client: "redis.Redis") -> None:
    body = os.urandom(10_000_000)
    client.lpush("big", body)
    assert client.brpop(["big"], timeout=5) == (b"big", body)


def test_a_dead_client_takes_nothing_from_a_queue(url: str, client: "redis.Redis") -> None:
    def blocked() -> int:
        info: Any = client.info("clients")
        return int(info["blocked_clients"])

    with redis.Redis.from_url(url, single_connection_client=True) as dying:
        assert dying.connection is not None
        dying.connection.send_command("BRPOP", "queue", 0)
        until(lambda: blocked() == 1)
        dying.connection.disconnect()
    client.lpush("queue", "message")
    until(lambda: blocked() == 0)
    assert client.lpop("queue") == b"message"


def test_a_stopped_subscriber_stalls_nobody(url: str, client: "redis.Redis") -> None:
    with client.pubsub() as stopped:  # type: ignore[no-untyped-call]  # not typed there
        stopped.subscribe("news")
        assert stopped.get_message(timeout=5)
        for _ in range(200):
            client.publish("news", b"x" * 100_000)
        assert client.ping()


def test_a_fresh_connection_costs_no_idle_cpu() -> None:
    kind = broker.FAKEREDIS
    password = broker.new_password()
    port = broker.free_port()
    child = broker.spawn(kind, port=port, password=password)
    try:
        url = broker.broker_url(port, password=password)
        broker.wait_ready(url, child=child)
        idle = [redis.Redis.from_url(url) for _ in range(30)]
        for connection in idle:
            connection.ping()
        process = psutil.Process(child.pid)
        before, began = process.cpu_times(), time.monotonic()
        until(lambda: time.monotonic() - began > 0.5)
        after = process.cpu_times()
        assert after.user + after.system - before.user - before.system <= 0.02
        for connection in idle:
            connection.close()
    finally:
        broker.stop(child)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_the_broker_dies_with_a_parent_that_was_killed(kind: BrokerKind) -> None:
    script = (
        "import sys, signal; from leasehold.embedded import broker;"
        "kind = {k.name: k for k in broker.available()}[sys.argv[1]];"
        "port = broker.free_port(); child = broker.spawn(kind, port=port, password='pw');"
        "broker.wait_ready(broker.broker_url(port, password='pw'), child=child);"
        "print(child.pid, flush=True); signal.pause()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, kind.name], stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert "pw" not in psutil.Process(pid).cmdline()
        parent.kill()
    until(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == "zombie")


def test_fakeredis_can_be_forced() -> None:
    assert broker.choose("fakeredis") == broker.FAKEREDIS


def test_a_broker_that_cannot_start_is_said_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        child = broker.spawn(broker.FAKEREDIS, port=port, password="pw")
        child.wait(10)
        taken.close()
        with pytest.raises(BrokerUnavailableError, match="exit code"):
            broker.wait_ready(broker.broker_url(port, password="pw"), child=child)
