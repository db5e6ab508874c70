"""The broker may die, be empty when it is back, or accept and never answer: runs end."""

import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest
import redis

from leasehold import transport
from leasehold.domain.lifecycle import Step
from leasehold.embedded import broker
from leasehold.orchestrator.jobs import Message
from living import Home, wait_for

MESSAGE = Message("run", "some-row", 1, Step.VALIDATE, "leasehold")
BOUND_S = 3.0


class Broker:
    """A broker at one address that can be killed and brought back, empty."""

    def __init__(self) -> None:
        self.port = broker.free_port()
        self.password = broker.new_password()
        self.url = broker.broker_url(self.port, password=self.password)
        self.child: subprocess.Popen[bytes] | None = None

    def up(self) -> None:
        self.child = broker.spawn(broker.choose(), port=self.port, password=self.password)
        broker.wait_ready(self.url, child=self.child)

    def down(self) -> None:
        if self.child is not None:
            broker.stop(self.child)
            self.child = None


@pytest.fixture
def server() -> Iterator[Broker]:
    server = Broker()
    server.up()
    yield server
    server.down()


@contextmanager
def hanging(port: int) -> Iterator[None]:
    """Accept at this port, and never answer."""
    with closing(socket.socket()) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((broker.HOST, port))
        listener.listen(200)
        yield


def seconds(call: Callable[[], object]) -> float:
    began = time.monotonic()
    call()
    return time.monotonic() - began


@pytest.mark.parametrize("trouble", ["refuses", "hangs"])
def test_runs_that_were_accepted_without_a_broker_end_when_it_is_back(
    server: Broker, tmp_path: Path, trouble: str
) -> None:
    gate = tmp_path / "gate"
    with Home(tmp_path / "home", broker_url=server.url) as home:
        agent = home.agent()
        home.ready()
        running = home.submit(
            'until test -e "$GATE"; do sleep 0.05; done', env={"GATE": str(gate)}
        )
        home.running([running])
        with ExitStack() as stack:
            server.down()
            if trouble == "hangs":
                stack.enter_context(hanging(server.port))
            accepted: list[str] = []
            for _ in range(3):
                assert seconds(lambda: accepted.append(home.submit("echo late"))) < BOUND_S
            # The clock notices too, and goes on beating: nobody is called dead.
            wait_for("a publish that failed", lambda: agent.said("publish.failed"))
            gate.touch()
        server.up()
        for run_id in [running, *accepted]:
            assert home.finished(run_id, within_s=60)["status"] == "succeeded"
        assert home.starts() == [1] * 4
        assert home.live_sessions() == 1
        home.ready()
        home.settled()


def test_a_publisher_pays_for_a_hanging_broker_once_and_then_a_second_later(
    server: Broker, tmp_path: Path
) -> None:
    with Home(tmp_path / "home", broker_url=server.url) as home:
        publish = transport.Publisher(transport.make(home.settings))
        publish(MESSAGE)
        server.down()
        with hanging(server.port):
            assert seconds(lambda: publish(MESSAGE)) < BOUND_S
            # A whole batch costs nothing after that.
            began = time.monotonic()
            for _ in range(200):
                publish(MESSAGE)
            assert time.monotonic() - began < transport.PAUSE_S
        refused = transport.Publisher(transport.make(home.settings))
        assert seconds(lambda: refused(MESSAGE)) < BOUND_S
        server.up()

        def arrives() -> bool:
            publish(MESSAGE)
            with closing(redis.Redis.from_url(server.url)) as client:
                return bool(client.llen(f"{home.settings.broker_prefix}leasehold"))

        wait_for("a message at the broker that is back", arrives)
