"""
RabbitMQ's own doors: no message stops a worker, not even one that is unreadable; every queue is
a quorum queue; Celery's control and events work; nobody waits for ever.
"""

import gzip
import json
import struct
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

import amqp
import pytest
from amqp.basic_message import Message
from kombu.transport import TRANSPORT_ALIASES

import services
from leasehold import rabbitmq, transport
from leasehold import settings as knobs
from leasehold.domain.lifecycle import Step
from leasehold.errors import BadInputError
from leasehold.orchestrator import jobs
from leasehold.settings import Settings
from living import Home, Process, wait_for
from rabbitmq import MissingRabbitError, RabbitServer
from wires import Wire

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def body(*args: Any) -> bytes:
    embed = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
    return json.dumps([list(args), {}, embed]).encode()


ROW: Final = body("run", "some-row", 1)


def heads(**more: Any) -> dict[str, Any]:
    return {"task": "leasehold.validate", "id": str(uuid.uuid4()), "lang": "py", **more}


def message(payload: bytes = ROW, **properties: Any) -> Message:
    given = {
        "content_type": "application/json",
        "content_encoding": "utf-8",
        "application_headers": heads(),
    }
    return Message(payload, **{**given, **properties})


class Raw(Message):
    """A message whose properties are these very bytes."""

    raw: bytes

    def _serialize_properties(self) -> bytes:
        return self.raw


def raw(table: bytes, payload: bytes = ROW) -> Message:
    """Return a message with this header table, whatever it says."""
    made = Raw(payload)
    # Flags: only the headers, the third property, are there.
    made.raw = struct.pack(">HI", 1 << 13, len(table)) + table
    return made


def entry(name: bytes, value: bytes) -> bytes:
    return bytes([len(name)]) + name + value


CASES: Final[dict[str, Message]] = {
    "unknown task": message(application_headers=heads(task="no.such")),
    "no headers": Message(ROW),
    "no id": message(application_headers={"task": "leasehold.validate"}),
    "an eta": message(application_headers=heads(eta="2999-01-01T00:00:00")),
    "a far expiry": message(application_headers=heads(expires="2999-01-01T00:00:00")),
    "retries": message(application_headers=heads(retries=7)),
    "pickle": message(b"\x80\x04.", content_type="application/x-python-serialize"),
    "no JSON": message(b"\x00\xffnot json{"),
    "a number": message(b"7"),
    "deep JSON": message(b"[" * 100_000 + b"]" * 100_000),
    "nothing": message(b""),
    "1 MB": message(body("run", "x" * 1_000_000, 1)),
    "a compressed body": message(
        gzip.compress(ROW), application_headers=heads(compression="application/x-gzip")
    ),
    "a bomb": message(
        gzip.compress(b"0" * 50_000_000),
        application_headers=heads(compression="application/x-gzip"),
    ),
    "unknown compression": message(application_headers=heads(compression="zork")),
    "a fence below zero": message(body("run", "some-row", -1)),
    "unknown run": message(),
    "a task as a list": message(application_headers=heads(task=["a"])),
    "a time beyond every calendar": raw(entry(b"task", b"T" + b"\x7f" * 8)),
    "bytes as task": raw(entry(b"task", b"x" + struct.pack(">I", 3) + b"\xff\xfe\x00")),
    "a short as task": raw(entry(b"task", b"s" + b"\x00\x07")),
    "a name that is no text": raw(entry(b"\xff\xfe", b"V")),
    "a deep table": raw(entry(b"a", b"A" + struct.pack(">I", 0))),
}


@pytest.fixture(scope="module")
def server() -> Iterator[RabbitServer]:
    try:
        server = RabbitServer()
    except MissingRabbitError as error:
        services.missing(services.MissingServiceError(str(error)))
    yield server
    server.close()


@pytest.fixture(scope="module")
def home(server: RabbitServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    path = tmp_path_factory.mktemp("poison")
    with Home(path, broker_url=server.url(), LEASEHOLD_EVENTS="true") as home:
        yield home


@pytest.fixture(scope="module")
def agent(home: Home) -> Process:
    agent = home.agent()
    wait_for("workers", lambda: home.workers().keys() >= {"steps", "beats"}, within_s=90)
    return agent


def more_drops(agent: Process, than: int) -> bool:
    return len(agent.said("message.dropped")) > than


def is_empty(channel: amqp.Channel, queue: str) -> bool:
    found = channel.queue_declare(queue, passive=True)
    assert found is not None
    _name, messages, _consumers = found
    return messages == 0


def test_each_poison_is_dropped_and_the_same_worker_goes_on(
    server: RabbitServer, home: Home, agent: Process
) -> None:
    workers = home.ready()
    connection = server.connect()
    channel = connection.channel()
    for queue in ("leasehold", "leasehold.beat"):
        for name, poison in CASES.items():
            dropped = len(agent.said("message.dropped"))
            channel.basic_publish(poison, exchange="", routing_key=queue)
            wait_for(f"a drop of {name!r}", partial(more_drops, agent, dropped), within_s=60)
    for queue in ("leasehold", "leasehold.beat"):
        wait_for("an empty queue", partial(is_empty, channel, queue))
    connection.close()
    assert home.ready() == workers
    run_id = home.submit("echo still here")
    assert home.finished(run_id, within_s=60)["status"] == "succeeded"
    assert home.workers() == workers
    lines = agent.said("message.dropped")
    assert len(lines) == 2 * len(CASES)
    assert "x" * 100 not in agent.text()
    home.settled()


def test_only_our_queues_are_there_and_every_one_is_a_quorum_queue(
    server: RabbitServer, home: Home, agent: Process
) -> None:
    names = [f"leasehold.host.{host}" for host in _hosts(home)] + ["leasehold"]
    connection = server.connect()
    for name in [*names, *(f"{name}.beat" for name in names)]:
        with pytest.raises(amqp.PreconditionFailed, match="x-queue-type"):
            # What is there is said to be something else.
            connection.channel().queue_declare(
                name,
                durable=True,
                auto_delete=False,
                arguments={"x-queue-type": "classic", "x-expires": 604_800_000},
            )
    with pytest.raises(amqp.NotFound):
        connection.channel().queue_declare("celery_delayed_27", passive=True)
    connection.close()


def _hosts(home: Home) -> list[str]:
    return [(home.settings.host_home / "host-id").read_text().strip()]


@pytest.mark.parametrize("scheme", ["amqp", "amqps", "pyamqp"])
def test_every_way_to_rabbitmq_is_guarded(tmp_path: Path, scheme: str) -> None:
    app = transport.make(Settings(home=tmp_path), broker_url=f"{scheme}://127.0.0.1:1//")
    chosen = app.connection_for_read().get_transport_cls()
    assert issubclass(chosen, rabbitmq.Transport | rabbitmq.SSLTransport)
    assert TRANSPORT_ALIASES[scheme].startswith("leasehold.rabbitmq:")


def test_celerys_own_control_and_events_work_beside_quorum_queues(
    home: Home, agent: Process
) -> None:
    app = transport.make(home.settings)
    wait_for("two answers to a ping", lambda: len(app.control.ping(timeout=1) or []) == 2)
    seen: set[str] = set()
    with app.connection_for_read() as connection:
        heard: dict[str, Any] = {"*": lambda event: seen.add(event["type"])}
        receiver = app.events.Receiver(connection, handlers=heard)

        def told() -> bool:
            # Its queue is there after the first look: what comes later waits in it.
            with suppress(TimeoutError):
                receiver.capture(limit=20, timeout=1, wakeup=False)
            if {"task-started", "task-succeeded"} <= seen:
                return True
            home.finished(home.submit("true"), within_s=60)
            return False

        wait_for("events of our steps", told, within_s=90)
    home.settled()


def test_a_plain_celery_worker_declares_the_same_queues(
    server: RabbitServer, tmp_path: Path
) -> None:
    with Home(tmp_path / "plain", broker_url=server.url()) as home:
        home.celery("-E")
        wait_for("workers", lambda: home.workers().keys() >= {"steps", "beats"}, within_s=90)
        publish = transport.Publisher(transport.make(home.settings))
        for host in _hosts(home):
            for queue in ("leasehold", f"leasehold.host.{host}"):
                for name in (queue, f"{queue}.beat"):
                    message = jobs.Message("run", "some-row", 1, Step.VALIDATE, name)
                    assert publish(message), f"{name} is not what we would declare"
        assert home.finished(home.submit("true"), within_s=60)["status"] == "succeeded"
        home.settled()


def test_the_doctor_knows_rabbitmq_and_says_no_password(home: Home, agent: Process) -> None:
    said = subprocess.run(
        [sys.executable, "-m", "leasehold", "doctor", "--json"],
        env=home.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    checks = {check["name"]: check for check in json.loads(said.stdout)["checks"]}
    assert checks["broker"]["state"] == "ok"
    assert "answers: RabbitMQ 3." in checks["broker"]["summary"]
    assert "for-a-test" not in said.stdout + said.stderr


def test_a_publisher_waits_for_a_hanging_rabbitmq_a_second_or_two(
    server: RabbitServer, tmp_path: Path
) -> None:
    wire = Wire(server.port)
    settings = Settings(home=tmp_path)
    publish = transport.Publisher(
        transport.make(settings, broker_url=server.url(port=wire.port))
    )
    message = jobs.Message("run", "some-row", 1, Step.VALIDATE, "leasehold.nobody")
    assert publish(message)
    with wire.stalled():
        began = time.monotonic()
        assert not publish(message)
        assert time.monotonic() - began < 10 * transport.HANG_S
        fresh = transport.Publisher(
            transport.make(settings, broker_url=server.url(port=wire.port))
        )
        assert not fresh(message)
    # The answer that came late is not taken for a later message's.
    wait_for("a publish", lambda: publish(message))
    server.forget("leasehold.nobody")
    wire.close()


def test_a_broker_of_another_kind_is_refused_by_name() -> None:
    with pytest.raises(BadInputError, match=r"BROKER_URL.*no such kind.*amqp://"):
        knobs.load(broker_url="sqs://nobody:secret@here")
