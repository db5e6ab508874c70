"""A worker that is alive and deaf is replaced; its good runs go on (real processes)."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import psutil
import pytest

from leasehold.embedded import broker
from leasehold.provider.fake_world import World
from living import SHORT, Home, Process, wait_for

TIMERS: Final = {**SHORT, "canary_every": 0.5, "deaf_after": 2, "child_silent": 3}
HOOKS: Final = {"PYTHONPATH": str(Path(__file__).parent / "hooks")}


class Server:
    """A broker of our own that a test may stop, kill and start again."""

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
def server() -> Iterator[Server]:
    server = Server()
    server.up()
    yield server
    server.down()


def gated(home: Home, gate: Path) -> list[str]:
    script = 'until test -e "$GATE"; do sleep 0.05; done; echo done'
    return [home.submit(script, env={"GATE": str(gate)}) for _ in range(3)]


def deaths(agent: Process) -> int:
    return len(agent.said("worker.died"))


def cases() -> Iterator[Any]:
    """Every way for both kinds of worker; the quick part of the suite takes one."""
    ways = {
        "c-call-holds-the-lock": (signal.SIGPROF, "worker.silent"),
        "stopped": (signal.SIGSTOP, "worker.silent"),
        "loop-hangs": (signal.SIGURG, "worker.deaf"),
        "queues-not-read": (signal.SIGWINCH, "worker.deaf"),
    }
    for name, (how, said) in ways.items():
        for kind in ("steps", "beats"):
            quick = (name, kind) == ("queues-not-read", "steps")
            marks = () if quick else (pytest.mark.proof,)
            yield pytest.param(how, said, kind, id=f"{name}-{kind}", marks=marks)


@pytest.mark.parametrize(("how", "said", "kind"), [*cases()])
def test_a_deaf_worker_is_replaced_and_its_runs_go_on(
    server: Server, tmp_path: Path, how: signal.Signals, said: str, kind: str
) -> None:
    gate = tmp_path / "gate"
    with Home(tmp_path / "home", broker_url=server.url, timers=TIMERS) as home:
        agent = home.agent(**HOOKS)
        pid = home.ready()[kind]
        before = gated(home, gate)
        home.running(before)

        os.kill(pid, how)

        wait_for("its replacement", lambda: home.workers().get(kind, pid) != pid, within_s=60)
        assert agent.said(said)
        after = gated(home, gate)
        home.running([*before, *after], within_s=60)
        gate.touch()
        for run_id in (*before, *after):
            assert home.finished(run_id, within_s=60)["status"] == "succeeded"
            assert home.output(run_id) == b"done\n"
        assert home.starts() == [1] * 6
        home.settled()
        assert deaths(agent) == 1
        assert not psutil.pid_exists(pid)


@pytest.mark.proof
@pytest.mark.parametrize("how", ["dead", "stopped"])
def test_a_broker_that_is_away_kills_no_worker(
    server: Server, tmp_path: Path, how: str
) -> None:
    with Home(tmp_path / "home", broker_url=server.url, timers=TIMERS) as home:
        agent = home.agent()
        workers = home.ready()
        assert server.child is not None
        if how == "dead":
            server.down()
        else:
            server.child.send_signal(signal.SIGSTOP)
        away_until = time.monotonic() + 4 * TIMERS["deaf_after"]
        wait_for("a long absence", lambda: time.monotonic() > away_until)
        if how == "dead":
            server.up()
        else:
            server.child.send_signal(signal.SIGCONT)
        run = home.submit("echo back")
        assert home.finished(run, within_s=60)["status"] == "succeeded"
        assert home.workers() == workers
        assert deaths(agent) == 0


@pytest.mark.proof
def test_a_plain_celery_worker_that_is_deaf_ends_itself(server: Server, tmp_path: Path) -> None:
    with Home(tmp_path / "home", broker_url=server.url, timers=TIMERS) as home:
        worker = home.celery("--concurrency=2", **HOOKS)
        home.ready()
        worker.send(signal.SIGWINCH)
        assert worker.ended(within_s=60) == 71


@pytest.mark.proof
def test_a_worker_whose_agent_was_killed_does_not_wait_for_a_step_that_hangs(
    server: Server, tmp_path: Path
) -> None:
    with Home(tmp_path / "home", broker_url=server.url, timers=TIMERS) as home:
        agent = home.agent()
        pids = home.ready().values()
        world = World(home.settings.host_home / "sandboxes" / "fake")
        world.script("validate", delay_s=600)
        run = home.submit("", provider="fake", commands=[{"argv": ["echo", "hi"]}])
        wait_for("a step that hangs", lambda: home.run(run)["claimed_by"])
        agent.send(signal.SIGKILL)
        agent.ended()
        wait_for("their end", lambda: not any(map(psutil.pid_exists, pids)), within_s=60)
        home.agent()
        assert home.finished(run, within_s=60)["status"] == "succeeded"
