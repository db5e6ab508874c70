"""No message, whatever is in it, stops a worker: it is dropped, with its reason in the log."""

import base64
import json
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
import redis
from kombu.transport import TRANSPORT_ALIASES
from kombu.transport import _transport_cache as resolved  # type: ignore[attr-defined]  # not in the stubs
from kombu.transport import redis as stock

from leasehold import poison, transport
from leasehold.embedded import broker
from leasehold.settings import Settings
from living import Home, Process, wait_for

QUEUE: Final = "leasehold"
LANE: Final = "leasehold.beat"
BIG: Final = 10_000_000


def body(*args: Any, **kwargs: Any) -> bytes:
    embed = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
    return json.dumps([list(args), kwargs, embed]).encode()


def envelope(
    payload: bytes,
    *,
    only: dict[str, Any] | None = None,
    content_type: str = "application/json",
    encoding: str = "utf-8",
    body_encoding: str = "base64",
    **headers: Any,
) -> dict[str, Any]:
    """Return a message as Celery's protocol 2 lays it into a Redis list."""
    task_id = str(uuid.uuid4())
    heads: dict[str, Any] = {
        "task": "leasehold.validate",
        "id": task_id,
        "lang": "py",
        "root_id": None,
        "parent_id": None,
        "retries": 0,
        "timelimit": [None, None],
        "argsrepr": "",
        "kwargsrepr": "",
        "origin": "x",
        "eta": None,
        "expires": None,
        "group": None,
    }
    text = payload.decode("latin-1")
    return {
        "body": base64.b64encode(payload).decode() if body_encoding == "base64" else text,
        "content-encoding": encoding,
        "content-type": content_type,
        "headers": {**heads, **headers} if only is None else only,
        "properties": {
            "correlation_id": task_id,
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": QUEUE},
            "priority": 0,
            "body_encoding": body_encoding,
            "delivery_tag": str(uuid.uuid4()),
        },
    }


def _with(**parts: Any) -> dict[str, Any]:
    return {**envelope(ROW), **parts}


ROW: Final = body("run", "some-row", 1)
CASES: Final[dict[str, Any]] = {
    "unknown task": envelope(ROW, task="no.such"),
    "a task of celery's own": envelope(ROW, task="celery.backend_cleanup"),
    "wrong types": envelope(body({"a": 1}, None, "x")),
    "wrong count": envelope(body(1, 2, 3, 4, 5, 6)),
    "a keyword": envelope(body("run", "some-row", 1, nope=2)),
    "unknown kind": envelope(body("tenant", "some-row", 1)),
    "a bool as fence": envelope(body("run", "some-row", True)),
    "a fence beyond every integer": envelope(body("run", "some-row", 2**80)),
    "a fence below zero": envelope(body("run", "some-row", -1)),
    "NUL in the id": envelope(body("run", "some\0row", 1)),
    "unknown run": envelope(ROW),
    "unknown lease": envelope(body("lease", "some-row", 1), task="leasehold.release"),
    "a lane of another host": envelope(
        body("beat", "leasehold.host.another", 0), task="leasehold.heartbeat"
    ),
    "body is no JSON": envelope(b"\x00\xffnot json{"),
    "body is a number": envelope(b"7"),
    "body is short": envelope(b"[[1]]"),
    "args is no list": envelope(json.dumps([7, {}, {}]).encode()),
    "kwargs is no object": envelope(json.dumps([[1], 7, {}]).encode()),
    "embed is no object": envelope(json.dumps([["run", "id", 1], {}, 7]).encode()),
    "pickle": envelope(
        b"\x80\x04.", content_type="application/x-python-serialize", encoding="binary"
    ),
    "unknown content type": envelope(b"x", content_type="application/zork"),
    "unknown charset": envelope(b"\x00\xff", encoding="utf-99"),
    "unknown compression": envelope(ROW, compression="application/zork"),
    "a compressed body": envelope(ROW, compression="application/x-gzip"),
    "no base64": _with(body="***"),
    "cut base64": _with(body="abc"),
    "unknown body encoding": envelope(b"abc", body_encoding="zork"),
    "no task header": envelope(ROW, only={"x": 1}),
    "headers are null": _with(headers=None),
    "headers are a list": _with(headers=["task"]),
    "a wrong eta": envelope(ROW, eta="yesterday-ish"),
    "a far eta": envelope(ROW, eta="2999-01-01T00:00:00"),
    "a wrong expiry": envelope(ROW, expires="zork"),
    "no id": envelope(ROW, id=None),
    "wrong limits": envelope(ROW, timelimit="abc"),
    "wrong retries": envelope(ROW, retries="abc"),
    "retries are a list": envelope(ROW, retries=[1]),
    "deep JSON": envelope(b"[" * 100_000 + b"]" * 100_000),
    "10 MB": envelope(body("run", "x" * BIG, 1)),
    "10 MB of an unknown task": envelope(body("run", "x" * BIG, 1), task="no.such"),
    "10 MB of no JSON": envelope(b"x" * BIG),
    "a long task name": envelope(ROW, task="x" * 1_000_000),
    "a number as task": envelope(ROW, task=7),
    "a list as task": envelope(ROW, task=["a"]),
    "garbage": "garbage, not an envelope",
    "a bare number": "7",
    "deep garbage": "[" * 100_000,
    "no properties": {"body": "x", "headers": {}},
    "no delivery tag": _with(properties={}),
    "no delivery info": _with(properties={"delivery_tag": "d1", "body_encoding": "base64"}),
    "properties are null": _with(properties=None),
    "bytes": b"\xff\xfe\x00",
}


@pytest.fixture(scope="module", params=["server", "fakeredis"])
def broker_url(request: pytest.FixtureRequest) -> Iterator[str]:
    kinds = broker.available()
    kind = kinds[0] if request.param == "server" else broker.FAKEREDIS
    if request.param == "server" and kind is broker.FAKEREDIS:
        pytest.skip("MISSING SERVICE, NOT TESTED: no Redis or Valkey server here")
    with broker.running(kind) as url:
        yield url


@pytest.fixture(scope="module")
def home(broker_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    with Home(tmp_path_factory.mktemp("poison"), broker_url=broker_url) as home:
        yield home


@pytest.fixture(scope="module")
def agent(home: Home) -> Process:
    agent = home.agent()
    home.ready()
    return agent


@pytest.fixture
def push(home: Home) -> Iterator[Callable[[str, Any], None]]:
    with redis.Redis.from_url(home.broker_url) as client:

        def one(queue: str, message: Any) -> None:
            raw = message if isinstance(message, str | bytes) else json.dumps(message)
            client.lpush(f"{home.settings.broker_prefix}{queue}", raw)

        yield one
        keys = [f"{home.settings.broker_prefix}{name}" for name in (QUEUE, LANE, "unacked")]
        # Acks are written behind; a message that was dropped must not come back.
        wait_for("empty queues", lambda: not any(client.exists(key) for key in keys))


def more_drops(agent: Process, than: int) -> bool:
    return len(agent.said("message.dropped")) > than


def test_each_poison_is_dropped_with_its_reason_and_the_same_worker_goes_on(
    home: Home, agent: Process, push: Callable[[str, Any], None]
) -> None:
    workers = home.ready()
    for queue in (QUEUE, LANE):
        for name, message in CASES.items():
            dropped = len(agent.said("message.dropped"))
            push(queue, message)
            wait_for(f"a drop of {name!r}", partial(more_drops, agent, dropped))
    assert home.ready() == workers
    run_id = home.submit("echo still here")
    assert home.finished(run_id)["status"] == "succeeded"
    assert home.output(run_id) == b"still here\n"
    assert home.workers() == workers
    lines = agent.said("message.dropped")
    assert len(lines) == 2 * len(CASES)
    assert all(line["reason"] and line["dropped"] >= 1 for line in lines)
    assert max(map(len, agent.text().splitlines())) < 1000
    assert "xxxxxxxxxxxxxxxxxxxxxxxxx" * 4 not in agent.text()


def test_a_message_that_comes_five_times_or_late_changes_nothing(
    home: Home, agent: Process, push: Callable[[str, Any], None]
) -> None:
    run_id = home.submit("echo once")
    home.finished(run_id)
    home.settled()
    before = home.run(run_id)
    stale = len(agent.said("message.stale"))
    for fence in (0, 1, 2, before["fence"], before["fence"]):
        push(QUEUE, envelope(body("run", run_id, fence)))
    wait_for("five stale messages", lambda: len(agent.said("message.stale")) >= stale + 5)
    assert home.run(run_id) == before
    assert set(home.starts()) == {1}
    home.settled()


@pytest.mark.parametrize("scheme", ["redis", "rediss"])
def test_every_way_to_redis_is_guarded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    # Somebody in this process has connected already, with kombu's own transport.
    monkeypatch.setitem(TRANSPORT_ALIASES, scheme, "kombu.transport.redis:Transport")
    monkeypatch.setitem(resolved, scheme, stock.Transport)
    app = transport.make(Settings(home=tmp_path), broker_url=f"{scheme}://127.0.0.1:1/0")
    assert app.connection_for_read().get_transport_cls() is poison.Transport
